"""The files through which the launcher's containers and the shim in somebody else's container talk (see shim.c)."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

TOUCH_SECONDS = 5.0
BROKEN = 70
POLL_SECONDS = 0.02
GRACE_SECONDS = 25.0  # longer than the shim gives the command, shorter than Kubernetes gives the pod
LONGEST_WORD = 100_000  # Linux takes 128 KiB for one word of a command
_EXECUTOR_MAIN = re.compile(r"-m\s+kfp\.dsl\.executor_main\b")
# kfp's executor reads its input from one word only: it gets a word of any length this way
_LONG_WORDS = """import runpy, sys
sys.argv[1:] = [open(w[len("@tidegate:"):]).read() if w.startswith("@tidegate:") else w for w in sys.argv[1:]]
runpy.run_module("kfp.dsl.executor_main", run_name="__main__", alter_sys=True)
"""


def install(source: Path, folder: Path) -> None:
    """Bring the shim for whoever waits for it, unless an init container has."""
    target = folder / "bin" / "shim"
    if target.exists():
        return
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_name("shim.part")
    shutil.copyfile(source, temporary)
    temporary.chmod(0o755)
    temporary.rename(target)


@contextlib.contextmanager
def alive(folder: Path) -> Iterator[None]:
    """Show the shim that somebody will write what it waits for."""
    over = threading.Event()

    def touch() -> None:
        while True:
            with contextlib.suppress(OSError):
                (folder / "alive").touch()
            if over.wait(TOUCH_SECONDS):
                return

    threading.Thread(target=touch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def short(command: Sequence[str], folder: Path) -> list[str]:
    """The command with words that Linux would refuse in files, where it is kfp's own and can read them there."""
    words = list(command)
    at = next((i for i, w in enumerate(words) if _EXECUTOR_MAIN.search(w)), None)
    if at is None or all(len(w.encode()) <= LONGEST_WORD for w in words):
        return words
    script = folder / "bin" / "executor_main.py"
    script.write_text(_LONG_WORDS)
    words[at] = _EXECUTOR_MAIN.sub(str(script), words[at])
    return words[: at + 2] + [_in_file(w, i, folder) for i, w in enumerate(words[at + 2 :])]


def _in_file(word: str, index: int, folder: Path) -> str:
    if len(word.encode()) <= LONGEST_WORD:
        return word
    file = folder / "bin" / f"word-{index}"
    file.write_text(word)
    return f"@tidegate:{file}"


def leave(command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
    """Leave a command and its own environment variables for the shim; an empty command lets it end at once."""
    if env:
        (folder / "env").write_bytes(_strings(f"{n}={v}" for n, v in env.items()))
    _whole(folder / "job", _strings([str(len(command)), *command]))


def _whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_bytes(data)
    temporary.rename(path)


def _strings(words: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(w) + b"\0" for w in words)


def open_to_others(folder: Path) -> None:
    """Let any user of the other container write where the step writes, whoever its image says it is."""
    for path in (folder, *folder.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.lstat().st_uid == os.getuid() and not path.is_symlink():
            path.chmod(mode | (0o777 if path.is_dir() else 0o666))


def listen() -> list[float]:
    """Return a list that holds, from now on, when the pod was told to end."""
    told: list[float] = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(time.monotonic()))
    return told


def ended(folder: Path, told: Sequence[float]) -> tuple[int, bool]:
    """Wait until the command ended; return its exit code, -N for signal N, and whether the pod was told to end.

    A command that was told to end has some time to do so. If the shim itself died, or never started, there is no end
    to be read: the pod is told to end then too.

    Args:
        folder: where the shim writes.
        told: what ``listen`` returned.
    """
    while not (folder / "exit").exists():
        if told and time.monotonic() - told[0] > (GRACE_SECONDS if (folder / "exit.part").exists() else 0):
            return -signal.SIGTERM, True
        time.sleep(POLL_SECONDS)
    return _exit_code(folder / "exit"), bool(told)


def _exit_code(file: Path) -> int:
    """The code that the shim wrote; the command could have put something else there."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as f:
            return int(f.read(16))
    except (OSError, ValueError):
        return BROKEN


def plain(log: Path) -> Path:
    """The log, emptied where the command put something else in its place."""
    if not stat.S_ISREG(log.lstat().st_mode):
        log.unlink()
        log.touch()
    return log


def release(folder: Path, code: int) -> None:
    """Let the shim end with this exit code."""
    _whole(folder / "done", str(code).encode())
