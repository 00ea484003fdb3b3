"""Any number of watchers, in a simulated world: one outcome for each pipeline and data, whatever happens to them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import LONG
from tests.servers import data_bucket, free_port, moto
from tests.trigger.simulated import Machine, Reached, Runs, Shape, World, outcomes, versions
from tidegate.data import ref
from tidegate.errors import ConfigError, NotFound, StoreError, Trouble
from tidegate.store.memory import MemoryStore
from tidegate.trigger.history import History
from tidegate.trigger.retrain import GAP, PER_DAY, QUIET_HOURS, Retrain, parse_hours, seconds_until
from tidegate.trigger.watch import HELD, LOST, NOT_NEW, RAN, UNSETTLED, Order, Watch, Watcher

POLL, QUIET, LEASE = 60.0, 20.0, 40.0
MakeWorld = Callable[[int], World]


@dataclass
class Data:
    """Data that changes: what is there from each moment on."""

    changes: list[tuple[float, Shape]] = field(default_factory=list)

    def at(self, now: float) -> Shape:
        found = [shape for moment, shape in self.changes if moment <= now]
        if not found:
            raise NotFound("there is nothing yet")
        return found[-1]


def watch(**changes: object) -> Watch:
    return Watch("tidal", "Tidal!", "sha256:plan", {"data": "sim:x"}, {"n": 1}, POLL, QUIET, LEASE, **changes)  # type: ignore[arg-type]


def watching(data: Data, runs: Runs, what: Watch | None = None) -> Callable[[Machine], None]:
    """A watcher's process."""

    def main(machine: Machine) -> None:
        watcher = Watcher(
            what or watch(), Reached(machine), runs.starter(machine), resolve=lambda _: data.at(machine.world.now),
            clock=machine.clock, now=machine.wall, who=machine.name,
        )  # fmt: skip
        while True:
            machine.wait(watcher.turn().again)

    return main


def one_outcome_each(world: World, data: list[Shape]) -> None:
    done = outcomes(world)
    assert sorted(d.data["data"] for d in done) == sorted(map(str, data))
    assert {d.state for d in done} <= {"SUCCEEDED"}
    assert sorted(versions(world)) == sorted(d.run_id for d in done)


@pytest.mark.parametrize("seed", range(5 if LONG else 1))
def test_sixteen_watchers_and_500_events_each_late_double_and_out_of_order_give_one_outcome_each(
    world: MakeWorld, seed: int
) -> None:
    sim = world(seed)
    standing, data, now = [], Data(), 50.0
    for number in range(20):
        stands = sim.random.random() < 0.7
        data.changes.append((now, Shape(f"{number}")))
        standing += [Shape(f"{number}")] if stands else []
        now += 4 * POLL if stands else QUIET / 3
        if number % 5 == 4:
            data.changes.append((now, data.changes[0][1]))  # back to what had its run, or never had
            now += QUIET / 3
    runs = Runs(sim)
    watchers = [sim.start(f"w{i}", watching(data, runs), after=sim.random.random() * POLL) for i in range(16)]
    events = sorted((sim.random.uniform(0, now), w) for w in range(16) for _ in range(500))

    def deliver(machine: Machine) -> None:
        for at, number in events:
            machine.pause(max(0.0, at - sim.now))
            sim.hint(watchers[number])

    sim.start("events", deliver)
    sim.run(now + 4 * POLL)
    last = data.changes[-1][1]
    one_outcome_each(sim, sorted({*standing, last}, key=str))
    assert len(runs.started) == len({*standing, last}), "none of them began twice"


def calls_of_one_pass(world: MakeWorld) -> int:
    sim = world(0)
    machine = sim.start("alone", watching(Data([(0.0, Shape("1"))]), Runs(sim)))
    sim.run(4 * POLL)
    assert len(outcomes(sim)) == 1
    return machine.calls


def moments(world: MakeWorld) -> list[float]:
    """Before the effect of every call of the store that a pass makes, and after it."""
    return [n + half for n in range(1, calls_of_one_pass(world) + 1) for half in (-0.5, 0.0)]


@pytest.mark.parametrize("others", [0, 2])
def test_a_watcher_killed_at_any_call_and_started_again_leaves_one_outcome(world: MakeWorld, others: int) -> None:
    for at in moments(world):
        sim = world(int(at * 2))
        data, runs = Data([(0.0, Shape("1"))]), Runs(sim)
        sim.start("first", watching(data, runs)).kill_at = at
        for number in range(others):
            sim.start(f"other{number}", watching(data, runs), after=1.0)
        sim.start("again", watching(data, runs), after=3 * POLL)
        sim.run(14 * POLL)
        one_outcome_each(sim, [Shape("1")])


