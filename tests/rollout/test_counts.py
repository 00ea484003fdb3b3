"""Counts since a step began, out of readings that restart, come late, twice, not at all, or are no numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tidegate.rollout import counts as counting
from tidegate.rollout.counts import BLOCK, Counts, Meter, Score, after, begin, restarted, unchanged
from tidegate.rollout.router import ARMS, BASELINE, CANARY, LATENCY_EDGES, STABLE, Observation, Tally

BINS = len(LATENCY_EDGES) + 1


def tally(requests: Any, errors: Any = 0) -> Tally:
    return Tally(requests, errors, (requests - errors if isinstance(requests, int) else 0, *[0] * (BINS - 1)))


def seen(epoch: str = "a", **arms: Tally) -> Observation:
    return Observation(epoch, 1, {STABLE: 10_000}, arms)


def read(*observations: Observation | None, counts: Counts | None = None) -> Counts:
    found = counts or begin(dict.fromkeys(ARMS, 2))
    for observation in observations:
        found = after(found, observation, {}, STABLE)
    return found


def test_what_was_counted_before_the_first_look_is_of_no_step() -> None:
    found = read(seen(canary=tally(100, 7)), seen(canary=tally(150, 8)))
    assert (found.tally(CANARY).requests, found.tally(CANARY).errors, found.tally(CANARY).latency[0]) == (50, 1, 49)


def test_refusals_are_counted_apart_from_errors_and_latency() -> None:
    before, now = Tally(100, 5, (80, *[0] * (BINS - 1)), 15), Tally(150, 6, (100, *[0] * (BINS - 1)), 44)
    found = read(seen(canary=before), seen(canary=now)).tally(CANARY)
    assert (found.requests, found.errors, found.refused, found.latency[0]) == (50, 1, 29, 20)
    assert read(seen(canary=before), seen(canary=replace(now, refused=14))).tally(CANARY).requests == 0, "came late"


def test_a_front_that_was_started_again_counts_from_0_and_nothing_is_lost() -> None:
    found = read(
        seen(canary=tally(100)), seen(canary=tally(150)), seen("b", canary=tally(20)), seen("b", canary=tally(30))
    )
    assert found.tally(CANARY).requests == 50 + 30


def test_a_late_reading_of_the_front_before_is_known_by_its_epoch() -> None:
    found = read(
        seen(canary=tally(0)), seen("b", canary=tally(20)), seen("a", canary=tally(5)), seen("b", canary=tally(25))
    )
    assert found.tally(CANARY).requests == 5 + 25


def test_the_same_reading_twice_adds_nothing_and_one_that_came_late_takes_nothing() -> None:
    found = read(seen(canary=tally(0)), seen(canary=tally(50)), seen(canary=tally(50)), seen(canary=tally(20)))
    assert found.tally(CANARY).requests == 50
    assert read(seen(canary=tally(60)), counts=found).tally(CANARY).requests == 60


@pytest.mark.parametrize("bad", [float("nan"), -1, None, "7", 1.5, True, 2**53 + 1, [1]])
def test_what_is_no_count_is_not_looked_at_and_the_next_reading_tells_all(bad: Any) -> None:
    found = read(seen(canary=tally(0)), seen(canary=Tally(bad, 0)), seen(canary=tally(40)))
    assert found.tally(CANARY).requests == 40
    assert read(seen(canary=tally(0)), seen(canary=tally(9, 1)), seen(canary=Tally(10, bad))).tally(CANARY).errors == 1


def test_readings_that_are_missing_or_of_other_bins_or_arms_change_nothing() -> None:
    found = read(seen(canary=tally(0)), None, seen(), seen(canary=Tally(5, 0, (5,))), seen(other=tally(5)))
    assert found.tally(CANARY).requests == 0


def test_a_step_begins_where_the_one_before_ends() -> None:
    found = restarted(read(seen(canary=tally(0)), seen(canary=tally(50))))
    assert found.tally(CANARY).requests == 0
    assert read(seen(canary=tally(80)), counts=found).tally(CANARY).requests == 30


def test_what_comes_under_other_weights_is_of_no_step() -> None:
    before = read(seen(canary=tally(0)), seen(canary=tally(50)))
    found = unchanged(before, read(seen(canary=tally(90)), counts=before))
    assert found.tally(CANARY).requests == 50
    assert read(seen(canary=tally(95)), counts=found).tally(CANARY).requests == 55


def test_predictions_of_all_processes_of_an_arm_are_added_and_a_new_one_counts_from_0() -> None:
    def scored(found: Counts, *scores: Score) -> Counts:
        return after(found, seen(), {CANARY: scores}, BASELINE)

    found = scored(begin(dict.fromkeys(ARMS, 2)), Score("p1", [10, 0]))
    found = scored(found, Score("p1", [15, 1]), Score("p2", [3, 3]))
    assert found.predictions(CANARY) == (8, 4)
    found = scored(found, Score("p2", [4, 3]), Score("p3", (1, 1)))
    assert found.predictions(CANARY) == (10, 5)
    assert scored(found, Score("p3", [1]), Score("p3", [float("nan"), 1])).predictions(CANARY) == (10, 5)


def test_an_epoch_that_is_long_gone_is_forgotten() -> None:
    meter = Meter((0,))
    for i in range(200):
        meter = meter.after(f"e{i}", (1,))
    assert (meter.total, len(meter.last)) == ((200,), 64)


def test_both_arms_fail_where_half_of_a_block_of_each_does() -> None:
    def arms(n: int, mine: int, theirs: int) -> Observation:
        return seen(canary=tally(n, mine), stable=tally(n, theirs))

    first = read(arms(0, 0, 0))
    assert not read(arms(BLOCK - 1, BLOCK - 1, BLOCK - 1), counts=first).both_fail, "too few"
    assert read(arms(BLOCK, BLOCK // 2, BLOCK // 2), counts=first).both_fail
    assert not read(arms(BLOCK, BLOCK, BLOCK // 2 - 1), counts=first).both_fail, "the canary alone"
    late = read(arms(10_000, 0, 0), arms(10_040, 40, 40), counts=first)
    assert late.both_fail, "also after an hour of health"


@pytest.mark.parametrize("values", ["12", b"12", 7, None, {1, 2}])
def test_a_row_of_counters_is_a_sequence_of_numbers(values: Any) -> None:
    assert not counting.is_good(values, 2)
