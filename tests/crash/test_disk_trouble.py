"""Disk full, broken or read-only at any call: an error before any answer, the old state readable, nothing left behind."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import LONG
from tests.crash import protocols
from tests.crash.protocols import Shown, Write, put, put_new
from tests.crash.simulated_disk import SimulatedDisk
from tests.disks import small_disk
from tidegate.errors import StoreError
from tidegate.store.blobs import Blobs, digest_path
from tidegate.store.local import LocalStore

NAMES = list(protocols.protocols(Path()))
KINDS = (errno.ENOSPC, errno.EIO, errno.EROFS)


class Troubled(SimulatedDisk):
    """Fails its n-th call, or every call from the n-th on, and knows which ones."""

    def __init__(self, base: Path, at: int = -1, how: int = errno.EIO, *, for_good: bool = False) -> None:
        super().__init__(base)
        self.calls, self.failed, self.healed = itertools.count(), list[str](), False
        self.at, self.how, self.for_good = at, how, for_good
        self.before = self._fail

    def _fail(self, call: str) -> None:
        number = next(self.calls)
        if not self.healed and (number == self.at or (self.for_good and number > self.at >= 0)):
            self.failed.append(call)
            raise OSError(self.how, os.strerror(self.how))


@pytest.fixture
def writes(tmp_path: Path) -> dict[str, list[Write]]:
    return protocols.protocols(protocols.sources(tmp_path / "sources"))


def old_store(folder: Path) -> Path:
    """A store that holds something."""
    folder.mkdir()
    for write in (put("old/k", "old"), put_new("old/new", "old")):
        write(LocalStore(folder / "s", SimulatedDisk(folder)))
    return folder


def points(folder: Path, writes: list[Write]) -> range:
    """The calls to fail: all in the long setting, every third in the quick one."""
    disk = Troubled(old_store(folder))
    do(disk, writes)
    calls = next(disk.calls)
    return range(calls) if LONG else range(calls % 3, calls, 3)


def do(disk: SimulatedDisk, writes: list[Write]) -> tuple[list[Shown], list[StoreError]]:
    """Do what can be done; return what was acknowledged, in order, and what was said to fail."""
    done, failed = [], []
    for write in writes:
        try:
            done.append(write(LocalStore(disk.base / "s", disk)))
        except StoreError as e:
            failed.append(e)
    return done, failed


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("name", [n for n in NAMES if n != "move"])
def test_a_disk_that_fails_at_any_call_is_said_and_leaves_what_was_there(
    tmp_path: Path, writes: dict[str, list[Write]], name: str, for_good: bool
) -> None:
    for number, how in itertools.product(points(tmp_path / "count", writes[name]), KINDS):
        base = old_store(tmp_path / f"{number}-{how}")
        disk = Troubled(base, number, how, for_good=for_good)
        _, failed = do(disk, writes[name])
        assert failed or set(disk.failed) <= {"unlink"}, "only the removal of a temporary file may fail unsaid"
        assert all(os.strerror(how) in e.found and e.hint for e in failed)
        assert "unlink" in disk.failed or list((base / "s" / "tmp").iterdir()) == []
        shown = protocols.seen(LocalStore(base / "s", SimulatedDisk(base)))
        assert (shown["old/k"], shown["old/new"], shown.get("trouble")) == ("old", "old", None)
        disk.healed = True
        done, failed = do(disk, writes[name])
        assert failed == []
        shown = protocols.seen(LocalStore(base / "s", SimulatedDisk(base)))
        expected = {key: value for one in done for key, value in one.items()}
        assert {key: shown.get(key) for key in expected} == expected


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
def test_a_move_that_fails_at_any_call_loses_nothing(tmp_path: Path, for_good: bool) -> None:
    said = 0
    for number in range(12):
        base = old_store(tmp_path / str(number))
        store = LocalStore(base / "s", Troubled(base, number, for_good=for_good))
        try:
            store.move("old/k", "there/k")
        except StoreError:
            said += 1
        assert {"old/k", "there/k"} & {e.key for e in LocalStore(base / "s").list("")}
    assert 5 < said < 12, "there are calls to fail, and all of them were reached"


class SevenBytes(SimulatedDisk):
    """Writes seven bytes at most at a time."""

    def write(self, fd: int, data: memoryview) -> int:
        return super().write(fd, data[:7])


@pytest.mark.parametrize("name", NAMES)
def test_short_writes_cut_nothing_off(tmp_path: Path, writes: dict[str, list[Write]], name: str) -> None:
    disk = SevenBytes(old_store(tmp_path / "short"))
    done, failed = do(disk, writes[name])
    assert failed == []
    shown = protocols.seen(LocalStore(disk.base / "s", disk))
    expected = {key: value for one in done for key, value in one.items()}
    assert {key: shown.get(key) for key in expected} == expected
    assert {len(op.data) for op in disk.ops if op.kind == "write"} <= set(range(1, 8))


def test_a_store_on_a_file_system_made_read_only_is_read_and_refuses_writes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "1m") as small:
        folder = protocols.sources(tmp_path / "sources")
        content = Blobs(LocalStore(small / "s")).add(folder)
        LocalStore(small / "s").put("k", b"old")
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        store = LocalStore(small / "s")
        Blobs(store).fetch(content.digest, tmp_path / "out", kind=content.kind)
        assert digest_path(tmp_path / "out") == content
        refused: list[Callable[[], object]] = [
            lambda: store.put("k", b"x"),
            lambda: store.put_new("new", b"x"),
            lambda: store.move("k", "l"),
            lambda: store.delete("k"),
            lambda: LocalStore(small / "new").put("k", b"x"),
        ]
        for write in refused:
            with pytest.raises(StoreError, match="Read-only"):
                write()