def test_a_watcher_killed_again_and_again_leaves_one_outcome(world: MakeWorld) -> None:
    sim = world(5)
    data, runs = Data([(0.0, Shape("1"))]), Runs(sim)
    for number, at in enumerate([3, 6.5, 9, 12, 14.5, 17, 20.5, float("inf")]):
        sim.start(f"w{number}", watching(data, runs), after=number * 5 * POLL).kill_at = at
    sim.run(60 * POLL)
    one_outcome_each(sim, [Shape("1")])


def test_a_holder_that_is_stopped_past_its_lease_and_goes_on_makes_no_second_version(world: MakeWorld) -> None:
    taken_over = 0
    for at in moments(world):
        sim = world(int(at * 2))
        data, runs = Data([(0.0, Shape("1"))]), Runs(sim)
        stopped = sim.start("stopped", watching(data, runs))
        stopped.stop_at, stopped.stop_seconds = at, 5 * LEASE
        sim.start("other", watching(data, runs), after=1.0)
        sim.run(20 * POLL)
        one_outcome_each(sim, [Shape("1")])
        taken_over += len(runs.started) > 1
    assert taken_over > 10, "the test was no test"


def test_an_object_that_grows_has_one_run_when_it_is_whole(world: MakeWorld) -> None:
    sim = world(1)
    data = Data([(100.0 + 2 * n, Shape(f"{n + 1} parts")) for n in range(11)])
    runs = Runs(sim)
    for number in range(3):
        sim.start(f"w{number}", watching(data, runs, watch()), after=number)
    sim.run(100 + 20 + POLL + QUIET + 1)
    [(at, _, parameters)] = runs.started
    assert parameters == {"n": 1, "data": "sim:11 parts"}
    assert at >= 100 + 20 + QUIET
    sim.run(20 * POLL)
    one_outcome_each(sim, [Shape("11 parts")])


def test_data_that_says_that_it_is_whole_does_not_wait(world: MakeWorld) -> None:
    sim = world(1)
    runs = Runs(sim)
    sim.start("w", watching(Data([(0.0, Shape("1", complete=True))]), runs))
    sim.run(1.0)
    assert len(runs.started) == 1


def test_a_prefix_of_a_real_bucket_that_grows_has_one_run_when_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with moto(free_port()) as endpoint:
        bucket = data_bucket(endpoint, monkeypatch.setenv)
        alone = Alone(replace(watch(), data={"data": bucket.uri()}))
        alone.watcher.resolve = ref.resolve
        reasons = [alone.turn(1)]
        for number in range(5):
            bucket.put(f"data/part-{number}", "1,2")
            reasons += [alone.turn(QUIET / 2), alone.turn(QUIET / 2 - 1)]
        assert reasons == ["not-found", *[UNSETTLED] * 10]
        assert [alone.turn(QUIET), alone.turn(QUIET)] == [RAN, NOT_NEW]
        bucket.put("data/part-0", "1,2")
        assert alone.turn(QUIET) == NOT_NEW, "the same bytes put again"
        bucket.put("data/part-0", "1,3")
        bucket.put("data/_SUCCESS", "")
        assert alone.turn(0) == RAN, "who writes it says that it is whole"
    assert len(alone.ran) == 2


@settings(max_examples=150 if LONG else 25)
@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(1, 300)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 120), st.sampled_from([0.0, 5.5, 11.0, 14.5, 21.0])), min_size=1, max_size=5),
)
def test_whatever_the_data_does_and_whoever_is_killed_no_outcome_is_double_or_missing(
    seed: int, states: list[tuple[int, bool, int]], watchers: list[tuple[int, float]]
) -> None:
    sim = World(seed)
    data, runs, now = Data(), Runs(sim), 0.0
    for identity, complete, seconds in states:
        data.changes.append((now, Shape(str(identity), complete)))
        now += seconds
    for number, (after, kill_at) in enumerate(watchers):
        sim.start(f"w{number}", watching(data, runs), after=after).kill_at = kill_at or float("inf")
    sim.start("lives", watching(data, runs))
    sim.run(now + 20 * POLL)
    sim.end()
    done = outcomes(sim)
    assert max(Counter(d.data["data"] for d in done).values()) == 1
    assert str(data.changes[-1][1]) in {d.data["data"] for d in done}
    assert {d.run_id for d in done} <= set(versions(sim)), "only a killed watcher of data that is gone left no mark"
    assert len(set(versions(sim))) == len(versions(sim))


