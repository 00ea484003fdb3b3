"""Hints: any number of them are one look, none is lost while somebody looks, and trouble with a source is said once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.servers import wait_until
from tidegate.errors import ConfigError, ServerError, TidegateError
from tidegate.trigger import hint
from tidegate.trigger.hint import APART, Hints, followed


class Time:
    """A clock that only its own pauses move."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


def test_any_number_of_hints_are_one_look_and_one_that_comes_during_a_look_is_kept() -> None:
    time = Time()
    hints = Hints(time.clock, time.pause)
    for _ in range(1000):
        hints.give()
    assert [hints.wait(60), hints.wait(0)] == [True, False]
    hints.give()  # while the watcher looks
    assert hints.wait(60)


def test_a_flood_of_hints_asks_for_no_more_than_a_look_a_second() -> None:
    time = Time()
    hints = Hints(time.clock, time.pause)
    for _ in range(100):
        hints.give()
        assert hints.wait(60)
    assert time.now == pytest.approx(99 * APART)


def test_a_flood_of_hints_makes_no_look_later_than_the_poll() -> None:
    time = Time()
    hints = Hints(time.clock, time.pause)
    for _ in range(100):
        hints.give()
        hints.wait(0.1)
    assert time.now == pytest.approx(99 * 0.1)


def test_a_hint_of_another_thread_wakes_who_waits() -> None:
    hints, woken = Hints(), threading.Event()
    waiter = threading.Thread(target=lambda: hints.wait(600) and woken.set(), daemon=True)
    waiter.start()
    hints.give()
    assert woken.wait(60)


class Told:
    """A source that does, one after the other, what a test says."""

    def __init__(self, *turns: Exception | str, first: Exception | None = None) -> None:
        self.turns, self.first = list(turns), first

    def check(self) -> None:
        if self.first:
            raise self.first

    def receive(self, give: Callable[[], None]) -> None:
        turn = self.turns.pop(0) if self.turns else "nothing"
        if isinstance(turn, Exception):
            raise turn
        if turn == "hint":
            give()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hint, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(hint, "LONGEST_WAIT", 0.002)


def test_trouble_with_a_source_is_said_once_each_time_and_hints_come_again_when_it_is_over() -> None:
    away: list[Exception | str] = [ServerError("it is away")] * 3
    source = Told(*away, ConfigError("it is gone"), "hint", *away, first=ServerError("it is away"))
    hints, said = Hints(), []
    with followed(source, hints, said.append):
        assert hints.wait(60)
        wait_until(lambda: not source.turns)
    assert said == [f"no hints for now: {what}." for what in ("it is away", "it is gone", "it is away")]


def test_a_source_that_can_never_be_asked_is_refused_at_the_start() -> None:
    with (
        pytest.raises(TidegateError, match="no such queue"),
        followed(Told(first=ConfigError("no such queue")), Hints(), print),
    ):
        pass


def test_a_source_is_not_asked_any_more_when_the_watcher_has_ended() -> None:
    source = Told(*["nothing"] * 10**6)
    with followed(source, Hints(), print):
        wait_until(lambda: len(source.turns) < 10**6)
        [thread] = [t for t in threading.enumerate() if t.name.endswith("(_follow)")]
    thread.join(60)
    assert not thread.is_alive()
    assert source.turns
