"""A store that is away for a while ends nothing; one that is away for good ends it in time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate.errors import NotFound, StoreError
from tidegate.store.base import Entry
from tidegate.store.memory import MemoryStore
from tidegate.store.patient import FIRST_PAUSE, PatientStore

WHOLE = b"0123456789"


class Failing(MemoryStore):
    """Every call fails as often as ``failures`` says; streams come in pieces of three and break off behind the first."""

    def __init__(self, failures: int, code: str = "store-error") -> None:
        super().__init__()
        self.failures, self.code, self.calls = 0, code, 0
        self.put("k", WHOLE)
        self.failures, self.calls = failures, 0

    def fail(self) -> None:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise StoreError("it is away", code=self.code)

    def get(self, key: str) -> bytes:
        self.fail()
        return super().get(key)

    def put(self, key: str, data: bytes) -> None:
        self.fail()
        super().put(key, data)

    def put_new(self, key: str, data: bytes) -> bool:
        self.fail()
        return super().put_new(key, data)

    def chunks(self, key: str) -> Iterator[bytes]:
        data = MemoryStore.get(self, key)
        for i in range(0, len(data), 3):
            if i:
                self.fail()
            yield data[i : i + 3]

    def find(self, key: str) -> Entry | None:
        self.fail()
        return super().find(key)

    def list(self, prefix: str, *, recursive: bool = True) -> Iterator[Entry]:
        yield from super().list(prefix, recursive=recursive)
        self.fail()

    def move(self, key: str, to: str) -> None:
        self.fail()
        super().move(key, to)

    def delete(self, key: str) -> None:
        self.fail()
        super().delete(key)


class Clock:
    """Time passes only while somebody waits."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def store(self, behind: MemoryStore) -> PatientStore:
        return PatientStore(behind, 20.0, self.pause, lambda: self.now)


CALLS: dict[str, Callable[[Any, Path], Any]] = {
    "get": lambda s, _: s.get("k"), "put": lambda s, _: s.put("new", b"x"), "find": lambda s, _: s.find("k").size,
    "put_new": lambda s, _: s.put_new("new", b"x"), "put_file_new": lambda s, f: s.put_file_new("new", f),
    "chunks": lambda s, _: b"".join(s.chunks("k")), "list": lambda s, _: [e.key for e in s.list("")],
    "move": lambda s, _: s.move("k", "new"), "delete": lambda s, _: s.delete("k"),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("failures", [0, 1, 5])
def test_every_call_waits_for_the_store_and_gives_what_it_gives(call: str, failures: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    plain, behind = Failing(0), Failing(failures)
    assert CALLS[call](Clock().store(behind), file) == CALLS[call](plain, file)
    assert sorted(MemoryStore.list(behind, "")) == sorted(MemoryStore.list(plain, ""))


@pytest.mark.parametrize("call", CALLS)
def test_a_store_that_stays_away_ends_the_call_in_time(call: str, tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "file"
    file.write_bytes(b"x")
    with pytest.raises(StoreError):
        CALLS[call](clock.store(Failing(10_000)), file)
    assert 10 < clock.now <= 20
    assert clock.pauses == sorted(clock.pauses)
    assert clock.pauses[0] == FIRST_PAUSE


@pytest.mark.parametrize("code", ["store-denied", "store-unconditional"])
@pytest.mark.parametrize("call", CALLS)
def test_what_waiting_does_not_mend_is_said_at_once(call: str, code: str, tmp_path: Path) -> None:
    clock, behind, file = Clock(), Failing(10_000, code), tmp_path / "file"
    file.write_bytes(b"x")
    with pytest.raises(StoreError):
        CALLS[call](clock.store(behind), file)
    assert (clock.pauses, behind.calls) == ([], 1)


def test_a_stream_that_keeps_breaking_off_is_given_once_and_whole() -> None:
    behind = Failing(0)
    pieces = []
    for piece in Clock().store(behind).chunks("k"):
        pieces.append(piece)
        behind.failures = 2
    assert b"".join(pieces) == WHOLE


def test_what_is_not_there_is_not_waited_for() -> None:
    clock = Clock()
    with pytest.raises(NotFound):
        list(clock.store(MemoryStore()).chunks("nothing"))
    with pytest.raises(NotFound):
        clock.store(MemoryStore()).get("nothing")
    assert clock.pauses == []