class Alone:
    """One watcher whose clock and whose run a test moves by hand."""

    def __init__(self, what: Watch | None = None, store: MemoryStore | None = None, now: float = 0.0) -> None:
        self.now, self.store, self.shape, self.error = now, store or MemoryStore(), Shape("1", True), None
        self.ran: list[Order] = []
        self.ends: BaseException | str = "SUCCEEDED"
        self.watcher = Watcher(
            what or watch(), self.store, self.start, resolve=self.resolve, clock=lambda: self.now, now=lambda: self.now,
            who="alone",
        )  # fmt: skip

    def resolve(self, _: str) -> Shape:
        if self.error:
            raise self.error
        return self.shape

    def start(self, order: Order) -> str:
        self.ran.append(order)
        if isinstance(self.ends, BaseException):
            raise self.ends
        return self.ends

    def turn(self, seconds: float = 0.0) -> str:
        self.now += seconds
        return self.watcher.turn().reason

    @property
    def history(self) -> list[tuple[str, str, int]]:
        found = reversed([*History(self.store, "tidal").newest()])
        return [(h.kind, h.reason, h.looks) for h in found]


def test_looks_that_find_nothing_new_are_counted_and_not_written() -> None:
    alone = Alone()
    assert alone.turn() == RAN
    for _ in range(100):
        assert alone.turn(1) == NOT_NEW
    before = len([*alone.store.list("")])
    alone.turn(1)
    assert len([*alone.store.list("")]) == before
    alone.shape = Shape("2")
    assert alone.turn(1) == UNSETTLED
    kinds = [(kind, reason, looks) for kind, reason, looks in alone.history if kind == "waiting"]
    assert kinds == [("waiting", "not-new", 2), ("waiting", "unsettled", 101)]
    assert [alone.turn(QUIET), len(alone.ran)] == [RAN, 2]


def test_a_watcher_that_starts_again_says_nothing_twice() -> None:
    first = Alone()
    first.turn()
    first.turn(1)
    said = first.history
    assert Alone(store=first.store, now=10).turn() == NOT_NEW
    assert first.history == said


def test_trouble_is_a_reason_and_passes() -> None:
    alone = Alone()
    for error in (NotFound("nothing there"), Trouble("no network", code="net"), ConfigError("a link", code="link")):
        alone.error = error
        assert alone.turn(1) == error.code
    alone.error = None
    assert alone.turn(1) == RAN


def test_bytes_that_have_not_arrived_are_waited_for_and_are_neither_an_outcome_nor_one_of_the_day_s_runs() -> None:
    alone = Alone(watch(retrain=Retrain(per_day=1)), now=1.8e9)
    alone.shape = Shape("1", complete=True, lacks="part-3")
    assert [alone.turn(), alone.turn(QUIET - 1), alone.turn(1), alone.turn(POLL)] == [
        UNSETTLED, UNSETTLED, "data-missing", "data-missing",
    ]  # fmt: skip
    assert "part-3" in alone.watcher.turn().detail
    assert [*alone.store.list("claims"), *alone.store.list("triggers/tidal/days")] == []
    assert [(kind, reason) for kind, reason, _ in alone.history] == [
        ("waiting", UNSETTLED),
        ("waiting", "data-missing"),
    ]
    alone.shape = Shape("1", complete=True)
    assert [alone.turn(POLL), alone.turn(), len(alone.ran)] == [RAN, NOT_NEW, 1]


def test_a_run_that_could_not_start_gives_its_claim_back() -> None:
    alone = Alone()
    alone.ends = StoreError("no store", code="store-error")
    assert alone.turn() == "store-error"
    alone.ends = ConfigError("no such thing")
    with pytest.raises(ConfigError):
        alone.turn()
    alone.ends = "SUCCEEDED"
    assert Alone(store=alone.store).turn() == RAN, "without waiting for the lease"


@pytest.mark.parametrize("ends", [KeyboardInterrupt(), "CANCELED", "RUNNING"])
def test_ctrl_c_ends_the_watcher_and_the_next_one_goes_on_with_the_same_run(ends: BaseException | str) -> None:
    alone = Alone()
    alone.ends = ends
    with pytest.raises(KeyboardInterrupt):
        alone.turn()
    again = Alone(store=alone.store)
    assert again.turn() == RAN
    assert again.ran[0].run_id == alone.ran[0].run_id


