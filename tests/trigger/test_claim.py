"""Claims: who may take over, and when a holder has to give up. One machine after another, on a clock that stands still."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import Damaged
from tidegate.store.memory import MemoryStore
from tidegate.trigger.claim import HOLD, Claims, Done, Lease, done_key, run_id_of, work_of

LEASE = 60.0
WORK = "0" * 64


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def watcher(store: MemoryStore, now: float = 0.0) -> tuple[Claims, Clock]:
    clock = Clock(now)
    return Claims(store, LEASE, clock), clock


def taken(claims: Claims) -> Lease:
    lease = claims.take(WORK)
    assert lease
    return lease


def test_who_is_first_holds_the_work_and_nobody_else(store: MemoryStore) -> None:
    (a, _), (b, _) = watcher(store), watcher(store, 1e9)
    lease = taken(a)
    assert lease.beat()
    assert b.take(WORK) is None
    assert a.take(WORK) is None


def test_a_lease_is_over_when_the_same_heartbeat_was_seen_for_its_time_on_the_own_clock(store: MemoryStore) -> None:
    (a, _), (b, clock) = watcher(store), watcher(store, 1e9)
    taken(a).beat()
    assert b.take(WORK) is None
    clock.now += LEASE - 0.1
    assert b.take(WORK) is None
    clock.now += 0.1
    assert taken(b).epoch == 2


def test_each_heartbeat_begins_the_wait_anew_and_none_is_a_heartbeat_too(store: MemoryStore) -> None:
    (a, _), (b, clock) = watcher(store), watcher(store)
    lease = taken(a)
    assert b.take(WORK) is None
    clock.now += LEASE - 1
    lease.beat()
    assert b.take(WORK) is None
    clock.now += LEASE - 1
    assert b.take(WORK) is None, "seen for a second less"
    clock.now += 1
    assert b.take(WORK)


def test_what_was_released_is_free_at_once(store: MemoryStore) -> None:
    (a, _), (b, _) = watcher(store), watcher(store)
    lease = taken(a)
    lease.release()
    assert taken(b).epoch == 2
    assert not lease.beat()


def test_a_holder_gives_up_before_anybody_can_take_over(store: MemoryStore) -> None:
    a, clock = watcher(store)
    lease = taken(a)
    clock.now = HOLD * LEASE - 1
    assert lease.beat()
    clock.now += HOLD * LEASE
    assert not lease.is_held()
    assert not lease.beat()
    assert lease.mark("run", "SUCCEEDED", {}) is None
    assert store.find(done_key(WORK)) is None


def test_a_heartbeat_that_took_too_long_to_land_does_not_count(store: MemoryStore) -> None:
    a, clock = watcher(store)

    class Slow(MemoryStore):
        def put(self, key: str, data: bytes) -> None:
            clock.now += HOLD * LEASE
            super().put(key, data)

    a.store = Slow()
    lease = taken(a)
    assert not lease.beat()
    assert lease.lost


def test_a_holder_that_was_taken_over_from_marks_nothing(store: MemoryStore) -> None:
    (a, _), (b, clock) = watcher(store), watcher(store)
    old = taken(a)
    b.take(WORK)
    clock.now += LEASE
    new = taken(b)
    assert old.mark("run", "FAILED", {}) is None
    done = new.mark("run", "SUCCEEDED", {"data": "pin"})
    assert done
    assert (done.state, done.epoch) == ("SUCCEEDED", 2)
    assert old.mark("run", "FAILED", {}) == done, "the outcome that is kept"


def test_what_is_done_is_never_claimed_again(store: MemoryStore) -> None:
    (a, _), (b, clock) = watcher(store), watcher(store)
    taken(a).mark("run", "FAILED", {})
    clock.now += 100 * LEASE
    assert b.take(WORK) is None
    assert b.look(WORK).done


def test_an_outcome_that_was_marked_between_the_look_and_the_claim_ends_the_claim(store: MemoryStore) -> None:
    a, _ = watcher(store)
    lease = taken(a)

    class Late(MemoryStore):
        def put_new(self, key: str, data: bytes) -> bool:
            if key.endswith("000002"):
                a.store = store
                lease.mark("run", "SUCCEEDED", {})
            return store.put_new(key, data)

        def list(self, prefix, *, recursive=True):
            return store.list(prefix, recursive=recursive)

        def get(self, key: str) -> bytes:
            return store.get(key)

    b, clock = watcher(store)
    b.store = Late()
    b.take(WORK)
    clock.now += LEASE
    assert b.take(WORK) is None


def test_the_first_outcome_stays_whoever_is_late(store: MemoryStore) -> None:
    first = json.dumps(asdict(Done("run", "SUCCEEDED", 2))).encode()

    class Late(MemoryStore):
        def put_new(self, key: str, data: bytes) -> bool:
            if key == done_key(WORK):  # the process was stopped here, and another marked its outcome
                self.put(key, first)
            return super().put_new(key, data)

    claims, _ = watcher(Late())
    done = taken(claims).mark("run", "FAILED", {})
    assert done
    assert (done.state, done.epoch) == ("SUCCEEDED", 2)


def test_an_outcome_that_cannot_be_read_is_damage_and_not_new_work(store: MemoryStore) -> None:
    store.put(done_key(WORK), b"{")
    with pytest.raises(Damaged):
        watcher(store)[0].take(WORK)


VALUES = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3)


@given(st.text(max_size=3), VALUES, VALUES, st.text(max_size=3), VALUES, VALUES)
def test_other_pipelines_parameters_or_data_are_other_work(a: str, b: dict, c: dict, x: str, y: dict, z: dict) -> None:
    assert (work_of(a, b, c) == work_of(x, y, z)) == ((a, b, c) == (x, y, z))


@given(st.text(max_size=80))
def test_any_pipelines_name_gives_a_run_an_id_that_names_an_object_of_kubernetes(name: str) -> None:
    from tidegate.engines.argo.cluster import NAME
    from tidegate.store.runs import _BY_THE_CLOCK, _ID

    run_id = run_id_of(name, WORK)
    assert NAME.fullmatch(run_id)
    assert _ID.fullmatch(run_id)
    assert len(run_id) <= 63
    assert not _BY_THE_CLOCK.search(run_id)
