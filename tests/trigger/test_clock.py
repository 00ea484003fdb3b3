"""Runs by the clock: each moment once, whatever happens to machines and clocks, and what is missed is said."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tidegate.cron import parse
from tidegate.errors import DefinitionError, StoreError
from tidegate.plan.events import FAILED, SUCCEEDED
from tidegate.store.memory import MemoryStore
from tidegate.trigger.clock import Bell, Clock, due
from tidegate.trigger.watch import Order

DAY = datetime(2026, 3, 1, tzinfo=UTC)


def bell(cron: str, zone: str = "UTC", catch_up: float = 600) -> Bell:
    return Bell("nightly", parse(cron), ZoneInfo(zone), catch_up)


class Machine:
    """A machine with a clock that is moved by hand; a run takes some of its time."""

    def __init__(self, store: MemoryStore, ring: Bell, takes: float = 5, state: str = SUCCEEDED) -> None:
        self.at, self.takes, self.state, self.ran = DAY.timestamp(), takes, state, list[str]()
        self.error: BaseException | None = None
        self.clock = Clock(ring, store, self.run, clock=lambda: self.at, now=lambda: self.at, lease=60)

    def run(self, order: Order) -> str:
        if self.error:
            raise self.error
        self.ran.append(order.run_id)
        end = self.at + self.takes
        while self.at < end:
            self.at = min(end, self.at + 10)
            assert order.lease.beat()
        return self.state

    def live(self, until: datetime) -> None:
        while self.at < until.timestamp():
            wait = self.clock.turn()
            self.at += max(0.5, wait)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(h.kind, h.reason) for h in reversed([*self.clock.history.newest()])]


def test_each_moment_has_its_run() -> None:
    machine = Machine(MemoryStore(), bell("0 3 * * *"))
    machine.live(DAY + timedelta(days=3))
    assert len(machine.ran) == len(set(machine.ran)) == 3
    assert machine.said == [("started", "clock"), ("ended", SUCCEEDED)] * 3


def test_of_moments_that_came_during_a_run_the_latest_starts() -> None:
    machine = Machine(MemoryStore(), bell("* * * * *"), takes=150)
    machine.live(DAY + timedelta(minutes=10))
    assert len(machine.ran) == 4


@pytest.mark.parametrize(("away", "runs", "missed"), [(300, 2, 0), (3600, 1, 1), (86_400 * 3, 1, 1)])
def test_what_came_while_nobody_was_there_starts_if_it_is_not_too_late_else_it_is_said(
    away: float, runs: int, missed: int
) -> None:
    store = MemoryStore()
    Machine(store, bell("0 3 * * *")).live(DAY + timedelta(hours=3) - timedelta(seconds=60))
    machine = Machine(store, bell("0 3 * * *"))
    machine.at = (DAY + timedelta(hours=3, seconds=away - 60)).timestamp()
    started = datetime.fromtimestamp(machine.at, UTC)
    next_night = started.replace(hour=3, minute=0, second=0) + timedelta(days=started.hour >= 3)
    machine.live(next_night + timedelta(minutes=1))
    assert len(machine.ran) == runs
    assert machine.said.count(("waiting", "missed")) == missed


def test_any_number_of_machines_run_a_moment_once_and_a_killed_run_is_gone_on_with() -> None:
    store = MemoryStore()
    machines = [Machine(store, bell("0 3 * * *", catch_up=0)) for _ in range(5)]
    for machine in machines:
        machine.clock.turn()
    for machine in machines:
        machine.at = (DAY + timedelta(hours=3)).timestamp()
    machines[0].error = SystemExit()  # as kill -9: nothing of it runs after that
    with pytest.raises(SystemExit):
        machines[0].clock.turn()
    for _ in range(300):
        for machine in machines[1:]:
            wait = machine.clock.turn()
            machine.at += wait or 1
    assert len([r for m in machines for r in m.ran]) == 1
    assert machines[1].said[-1] == ("ended", SUCCEEDED)


@pytest.mark.parametrize("seeds", [1, pytest.param(40, marks=pytest.mark.long)])
def test_random_machines_that_come_and_go_never_double_a_moment(seeds: int) -> None:
    for seed in range(seeds):
        draw, store, ran, at = random.Random(seed), MemoryStore(), list[str](), DAY.timestamp()
        for _ in range(25):
            machine = Machine(store, bell("*/7 * * * *"), takes=draw.choice([1, 30, 500]))
            machine.at, machine.ran = at, ran
            machine.live(datetime.fromtimestamp(at + draw.uniform(1, 2000), UTC))
            at = machine.at + draw.choice([0, 1, 5000])
        assert len(ran) == len(set(ran)) > 10, seed


def test_what_cannot_run_ends_its_moment_and_not_the_schedule() -> None:
    machine = Machine(MemoryStore(), bell("0 3 * * *"))
    machine.error = DefinitionError("the definition changed", code="resume-changed")
    machine.live(DAY + timedelta(days=1))
    machine.error = None
    machine.live(DAY + timedelta(days=2))
    assert len(machine.ran) == 1
    assert machine.said == [("started", "clock"), ("ended", FAILED), ("started", "clock"), ("ended", SUCCEEDED)]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreError("away")])
def test_a_moment_that_was_interrupted_is_run_by_whoever_comes_next(error: BaseException) -> None:
    store = MemoryStore()
    machine = Machine(store, bell("0 3 * * *"))
    machine.error = error
    with pytest.raises(type(error)):
        machine.live(DAY + timedelta(days=1))
    later = Machine(store, bell("0 3 * * *"))
    later.at = machine.at + 7200
    later.clock.turn()
    assert len(later.ran) == 1


@pytest.mark.parametrize(
    ("zone", "day", "runs"),
    [("Europe/Berlin", datetime(2026, 3, 29, tzinfo=UTC), 0), ("Europe/Berlin", datetime(2026, 10, 25, tzinfo=UTC), 2),
     ("Europe/Berlin", datetime(2026, 6, 1, tzinfo=UTC), 1)],
)  # fmt: skip
def test_an_hour_that_clocks_leave_out_has_no_run_and_one_that_they_repeat_two(
    zone: str, day: datetime, runs: int
) -> None:
    machine = Machine(MemoryStore(), bell("30 2 * * *", zone))
    machine.at = (day - timedelta(hours=2)).timestamp()
    machine.live(day + timedelta(hours=20))
    assert len(machine.ran) == runs


def test_what_is_due_is_the_latest_that_is_not_too_late() -> None:
    ring, at = bell("0 * * * *", catch_up=600), DAY + timedelta(hours=5)
    minutes: Callable[[float], timedelta] = lambda m: timedelta(minutes=m)  # noqa: E731
    assert due(ring, at, at + minutes(59)).moment is None
    assert due(ring, at, at + minutes(60)).moment == at + minutes(60)
    assert due(ring, at, at + minutes(70)).moment == at + minutes(60)
    late = due(ring, at, at + minutes(71))
    assert (late.moment, late.missed) == (None, at + minutes(60))
    both = due(ring, at, at + minutes(245))
    assert (both.moment, both.missed) == (at + minutes(240), at + minutes(60))