def test_a_failed_run_is_an_outcome_too_and_is_not_started_again() -> None:
    alone = Alone()
    alone.ends = "FAILED"
    assert [alone.turn(), alone.turn(1)] == [RAN, NOT_NEW]
    assert alone.watcher.turn().detail.endswith("FAILED")


def test_what_another_holds_is_left_alone() -> None:
    one = Alone()
    two = Alone(store=one.store)
    saw = []
    one.watcher.start = lambda order: saw.append(two.turn()) or "SUCCEEDED"
    assert [one.turn(), saw] == [RAN, [HELD]]
    assert two.turn() == NOT_NEW
    assert two.ran == []


def test_an_outcome_is_not_marked_by_who_lost_the_lease() -> None:
    alone = Alone()
    start = alone.watcher.start

    def slowly(order: Order) -> str:
        alone.now += LEASE
        return start(order)

    alone.watcher.start = slowly
    assert alone.turn() == LOST
    assert [k for e in alone.store.list("claims") if (k := e.key).endswith("done")] == []


def test_no_more_runs_a_day_than_were_allowed_whoever_starts_them() -> None:
    what = watch(retrain=Retrain(per_day=2))
    store, now = MemoryStore(), 1.8e9
    reasons = []
    for number in range(5):
        alone = Alone(what, store, now + number)
        alone.shape = Shape(str(number), True)
        reasons.append(alone.turn())
    assert reasons == [RAN, RAN, PER_DAY, PER_DAY, PER_DAY]
    tomorrow = Alone(what, store, now + 86400)
    tomorrow.shape = Shape("4", True)
    assert tomorrow.turn() == RAN


def test_a_run_that_was_taken_over_has_its_place_in_the_day_already() -> None:
    what = watch(retrain=Retrain(per_day=1, gap=3600))
    alone = Alone(what, now=1.8e9)
    alone.ends = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        alone.turn()
    assert Alone(what, alone.store, 1.8e9 + 5).turn() == RAN


def test_runs_keep_their_distance_and_the_newest_data_runs_then() -> None:
    alone = Alone(watch(retrain=Retrain(gap=3600)), now=1.8e9)
    assert alone.turn() == RAN
    for number in range(2, 5):
        alone.shape = Shape(str(number), True)
        assert alone.turn(60) == GAP
    assert alone.turn(3600) == RAN
    assert [str(o.parameters["data"]) for o in alone.ran] == ["sim:1", "sim:4"]


@pytest.mark.parametrize(
    ("hours", "at", "waits"),
    [
        ("22:00-06:00", "23:30", True), ("22:00-06:00", "05:59", True), ("22:00-06:00", "06:00", False),
        ("22:00-06:00", "21:59", False), ("08:00-18:00", "12:00", True), ("08:00-18:00", "18:00", False),
    ],
)  # fmt: skip
def test_nothing_starts_in_quiet_hours(hours: str, at: str, waits: bool) -> None:
    zone = ZoneInfo("Asia/Kolkata")
    moment = datetime.fromisoformat(f"2026-11-24T{at}").replace(tzinfo=zone).timestamp()
    alone = Alone(watch(retrain=Retrain(hours=parse_hours(hours), zone=zone)), now=moment)
    assert (alone.turn() == QUIET_HOURS) == waits


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("hours", "utc", "waits"),
    [
        # 29 March 2026: 02:00 CET is 03:00 CEST
        ("22:00-02:30", "2026-03-29T00:59", True), ("22:00-02:30", "2026-03-29T01:00", False),
        ("02:15-02:45", "2026-03-29T00:59", False), ("02:15-02:45", "2026-03-29T01:00", False),
        ("02:30-04:00", "2026-03-29T01:00", True), ("02:30-04:00", "2026-03-29T02:00", False),
        # 25 October 2026: 03:00 CEST is 02:00 CET
        ("22:00-03:00", "2026-10-25T00:59", True), ("22:00-03:00", "2026-10-25T01:59", True),
        ("22:00-03:00", "2026-10-25T02:00", False), ("22:00-02:30", "2026-10-25T00:29", True),
        ("22:00-02:30", "2026-10-25T00:45", False), ("22:00-02:30", "2026-10-25T01:15", True),
        ("22:00-02:30", "2026-10-25T01:30", False),
    ],
)  # fmt: skip
def test_quiet_hours_are_those_that_the_clock_on_the_wall_shows_also_when_it_is_changed(
    hours: str, utc: str, waits: bool
) -> None:
    retrain = Retrain(hours=parse_hours(hours), zone=BERLIN)
    refusal = retrain.refusal(datetime.fromisoformat(f"{utc}+00:00").timestamp(), None)
    assert bool(refusal) == waits
    assert not refusal or refusal.code == QUIET_HOURS


