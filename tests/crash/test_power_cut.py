"""A power cut at any point of any protocol of the store: what was acknowledged is there, what was not is absent or whole.

Every state that the simulated disk can leave is opened and read through the public classes. The planted faults at the
end show that the same enumeration finds a store that is careless.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from conftest import LONG
from tests.crash import protocols
from tests.crash.protocols import Shown, Write
from tests.crash.simulated_disk import Remains, SimulatedDisk, Tree, write_out
from tidegate.errors import StoreError
from tidegate.store.disk import RealDisk
from tidegate.store.local import LocalStore

T = TypeVar("T")
ROOT = Path("made") / "store"  # two folders that opening the store makes
TEMPORARY = "made/store/tmp/"  # nobody reads there: of states that differ only there one is opened


class Unsynced(RealDisk):
    """The real disk without waiting: what it is asked to keep need not outlive the test."""

    def fsync(self, fd: int) -> None: ...

    def fsync_folder(self, path: Path) -> None: ...


@dataclass(frozen=True)
class Written:
    """A name that was given a value (None: taken away) between two points of the record of the disk."""

    name: str
    value: str | None
    begun: int
    ended: float


@dataclass
class History:
    """What writers did to one simulated disk, and when they were told that it was done."""

    disk: SimulatedDisk
    kind: type[LocalStore] = LocalStore
    written: list[Written] = field(default_factory=list)

    def do(self, writes: list[Write]) -> None:
        """Open a store as a process of its own would, and write; what fails is tried again until it is done."""
        store = self._until_done(lambda: self.kind(self.disk.base / ROOT, self.disk))
        for write in writes:
            begun = len(self.disk.ops)
            shown = self._until_done(lambda write=write: write(store))
            self.written += [Written(name, value, begun, len(self.disk.ops)) for name, value in shown.items()]

    def _until_done(self, act: Callable[[], T]) -> T:
        while True:
            try:
                return act()
            except StoreError:
                continue

    def allowed(self, cut: int) -> dict[str, set[str | None]]:
        """The values that each name may show after a power cut before call ``cut``."""
        begun = [w for w in self.written if w.begun < cut]
        return {name: _allowed([w for w in begun if w.name == name], cut) for name in {w.name for w in self.written}}


def _allowed(begun: list[Written], cut: int) -> set[str | None]:
    done = max((w.begun for w in begun if w.ended <= cut), default=-math.inf)
    before = {None} if done < 0 else set()
    return before | {w.value for w in begun if w.ended > done or w.begun == done}


@dataclass
class Report:
    """How many states there were, how many of them differ, and what is wrong with the broken ones."""

    states: int = 0
    distinct: int = 0
    broken: list[str] = field(default_factory=list)


Known = dict[frozenset[tuple[str, bytes | None]], Shown]


def after_power_cuts(history: History, work: Path, known: Known) -> Report:
    """Look at every state that a power cut can leave at any point of a history; ``known`` ones need no second look."""
    report, remains, before = Report(), Remains(), len(known)
    for cut in range(len(history.disk.ops) + 1):
        allowed = history.allowed(cut)
        for tree in remains.trees():
            state = frozenset(item for item in tree.items() if not item[0].startswith(TEMPORARY))
            if state not in known:
                known[state] = reopened(tree, work / "state")
            report.states += 1
            report.broken += [f"cut before call {cut}: {wrong}" for wrong in complaints(known[state], allowed)]
        if cut < len(history.disk.ops):
            remains.apply(history.disk.ops[cut])
    report.distinct = len(known) - before
    print(f"{report.states} states, {report.distinct} new, {len(report.broken)} broken")
    return report


def reopened(tree: Tree, folder: Path) -> Shown:
    write_out(tree, folder)
    try:
        return protocols.seen(LocalStore(folder / ROOT, Unsynced()))
    except StoreError as e:
        return {"trouble": repr(e)}
    finally:
        shutil.rmtree(folder)


def complaints(shown: Shown, allowed: dict[str, set[str | None]]) -> Iterator[str]:
    for name, values in allowed.items():
        if shown.get(name) not in values:
            yield f"{name} shows {shown.get(name)!r}, not one of {values}"
    for name in shown.keys() - allowed.keys():
        if shown[name] != "whole":  # a blob that a folder needs may be there before the folder
            yield f"{name} shows {shown[name]!r}, which nobody wrote"


NAMES = list(protocols.protocols(Path()))
Disks = Callable[..., SimulatedDisk]


@pytest.fixture
def writes(tmp_path: Path) -> dict[str, list[Write]]:
    return protocols.protocols(protocols.sources(tmp_path / "sources"))


@pytest.fixture
def a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disks:
    """Make disks on which numbers take the place of chance, so that most states of one are states of the next."""
    made = itertools.count()

    def make(forget: str = "") -> SimulatedDisk:
        numbers = itertools.count()
        monkeypatch.setattr(secrets, "token_hex", lambda _: f"{next(numbers):032x}")
        folder = tmp_path / f"disk{next(made)}"
        folder.mkdir()
        return SimulatedDisk(folder, forget)

    return make


@pytest.mark.parametrize("name", NAMES)
def test_what_was_acknowledged_survives_a_power_cut_at_any_point(
    tmp_path: Path, a_disk: Disks, writes: dict[str, list[Write]], name: str
) -> None:
    history = History(a_disk())
    history.do(writes[name])
    report = after_power_cuts(history, tmp_path, {})
    assert report.broken == []
    assert report.states > 50


def once(disk: SimulatedDisk, number: int, act: Callable[[], object]) -> None:
    """Arrange that ``act`` happens ahead of call ``number`` of a disk, once."""
    calls = itertools.count()
    disk.before = lambda _: act() if next(calls) == number else None


def points(disk: SimulatedDisk, writes: list[Write]) -> range:
    """The calls of a writer that something may come between: all in the long setting, every fourth in the quick one."""
    count = itertools.count()
    disk.before = lambda _: next(count)
    History(disk).do(writes)
    calls = next(count)
    return range(calls) if LONG else range(calls % 4, calls, 4)


def trouble() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("name", NAMES)
def test_a_retry_after_a_failed_call_is_as_durable_as_a_first_try(
    tmp_path: Path, a_disk: Disks, writes: dict[str, list[Write]], name: str
) -> None:
    known: Known = {}
    for number in points(a_disk(), writes[name]):
        history = History(a_disk())
        once(history.disk, number, trouble)
        history.do(writes[name])
        assert after_power_cuts(history, tmp_path, known).broken == [], f"after trouble at call {number}"


TWO = [
    ("put", "put again"),
    ("put deep", "put deep"),
    ("put_new", "put_new"),
    ("put_new", "delete"),
    ("delete", "delete"),
    ("blob of a folder", "blob of a folder"),
    ("cache", "cache"),
    ("runs", "runs"),
    ("ledger", "ledger"),
]
NOT_MOVED = [name for name in NAMES if name != "move"]  # of two who move one key, one finds nothing
MORE = [
    pytest.param(*both, marks=pytest.mark.long) for both in itertools.product(NOT_MOVED, repeat=2) if both not in TWO
]


@pytest.mark.parametrize(("first", "second"), [*TWO, *MORE])
def test_what_either_of_two_writers_was_told_survives_a_power_cut(
    tmp_path: Path, a_disk: Disks, writes: dict[str, list[Write]], first: str, second: str
) -> None:
    known: Known = {}
    for number in points(a_disk(), writes[first]):
        history = History(a_disk())
        once(history.disk, number, lambda history=history: history.do(writes[second]))
        history.do(writes[first])
        report = after_power_cuts(history, tmp_path, known)
        assert report.broken == [], f"with the second writer ahead of call {number} of the first"


class InPlace(LocalStore):
    """A store that puts a key by writing to its own name, syncing all it can."""

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        self._make_parents(path.parent)
        path.unlink(missing_ok=True)
        fd = self._disk.create(path)
        self._fill(fd, [data])
        self._disk.fsync_folder(path.parent)


@pytest.mark.parametrize(
    ("forget", "kind"),
    [
        ("fsync fsync_folder", LocalStore),
        ("fsync", LocalStore),
        ("fsync_folder", LocalStore),
        ("", InPlace),
    ],
)
@pytest.mark.parametrize("name", ["put", "delete", "put deep"])
def test_a_careless_store_is_found_out(
    tmp_path: Path, a_disk: Disks, writes: dict[str, list[Write]], forget: str, kind: type[LocalStore], name: str
) -> None:
    history = History(a_disk(forget), kind)
    history.do(writes[name])
    report = after_power_cuts(history, tmp_path, {})
    assert report.broken


def test_a_journal_without_fsync_is_torn_and_one_with_is_not(a_disk: Disks) -> None:
    """The harness alone, without a store: twenty lines appended."""
    lines = [b"line %d of a journal\n" % i for i in range(20)]
    for forget, torn in (("fsync", True), ("", False)):
        disk, remains = a_disk(forget), Remains()
        fd = disk.create(disk.base / "journal")
        disk.fsync_folder(disk.base)
        for line in lines:
            disk.write(fd, memoryview(line))
            disk.fsync(fd)
        disk.close(fd)
        for op in disk.ops:
            remains.apply(op)
        left = {tree["journal"] for tree in remains.trees()}
        assert (left != {b"".join(lines)}) == torn
