"""Drift as data: what a monitor saw last is resolved to a pin, and a watcher waits for it."""

import json
from pathlib import Path

import pytest

from tidegate.data import ref
from tidegate.errors import Damaged, NotFound, UsageError
from tidegate.store.drift import Drifts
from tidegate.store.memory import MemoryStore


def test_the_newest_event_is_what_the_reference_names_and_its_pin_stays(tmp_path: Path) -> None:
    store = MemoryStore()
    Drifts(store).add("fraud", {"column": "amount", "psi": 0.4})
    first = ref.resolve("drift:fraud", store)
    Drifts(store).add("fraud", {"column": "hour", "psi": 0.3})
    second = ref.resolve("drift:fraud", store)
    assert (first.revision, second.revision) == ("1", "2")
    assert first.identity != second.identity
    assert ref.resolve(str(first), store) == ref.parse_pin(str(first), store) == first
    content = ref.fetch(str(first), tmp_path / "event.json", store)
    assert (content.digest, json.loads((tmp_path / "event.json").read_text())["column"]) == (first.identity, "amount")


def test_drift_that_was_not_seen_yet_is_not_found(tmp_path: Path) -> None:
    store = MemoryStore()
    Drifts(store).add("fraud-2", {"column": "amount"})
    with pytest.raises(NotFound):
        ref.resolve("drift:fraud", store)
    with pytest.raises(NotFound):
        ref.fetch(f"drift:fraud:1#digest=sha256:{64 * '0'}", tmp_path / "event.json", store)


def test_an_event_with_other_bytes_than_were_pinned_brings_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    Drifts(store).add("fraud", {"column": "amount"})
    with pytest.raises(Damaged):
        ref.fetch(f"drift:fraud:1#digest=sha256:{64 * '0'}", tmp_path / "event.json", store)
    assert not (tmp_path / "event.json").exists()


@pytest.mark.parametrize(
    "text", ["drift:", "drift:A", "drift:m@champion", "drift:m:1", "drift:m:0#digest=sha256:0", "drift:../m"]
)
def test_what_is_no_reference_of_drift_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        ref.parse(text, MemoryStore())


def test_two_monitors_at_once_lose_no_event() -> None:
    store = MemoryStore()

    class Late(Drifts):
        def last(self, model: str) -> int:
            return 0  # read before the other wrote

    assert Drifts(store).add("fraud", {"by": "one"}) == 1
    assert Late(store).add("fraud", {"by": "two"}) == 2
    assert Drifts(store).newest("fraud") == {"by": "two"}
    assert Drifts(store).newest("iris") is None