@given(
    st.integers(1_700_000_000, 1_900_000_000),
    st.times(),
    st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "UTC"]),
)
def test_what_waits_for_an_hour_waits_until_it_has_come_and_for_no_more_than_a_day(
    now: int, at: time, zone: str
) -> None:
    at = at.replace(microsecond=0, tzinfo=None)
    local = datetime.fromtimestamp(now, ZoneInfo(zone))
    wait = seconds_until(at, local)
    shown = datetime.fromtimestamp(now + wait, ZoneInfo(zone)).replace(tzinfo=None)
    assert 0 < wait <= 26 * 3600
    assert timedelta(0) <= shown - datetime.combine(shown.date(), at) <= timedelta(hours=1)


def test_each_limit_that_takes_the_place_of_another_is_written_with_its_reason() -> None:
    noon = datetime(2026, 11, 24, 12, tzinfo=BERLIN).timestamp()
    limits = Retrain(per_day=2, gap=3600, hours=parse_hours("22:00-06:00"), zone=BERLIN)
    alone, said = Alone(watch(retrain=limits), now=noon), []
    for number, hours in enumerate([0, 0.5, 1, 2, 3, 9.9, 10.1, 17.9, 18.1]):  # 24 November 12:00 to 25 November 06:06
        alone.now, alone.shape = noon + 3600 * hours, Shape(str(number), True)
        turn = alone.watcher.turn()
        said.append(turn.reason)
        assert turn.reason == RAN or 0 < turn.again <= POLL
    assert said == [RAN, GAP, RAN, PER_DAY, PER_DAY, PER_DAY, QUIET_HOURS, QUIET_HOURS, RAN]
    waited = [reason for kind, reason, _ in alone.history if kind == "waiting"]
    assert waited == [GAP, PER_DAY, QUIET_HOURS], "each change once"
    details = [h.detail for h in alone.watcher.history.newest() if h.kind == "waiting"]
    assert details[0] == "quiet hours until 06:00 Europe/Berlin"
    assert details[1] == "2 runs have started on 2026-11-24 (Europe/Berlin)"


def test_what_follows_at_once_is_waited_for_and_the_last_of_it_runs() -> None:
    alone = Alone(watch(retrain=Retrain(debounce=300)))
    for number in range(5):  # commits, each whole at once
        alone.shape = Shape(str(number), True)
        assert alone.turn(60) == UNSETTLED
    assert [alone.turn(299), alone.turn(1), alone.turn(1)] == [UNSETTLED, RAN, NOT_NEW]
    assert [str(o.parameters["data"]) for o in alone.ran] == ["sim:4"]
    again = Alone(alone.watcher.watch, alone.store)
    again.shape = alone.shape
    assert again.turn() == NOT_NEW, "what had its run need not settle"


def test_a_run_that_is_taken_over_does_not_wait_for_what_may_follow() -> None:
    alone = Alone(watch(retrain=Retrain(debounce=300)))
    alone.ends = KeyboardInterrupt()
    assert alone.turn() == UNSETTLED
    with pytest.raises(KeyboardInterrupt):
        alone.turn(300)
    assert Alone(alone.watcher.watch, alone.store).turn() == RAN


def test_the_same_bytes_under_another_pin_are_not_new_where_they_are_read_and_are_read_once() -> None:
    alone, read = Alone(), []
    alone.watcher.identify = lambda pin: read.append(pin.identity) or "the same digest"
    assert alone.turn() == RAN
    alone.shape = Shape("2")
    assert [alone.turn(1), alone.turn(QUIET), alone.turn(1)] == [UNSETTLED, NOT_NEW, NOT_NEW]
    assert read == ["1", "2"], "each pin once, when it is quiet"


def test_who_holds_what_is_said() -> None:
    one = Alone()
    two, said = Alone(store=one.store), []
    one.watcher.start = lambda order: said.append(two.watcher.turn().detail) or "SUCCEEDED"
    one.turn()
    assert said == ["it is claimed by alone"]


def test_the_history_survives_a_record_that_cannot_be_read() -> None:
    alone = Alone()
    alone.turn()
    alone.store.put("triggers/tidal/log/99-x.json", b"{")
    assert [kind for kind, _, _ in alone.history] == ["started", "ended"]
    assert json.loads(alone.store.get(next(e.key for e in alone.store.list("triggers/tidal/log"))))["run_id"]
