"""Definitions kept from earlier reading and tracing, so that the next start needs neither YAML, kfp nor the user's module.

An entry says what it was made from: every file that was opened or imported, every environment variable that was read,
with their digests and values, and the environment. It counts only while all of them are what they were. Kept are only
definitions that were checked, and only by a process that had imported nothing of the project before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.ir.load import Definition, is_compiled

_OURS = Path(__file__).parents[1]
_PREFIXES = (sys.prefix, sys.base_prefix)  # as they are called and as they are: an environment may be reached by a link
_ENVIRONMENTS = ("/proc", "/dev", "/sys", *_PREFIXES, *(str(Path(p).resolve()) for p in _PREFIXES))
CLOCK_SECONDS = 0.1  # a file's time may be that much behind the clock
_LIBRARY = str(Path(os.__file__).parent)
_MAPPING = {os.__file__, "<frozen os>", "<frozen _collections_abc>"}  # what stands between os.environ and who asks
_watching: list[Sources] = []
_hooked: list[bool] = []


@dataclass
class Sources:
    """What a definition was made from: files by path, variables by name."""

    files: set[str] = field(default_factory=set)
    variables: dict[str, str | None] = field(default_factory=dict)
    started: float = 0.0
    whole: bool = True


@dataclass(frozen=True)
class Kept:
    """The folder with the entries.

    Args:
        folder: where they are.
        salt: a digest of what else may change a definition: the environment.
    """

    folder: Path
    salt: str

    def find(self, target: str) -> Definition | None:
        """Return the definition of a target if everything it was made from is unchanged."""
        try:
            head, _, body = self._path(target).read_bytes().partition(b"\n")
            said = json.loads(head)
            if said["body"] == _sha256(body) and _unchanged(said):
                return Definition(**json.loads(body))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def keep(self, target: str, definition: Definition, sources: Sources) -> None:
        """Keep a definition that was checked; a full disk or a folder that cannot be written costs only time."""
        files = {f: _file_digest(f) for f in sorted(sources.files)}
        if not sources.whole or any(_changed_since(f, sources.started) for f in files):
            return
        body = json.dumps(definition.__dict__).encode()
        head = {"files": files, "variables": sources.variables, "body": _sha256(body)}
        path = self._path(target)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(json.dumps(head).encode() + b"\n" + body)
            temporary.rename(path)

    def _path(self, target: str) -> Path:
        file, _, name = target.partition(":")
        said = json.dumps([os.path.abspath(file), str(Path.cwd()), name, self.salt, _own_digest()])  # noqa: PTH100
        return self.folder / f"{_sha256(said.encode())}.json"


def _own_digest() -> str:
    """The code that reads definitions; an installed wheel's is known by its version."""
    if "site-packages" in _OURS.parts:
        return ""
    files = sorted([*_OURS.glob("ir/*.py"), *_OURS.glob("author/*.py")])
    return _sha256(b"".join(f.read_bytes() for f in files))


def _unchanged(said: dict[str, Any]) -> bool:
    variables = all(os.environ.get(n) == v for n, v in said["variables"].items())
    return variables and all(_file_digest(f) == d for f, d in said["files"].items())


def _file_digest(path: str) -> str | None:
    try:
        return _sha256(Path(path).read_bytes())
    except OSError:
        return None


def _changed_since(path: str, started: float) -> bool:
    try:
        return Path(path).stat().st_mtime >= started - CLOCK_SECONDS
    except OSError:
        return False


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def watching(target: str) -> Iterator[Sources]:
    """Note which files are opened and imported, and which variables are read, while a target is loaded."""
    file = target.partition(":")[0]
    sources = Sources(started=time.time(), whole=not _first_party_modules())
    if is_compiled(target):
        sources.files.add(os.path.abspath(file))  # noqa: PTH100
        sources.whole = True
        yield sources
        return
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked.append(True)
    _watching.append(sources)
    with _variables(sources):
        try:
            yield sources
        finally:
            _watching.remove(sources)
    sources.files |= _first_party_modules()


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if _watching and event == "open" and isinstance(args[0], str | bytes) and not _writes(args[1], args[2]):
        path = os.path.abspath(os.fsdecode(args[0]))  # noqa: PTH100
        if _counts(path):
            _watching[-1].files.add(path)


def _writes(mode: Any, flags: Any) -> bool:
    return bool(mode and set(mode) & set("wax+")) or bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))


def _counts(path: str) -> bool:
    return not path.startswith(_ENVIRONMENTS) and not path.startswith(str(_OURS)) and "__pycache__" not in path


def _first_party_modules() -> set[str]:
    files = {str(getattr(m, "__file__", None) or "") for n, m in list(sys.modules.items()) if n != "__main__"}
    return {f for f in files if f.startswith("/") and _counts(f)}


def _asked_by_python() -> bool:
    """Whether Python's own library reads a variable: some of its modules copy all of them when they are imported."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_code.co_filename in _MAPPING:
        frame = frame.f_back
    file = frame.f_code.co_filename
    return file.startswith(("<frozen", _LIBRARY)) and "site-packages" not in file


@contextlib.contextmanager
def _variables(sources: Sources) -> Iterator[None]:
    """Note the names that are asked of ``os.environ``, whether they are set or not."""
    kind = type(os.environ)
    read = kind.__getitem__

    def noting(self: Any, name: str) -> str:
        if self is os.environ and isinstance(name, str) and not _asked_by_python():
            value = os.environb.get(os.fsencode(name))
            sources.variables.setdefault(name, None if value is None else os.fsdecode(value))
        return read(self, name)

    kind.__getitem__ = noting  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind.__getitem__ = read  # type: ignore[method-assign]
