"""A disk that remembers what it was asked, and every state that a power cut can leave of it.

What a power cut leaves, as POSIX allows and no kinder: bytes of a file that were not fsynced are there, absent, torn or
zeros; a folder's entries that were not fsynced are there or not, each name for itself, and a rename is two of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tidegate.store.disk import RealDisk

FOLDER = -1  # as an entry; files are numbered from 0
Tree = dict[str, bytes | None]  # path below the base: a file's bytes, None for a folder


@dataclass(frozen=True)
class Op:
    """One call that changed the disk: ``name`` is where, ``to`` the other name, ``file`` the number of the file."""

    kind: str
    name: str = ""
    to: str = ""
    file: int = FOLDER
    data: bytes = b""


class SimulatedDisk(RealDisk):
    """Performs every call below ``base`` (syncs aside), and records it; ``before`` is called ahead of each one."""

    def __init__(self, base: Path, forget: str = "") -> None:
        self.base, self.forget = base, forget.split()
        self.ops: list[Op] = []
        self.before: Callable[[str], object] = lambda _: None
        self._files: dict[int, int] = {}

    def create(self, path: Path) -> int:
        self.before("create")
        fd = super().create(path)
        self._files[fd] = len(self.ops)  # a number that no other file has
        self._record("create", path, file=self._files[fd])
        return fd

    def write(self, fd: int, data: memoryview) -> int:
        self.before("write")
        written = super().write(fd, data)
        self._record("write", file=self._files[fd], data=bytes(data[:written]))
        return written

    def fsync(self, fd: int) -> None:
        self.before("fsync")
        self._record("fsync", file=self._files[fd])

    def close(self, fd: int) -> None:
        os.close(fd)
        self.before("close")

    def link(self, source: Path, target: Path) -> None:
        self.before("link")
        super().link(source, target)
        self._record("link", source, target)

    def rename(self, source: Path, target: Path) -> None:
        self.before("rename")
        super().rename(source, target)
        self._record("rename", source, target)

    def unlink(self, path: Path) -> None:
        self.before("unlink")
        super().unlink(path)
        self._record("unlink", path)

    def mkdir(self, path: Path) -> None:
        self.before("mkdir")
        super().mkdir(path)
        self._record("mkdir", path)

    def fsync_folder(self, path: Path) -> None:
        self.before("fsync_folder")
        path.stat()  # fails as the real one does
        self._record("fsync_folder", path)

    def _record(self, kind: str, *paths: Path, file: int = FOLDER, data: bytes = b"") -> None:
        names = [p.relative_to(self.base).as_posix() if p.is_relative_to(self.base) else ".." for p in paths]
        if kind not in self.forget:
            self.ops.append(Op(kind, *names, file=file, data=data))


class Remains:
    """What may be left: for each name its entries, for each file its contents, from the durable one to the newest."""

    def __init__(self) -> None:
        self.folders: dict[str, dict[str, list[int | None]]] = {}
        self.files: dict[int, list[bytes]] = {}

    def apply(self, op: Op) -> None:
        """Follow one call."""
        if op.kind == "write":
            self.files[op.file].append(self.files[op.file][-1] + op.data)
        elif op.kind == "fsync":
            del self.files[op.file][:-1]
        elif op.kind == "fsync_folder":
            for entries in self.folders.get(op.name, {}).values():
                del entries[:-1]
        elif op.kind == "create":
            self.files[op.file] = [b""]
            self._entries(op.name).append(op.file)
        elif op.kind == "mkdir":
            self._entries(op.name).append(FOLDER)
        else:
            if op.to:
                self._entries(op.to).append(self._entries(op.name)[-1])
            if op.kind != "link":
                self._entries(op.name).append(None)

    def trees(self) -> Iterator[Tree]:
        """Every state that a power cut now may leave."""
        lost = [[(folder, kept) for kept in _kept(names)] for folder, names in self.folders.items()]
        for folders in product(*lost):
            entries = dict(folders)
            files = sorted(set(_reachable(entries, ".")))
            for contents in product(*(_contents(self.files[f]) for f in files)):
                yield dict(_walk(entries, dict(zip(files, contents, strict=True)), "."))

    def _entries(self, path: str) -> list[int | None]:
        folder, _, name = path.rpartition("/")
        return self.folders.setdefault(folder or ".", {}).setdefault(name, [None])


Entries = dict[str, int]


def _kept(names: dict[str, list[int | None]]) -> Iterator[Entries]:
    """What may be left of a folder: any mix of its names; of many names none, all, all but one and one alone."""
    open_ = {name: sorted(set(found), key=found.index) for name, found in names.items() if len(set(found)) > 1}
    fixed = {name: found[-1] for name, found in names.items() if name not in open_}
    mixes = product(*open_.values()) if len(open_) <= 4 else _few(list(open_.values()))
    for mix in mixes:
        both = {**fixed, **dict(zip(open_, mix, strict=True))}
        yield {name: entry for name, entry in both.items() if entry is not None}


def _few(options: list[list[int | None]]) -> Iterator[tuple[int | None, ...]]:
    for base, other in ((0, -1), (-1, 0)):
        yield tuple(o[base] for o in options)
        for i in range(len(options)):
            yield tuple(o[other if i == j else base] for j, o in enumerate(options))


def _contents(versions: list[bytes]) -> list[bytes]:
    """A file's bytes as synced, with each later write, with half of the last one, and with zeros for what came after."""
    synced, newest = versions[0], versions[-1]
    torn = newest[: (len(synced) + len(newest)) // 2]
    return list(dict.fromkeys([*versions, torn, synced + bytes(len(newest) - len(synced))]))


def _reachable(folders: dict[str, Entries], folder: str) -> Iterator[int]:
    for name, entry in folders.get(folder, {}).items():
        yield from _reachable(folders, _join(folder, name)) if entry == FOLDER else [entry]


def _walk(folders: dict[str, Entries], contents: dict[int, bytes], folder: str) -> Iterator[tuple[str, bytes | None]]:
    for name, entry in folders.get(folder, {}).items():
        path = _join(folder, name)
        yield path, None if entry == FOLDER else contents[entry]
        if entry == FOLDER:
            yield from _walk(folders, contents, path)


def _join(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def write_out(tree: Tree, base: Path) -> None:
    """Make a state real in a folder."""
    base.mkdir()
    for name, data in tree.items():  # a folder comes before what is in it
        if data is None:
            (base / name).mkdir()
        else:
            (base / name).write_bytes(data)
