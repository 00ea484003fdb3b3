"""Runs for a watcher: real threads keep the lease, and whoever lost it is interrupted."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tidegate import api
from tidegate.errors import Conflict, StoreError
from tidegate.store.memory import MemoryStore
from tidegate.trigger.claim import Claims, Lease, beat_key, epoch_key
from tidegate.trigger.start import Starter, held
from tidegate.trigger.watch import Order

WORK = "0" * 64


def lease_in(store: MemoryStore, seconds: float) -> Lease:
    lease = Claims(store, seconds, time.monotonic).take(WORK)
    assert lease
    return lease


def soon(condition: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(2000):
        if condition():
            return
        tick.wait(0.005)
    pytest.fail("it did not happen")


def test_the_lease_is_kept_while_the_run_goes_on_and_not_after_it() -> None:
    store = MemoryStore()
    lease = lease_in(store, 60.0)
    seen: set[bytes] = set()
    lease.claims.lease = 0.6

    def beaten() -> bool:
        if store.find(beat_key(WORK, 1)):
            seen.add(store.get(beat_key(WORK, 1)))
        return len(seen) > 3

    with held(lease, interrupt=lambda: None):
        soon(beaten)
    assert not [t for t in threading.enumerate() if t.name.endswith(("(_beat)", "(_guard)"))]


@pytest.mark.parametrize("how", ["taken over", "no store"])
def test_who_lost_the_lease_is_interrupted(how: str) -> None:
    told = threading.Event()

    class Away(MemoryStore):
        def put(self, key: str, data: bytes) -> None:
            raise StoreError("away")

    store = MemoryStore() if how == "taken over" else Away()
    lease = lease_in(store, 0.3)
    if how == "taken over":
        store.put_new(epoch_key(WORK, 2), b"another")
    with held(lease, interrupt=told.set):
        assert told.wait(20)
    assert lease.lost


def test_the_interruption_reaches_a_main_thread_that_waits() -> None:
    lease = lease_in(MemoryStore(), 0.2)
    lease.claims.store.put_new(epoch_key(WORK, 2), b"another")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), held(lease):
            threading.Event().wait(20)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_that_a_stopped_holder_still_has_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [
        Conflict("it goes on", code="run-going"),
        Conflict("it goes on", code="run-going"),
        "SUCCEEDED",
    ]
    asked: list[tuple[dict[str, Any], api.Options]] = []
    pauses: list[float] = []
    told: list[Any] = []

    class Ended:
        state = "SUCCEEDED"

    def run(prepared: Any, parameters: dict[str, Any], options: api.Options, report: Any) -> Any:
        asked.append((parameters, options))
        answer = answers.pop(0)
        if isinstance(answer, Conflict):
            raise answer
        return Ended()

    monkeypatch.setattr(api, "run", run)
    starter = Starter(None, api.Options(jobs=3), told.append, pause=pauses.append)  # type: ignore[arg-type]
    assert starter(Order("tidal-1", {"n": 1}, lease_in(MemoryStore(), 60.0))) == "SUCCEEDED"
    assert len(pauses) == 2
    assert len(told) == 1
    assert [(p, o.run_id, o.jobs) for p, o in asked] == [({"n": 1}, "tidal-1", 3)] * 3


def test_another_conflict_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any) -> Any:
        raise Conflict("somebody else", code="other")

    monkeypatch.setattr(api, "run", run)
    with pytest.raises(Conflict):
        Starter(None, api.Options(), lambda _: None)(Order("r", {}, lease_in(MemoryStore(), 60.0)))  # type: ignore[arg-type]
