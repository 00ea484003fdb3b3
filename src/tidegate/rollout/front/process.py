"""Processes of a front: started in sessions of their own, known by pid and start, so that a next supervisor finds them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import ServerError

MOST_LOG = 64 << 20


@dataclass(frozen=True)
class Process:
    """A process of this machine.

    Attributes:
        pid: its number.
        started: when it started, in the system's ticks: another process of the same number has another.
    """

    pid: int
    started: int


Began = Callable[[Process], object]


def ignore(_: Process) -> None:
    """A ``Began`` that nobody needs."""


def identify(pid: int) -> Process | None:
    """Return the process that has a number now, None where there is none or it is dead and only not yet waited for."""
    with suppress(OSError):
        # proc(5): after the name, which may hold anything, in parentheses come state (3rd) … starttime (22nd)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else Process(pid, int(fields[19]))
    return None


def is_alive(process: Process) -> bool:
    """Whether it is this one that still runs."""
    return identify(process.pid) == process


def start(
    command: Sequence[str], log: Path, *, folder: Path | None = None, env: Mapping[str, str] | None = None
) -> Process:
    """Start a command that outlives us, with what it writes at the end of a log.

    Raises:
        ServerError: it cannot be started, or ended at once (code ``front-start``).
    """
    with log.open("ab") as out:  # to append, so that it can be emptied while others write: see ``put_aside``
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=folder,
                env={**os.environ, **(env or {})},
            )  # fmt: skip
        except OSError as e:
            raise ServerError(f"cannot start {command[0]}: {e.strerror}", code="front-start") from e
    _children.append(child)
    return identify(child.pid) or Process(child.pid, 0)


def put_aside(log: Path) -> None:
    """Copy a log of more than ``MOST_LOG`` bytes to ``.1``, in the place of the one before, and empty it.

    It is not renamed, for those who write it were given it when they started, and would follow it. What is written
    between copying and emptying is lost; all of it where there is no room for the copy, which others need more.

    Raises:
        OSError: it cannot be emptied.
    """
    if not log.is_file() or log.stat().st_size <= MOST_LOG:
        return
    copy = log.with_name(f"{log.name}.1")
    try:
        shutil.copyfile(log, copy)
    except OSError:
        copy.unlink(missing_ok=True)
    os.truncate(log, 0)


def last_error(log: Path) -> str:
    """The ``error[…]`` line that a command of ours ended with, if that is how its log ends."""
    with suppress(OSError), log.open("rb") as f:
        f.seek(max(0, f.seek(0, os.SEEK_END) - 4096))
        ends = f.read().decode(errors="replace").splitlines()[-3:]  # found, allowed, hint
        return next((line for line in reversed(ends) if line.startswith("error[")), "")
    return ""


_children: list[subprocess.Popen[bytes]] = []


def reap() -> None:
    """Take note of our dead, or they stay as zombies."""
    _children[:] = [child for child in _children if child.poll() is None]


def tell(process: Process, number: signal.Signals) -> None:
    """Send a signal, unless the process is another one by now."""
    if is_alive(process):
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
