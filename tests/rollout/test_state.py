"""The rules of a rollout, one by one: what was seen goes in, the next state and what to do come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tidegate.errors import Conflict
from tidegate.registry.rollout_policy import RolloutPolicy
from tidegate.registry.rollouts import ABORTED, FINISHED, HELD, PROMOTED, RESUMED, ROLLED_BACK, STARTED, STEP, Rollout
from tidegate.rollout import state as machine
from tidegate.rollout.memory import Behaviour, MemoryFront
from tidegate.rollout.router import BASELINE, CANARY, STABLE, WHOLE, Observation
from tidegate.rollout.state import (
    BLIND_SECONDS,
    DOWN_SECONDS,
    ENDED,
    ROUND,
    SETTLING,
    WATCHING,
    WITHDRAWN,
    Judged,
    Order,
    Plan,
    Record,
    Refusal,
    Running,
    Save,
    Seen,
    SetWeights,
    State,
    Target,
    Want,
    advance,
    next_round,
)

OLD, NEW = Target(1, "sha256:old"), Target(2, "sha256:new")
RULES = RolloutPolicy((500, 10_000), deadline=60.0, ready_within=10.0, rollback_window=20.0)
PLAN = Plan("r", "m", NEW, OLD, RULES)
SHARES = {STABLE: 9000, BASELINE: 500, CANARY: 500}
WANTED = {STABLE: OLD, BASELINE: OLD, CANARY: NEW}
IS_UP = {a: Running(frozenset({t.digest}), 1) for a, t in WANTED.items()}
FIRST, TAKEN = ROUND + 2, 2 * ROUND  # the number of the first step, and of whatever takes it back
HEALTHY, ALARM = Judged("healthy", "all is well", {"n": 1}), Judged("alarm", "it fails", {"n": 2})


def at_step(**changes: Any) -> State:
    made = State(PLAN, "c", machine.CANARY_STEP, 0, FIRST, SHARES, sights=1, at=0.0)
    return replace(made, **changes)


def seen(generation: int = FIRST, weights: Mapping[str, int] = SHARES, **more: Any) -> Seen:
    return Seen(Observation("e", generation, weights), **{"wanted": WANTED, "running": IS_UP, **more})


def kinds(actions: Any) -> list[str]:
    return [type(a).__name__ for a in actions]


# Shares


@pytest.mark.parametrize(
    ("share", "weights"),
    [
        (500, SHARES),
        (4999, {STABLE: 2, BASELINE: 4999, CANARY: 4999}),
        (5000, {STABLE: 5000, CANARY: 5000}),
        (9500, {STABLE: 500, CANARY: 9500}),
        (10_000, {STABLE: 500, CANARY: 9500}),
    ],
)
def test_below_half_there_is_a_baseline_and_of_everything_some_is_held_back(
    share: int, weights: dict[str, int]
) -> None:
    found = replace(PLAN, rules=RolloutPolicy((share,))).weights(0)
    assert found == weights
    assert sum(found.values()) == WHOLE


# Record before act


def test_a_step_is_in_journal_and_ledger_before_the_front_hears_of_it() -> None:
    state, actions = advance(at_step(), seen(judged=HEALTHY), 1.0)
    assert kinds(actions) == ["Save", "Record"]
    assert (state.weights, state.generation) == (SHARES, FIRST)
    assert state.pending
    assert (state.pending["event"], state.pending["generation"], state.pending["share"]) == (STEP, FIRST + 1, 9500)
    assert state.pending["evidence"] == {"n": 1}
    again, actions = advance(state, seen(judged=HEALTHY), 1.1)
    assert kinds(actions) == ["Record"], "asked again until it is there"
    after, actions = advance(again, seen(recorded=FIRST + 1), 1.2)
    assert kinds(actions)[:2] == ["Save", "SetWeights"]
    assert (after.weights, after.generation, after.step, after.elapsed) == (
        {STABLE: 500, CANARY: 9500},
        FIRST + 1,
        1,
        0.0,
    )


def test_the_alias_moves_by_the_record_and_only_from_the_last_step() -> None:
    state, _actions = advance(at_step(step=1), seen(judged=HEALTHY), 1.0)
    assert state.pending
    assert state.pending["event"] == PROMOTED
    assert advance(state, seen(recorded=FIRST + 1), 1.1)[0].phase == WATCHING


@pytest.mark.parametrize("verdict", ["continue", "", "HEALTHY"])
def test_nothing_but_healthy_moves_a_step_on(verdict: str) -> None:
    state, actions = advance(at_step(), seen(judged=Judged(verdict)), 1.0)
    assert (state.pending, actions) == (None, ())
    assert advance(at_step(), seen(judged=None), 1.0)[0].pending is None


# Act first


@pytest.mark.parametrize("phase", [machine.SHADOW, machine.CANARY_STEP, machine.HELD, WATCHING])
def test_an_alarm_tells_the_front_before_journal_and_ledger(phase: str) -> None:
    state, actions = advance(at_step(phase=phase), seen(judged=ALARM), 1.0)
    assert kinds(actions)[:3] == ["SetWeights", "Save", "Record"]
    assert actions[0] == SetWeights({STABLE: WHOLE}, TAKEN)
    assert actions[1] == Save()
    assert (state.phase, state.outcome, state.reason) == (WITHDRAWN, ROLLED_BACK, "it fails")
    assert state.pending
    assert (state.pending["event"], state.pending["share"], state.pending["evidence"]) == (ROLLED_BACK, 0, {"n": 2})


def test_an_alarm_while_a_record_waits_for_the_store_forgets_it_and_has_a_generation_above_it() -> None:
    waiting, _ = advance(at_step(), seen(judged=HEALTHY), 1.0)
    state, actions = advance(waiting, seen(judged=ALARM), 1.1)
    assert actions[0] == SetWeights({STABLE: WHOLE}, TAKEN)
    assert state.pending
    assert state.pending["generation"] == TAKEN


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"judged": ALARM}, "it fails"),
        ({"judged": Judged("alarm")}, "the judge raised an alarm"),
        ({"refused": Refusal("version 2 was revoked")}, "revoked"),
        ({"running": {**IS_UP, CANARY: Running(frozenset({"sha256:other"}), 1)}}, "not the candidate"),
        ({"order": Order("rollback", "ann", "hm")}, "rollback by ann: hm"),
    ],
)
def test_what_takes_a_canary_back(what: dict[str, Any], why: str) -> None:
    state, _ = advance(at_step(), seen(**what), 1.0)
    assert (state.phase, state.weights, why in state.reason) == (WITHDRAWN, {STABLE: WHOLE}, True)


def test_an_abort_is_said_to_be_one() -> None:
    assert advance(at_step(), seen(order=Order("abort")), 1.0)[0].outcome == ABORTED


def test_a_front_that_nobody_sees_for_long_takes_the_canary_back() -> None:
    blind = replace(seen(), router=None)
    state = at_step()
    for now in (1.0, BLIND_SECONDS - 1):
        state, actions = advance(state, blind, now)
        assert (state.phase, actions) == (machine.CANARY_STEP, (SetWeights(SHARES, FIRST),))
    assert advance(state, seen(), BLIND_SECONDS)[0].blind == 0.0, "seen again, all is forgotten"
    assert advance(state, blind, BLIND_SECONDS + 1)[0].phase == WITHDRAWN


def test_a_canary_without_servers_for_long_is_taken_back() -> None:
    down = seen(running={**IS_UP, CANARY: Running(frozenset(), 0)})
    state, _ = advance(at_step(), down, DOWN_SECONDS)
    assert state.phase == machine.CANARY_STEP
    assert advance(state, seen(), DOWN_SECONDS + 1)[0].down == 0.0
    assert advance(state, down, DOWN_SECONDS + 1)[0].phase == WITHDRAWN


def test_withdrawn_is_over_when_front_ledger_and_fleet_are_told() -> None:
    state, _ = advance(at_step(), seen(judged=ALARM), 1.0)
    state, actions = advance(state, seen(), 1.1)
    assert kinds(actions) == ["SetWeights", "Record"], "and no server is stopped that has a share"
    told = seen(TAKEN, {STABLE: WHOLE})
    state, actions = advance(state, told, 1.2)
    assert actions[-1] == Want({STABLE: OLD}, TAKEN)
    state, _ = advance(state, replace(told, recorded=TAKEN), 1.3)
    assert state.phase == WITHDRAWN
    assert advance(state, replace(told, wanted={STABLE: OLD}), 1.4)[0].phase == ENDED


# Once taken, never given


def test_a_withdrawal_is_above_all_that_gives_in_its_rollout_and_below_the_next_rollout() -> None:
    begun = machine.begin(PLAN, "c", TAKEN)
    assert begun.pending
    first = begun.pending["generation"]
    for given in (first, first + 1, first + 7, first + ROUND - 2):
        assert next_round(given) == next_round(first) > given
    after = machine.begin(PLAN, "d", first + 5).pending
    assert after
    assert after["generation"] > next_round(first), "what a controller of the rollout before would take away with"


@pytest.mark.parametrize("number", [FIRST, FIRST + 1, FIRST + 40])
def test_whoever_gives_and_does_not_know_of_a_withdrawal_is_refused_by_the_front_and_learns_of_it(number: int) -> None:
    first, _ = advance(at_step(), seen(judged=ALARM), 1.0)
    front = MemoryFront(lambda: 0.0, {1: Behaviour(), 2: Behaviour()}, OLD)
    front.set_weights(SHARES, FIRST)
    front.set_weights(first.weights, first.generation)  # and the first is killed before its journal knows
    second = at_step(controller="d", generation=number)
    with pytest.raises(Conflict, match=f"generation {TAKEN}, not {number}"):
        front.set_weights(second.weights, second.generation)
    third = machine.resume(second, chain(RESUMED, number, "d"), "e")
    for unaware in (second, third):
        assert unaware
        known, actions = advance(unaware, Seen(front.observe(), WANTED, IS_UP), 2.0)
        assert (known.phase, known.generation, known.weights) == (WITHDRAWN, TAKEN, {STABLE: WHOLE})
        assert isinstance(actions[0], Save), "the front has it already"


def test_of_two_that_take_back_each_does_what_the_other_did() -> None:
    one, _ = advance(at_step(), seen(judged=ALARM), 1.0)
    other, _ = advance(at_step(controller="d", generation=FIRST + 3), seen(FIRST + 3, judged=ALARM), 1.0)
    assert (one.weights, one.generation) == (other.weights, other.generation)
    there = seen(TAKEN, {STABLE: WHOLE}, wanted={STABLE: OLD}, recorded=TAKEN)
    for state in (one, other):
        assert advance(advance(state, there, 1.1)[0], there, 1.2)[0].phase == ENDED


def test_who_takes_back_asks_the_fleet_under_the_generation_that_the_front_has_meanwhile() -> None:
    state = at_step(phase=WITHDRAWN, weights={STABLE: WHOLE}, generation=TAKEN, outcome=ROLLED_BACK)
    there = seen(TAKEN + ROUND, {STABLE: WHOLE})
    raised, _ = advance(state, there, 1.0)
    _, actions = advance(raised, there, 1.1)
    assert [a for a in actions if isinstance(a, Want)] == [Want({STABLE: OLD}, TAKEN + ROUND)]


@pytest.mark.parametrize("weights", [{CANARY: WHOLE}, {STABLE: WHOLE}])
def test_an_order_that_was_done_while_the_end_was_written_is_not_lost(weights: dict[str, int]) -> None:
    settling = at_step(phase=SETTLING, step=2, weights=weights, generation=FIRST + 3, outcome=PROMOTED)
    done = seen(TAKEN, {STABLE: WHOLE}, order=Order("rollback", "ann"))
    state, _ = advance(settling, done, 1.0)
    assert (state.phase, state.outcome, state.reason) == (WITHDRAWN, ROLLED_BACK, "rollback by ann")
    assert advance(settling, replace(done, order=None), 1.0)[0].phase == WITHDRAWN, "the front says so by its number"
    restarted = seen(FIRST + 3, {STABLE: WHOLE})
    assert advance(settling, restarted, 1.0)[0].phase == SETTLING, (
        "a proxy that starts again has stable only for a while"
    )


@pytest.mark.parametrize("sights", [0, 1, 50])
@pytest.mark.parametrize("phase", [machine.PREPARING, machine.CANARY_STEP, machine.HELD, WATCHING])
def test_weights_that_somebody_took_away_are_not_given_back(phase: str, sights: int) -> None:
    weights = {STABLE: WHOLE} if phase == machine.PREPARING else SHARES
    before = at_step(phase=phase, weights=weights, sights=sights)
    state, _ = advance(before, seen(TAKEN, {STABLE: WHOLE}), 1.0)
    assert (state.phase, state.outcome) == (WITHDRAWN, ROLLED_BACK)
    assert state.pending
    assert state.pending["generation"] == TAKEN
    with_order = seen(TAKEN, {STABLE: WHOLE}, order=Order("abort", "ann"))
    assert advance(before, with_order, 1.0)[0].outcome == ABORTED


def test_what_a_tidegate_took_away_that_counted_one_by_one_is_not_given_back() -> None:
    state, _ = advance(at_step(generation=4), seen(5, {STABLE: WHOLE}), 1.0)
    assert (state.phase, state.generation) == (WITHDRAWN, ROUND)
    assert advance(at_step(generation=4), seen(ROUND, {STABLE: WHOLE}), 1.0)[0].generation == ROUND
    assert advance(at_step(generation=4), seen(4, {STABLE: WHOLE}), 1.0)[0].phase == machine.CANARY_STEP


@pytest.mark.parametrize(
    "found",
    [
        seen(FIRST + 3),
        seen(FIRST + 3, {STABLE: WHOLE}),  # no withdrawal has such a number
        seen(TAKEN + ROUND + 2, {STABLE: WHOLE}),  # of a later rollout
        seen(refused=Refusal("c-2 wrote step", superseded=True)),
    ],
)
def test_a_controller_that_is_not_in_charge_any_more_touches_nothing(found: Seen) -> None:
    state, actions = advance(at_step(), found, 1.0)
    assert (state.is_lost, actions, state.is_over) == (True, (), True)
    preparing = State(PLAN, "c", generation=ROUND + 1, sights=1)
    assert advance(preparing, found, 1.0)[0].is_lost


def test_a_front_that_lost_its_weights_is_told_again_and_one_that_knows_them_is_left_alone() -> None:
    assert advance(at_step(), seen(0, {STABLE: WHOLE}), 1.0)[1] == (SetWeights(SHARES, FIRST),)
    assert advance(at_step(), seen(FIRST, {STABLE: WHOLE}), 1.0)[1] == (), (
        "an arm is away: the front gives it back by itself"
    )


# Deadlines


def test_what_is_undecided_at_its_deadline_is_taken_back_or_held_and_never_promoted() -> None:
    state, actions = advance(at_step(), seen(), 60.1)
    assert (state.phase, actions[0]) == (WITHDRAWN, SetWeights({STABLE: WHOLE}, TAKEN))
    holds = replace(PLAN, rules=replace(RULES, on_deadline="hold"))
    state, actions = advance(at_step(plan=holds), seen(), 60.1)
    assert (kinds(actions), state.pending and state.pending["event"]) == (["Save", "Record"], HELD)
    held, _ = advance(state, seen(recorded=FIRST + 1), 60.2)
    assert (held.phase, held.weights) == (machine.HELD, SHARES)
    told = seen(FIRST + 1, judged=HEALTHY)
    assert advance(held, told, 500.0)[0].pending is None, "healthy or not: a person decides"
    assert advance(held, replace(told, judged=ALARM), 500.0)[0].phase == WITHDRAWN


def test_healthy_at_the_deadline_that_waits_for_the_ledger_is_not_late() -> None:
    waiting, _ = advance(at_step(), seen(judged=HEALTHY), 59.0)
    assert advance(waiting, seen(), 100.0)[0].phase == machine.CANARY_STEP


def test_servers_that_are_not_ready_in_time_are_taken_back_and_named() -> None:
    state = State(PLAN, "c", generation=ROUND + 1, sights=1, at=0.0)
    there = seen(ROUND + 1, {STABLE: WHOLE}, running={STABLE: IS_UP[STABLE], CANARY: IS_UP[CANARY]})
    assert advance(state, there, 9.0)[0].pending is None
    late, _ = advance(state, there, 10.1)
    assert (late.phase, late.reason) == (WITHDRAWN, "not ready within 10 s: baseline")


def test_a_clock_that_goes_back_or_stands_still_makes_no_deadline() -> None:
    state, _ = advance(at_step(at=1000.0), seen(), 10.0)
    assert state.elapsed == 0.0
    assert advance(state, seen(), 10.0)[0].elapsed == 0.0


# After the promotion


def promoted(**changes: Any) -> State:
    weights = {STABLE: 500, CANARY: 9500}
    return replace(at_step(phase=WATCHING, step=2, weights=weights), **changes)


def test_an_alarm_in_the_window_gives_all_traffic_to_the_version_that_is_still_warm() -> None:
    state, actions = advance(promoted(), seen(FIRST, {STABLE: 500, CANARY: 9500}, judged=ALARM), 1.0)
    assert actions[0] == SetWeights({STABLE: WHOLE}, TAKEN)
    assert state.pending
    assert state.pending["event"] == ROLLED_BACK


def test_after_the_window_the_new_version_becomes_the_stable_arm_without_a_gap() -> None:
    wanted = {STABLE: OLD, CANARY: NEW}
    shares = {STABLE: 500, CANARY: 9500}
    state, actions = advance(promoted(), seen(FIRST, shares, wanted=wanted), 20.1)
    assert state.pending
    assert state.pending["event"] == FINISHED
    state, actions = advance(state, seen(FIRST, shares, wanted=wanted, recorded=FIRST + 1), 20.2)
    assert (state.phase, kinds(actions)) == (SETTLING, ["Save", "SetWeights"])
    all_to_it = seen(FIRST + 1, {CANARY: WHOLE}, wanted=wanted)
    state, actions = advance(state, all_to_it, 20.3)
    assert actions == (Want({STABLE: NEW, CANARY: NEW}, FIRST + 1),), "only now that stable has nothing"
    both = {STABLE: NEW, CANARY: NEW}
    mixed = {**IS_UP, STABLE: Running(frozenset({OLD.digest, NEW.digest}), 2)}
    state, actions = advance(state, replace(all_to_it, wanted=both, running=mixed), 20.4)
    assert actions == (), "not before all of it is new"
    new = {**IS_UP, STABLE: Running(frozenset({NEW.digest}), 1)}
    state, actions = advance(state, replace(all_to_it, wanted=both, running=new), 20.5)
    assert actions[:2] == (Save(), SetWeights({STABLE: WHOLE}, FIRST + 2))
    assert Want({STABLE: NEW, CANARY: NEW}, FIRST + 2) not in actions
    last = seen(FIRST + 2, {STABLE: WHOLE}, wanted=both, running=new)
    state, actions = advance(state, last, 20.6)
    assert actions == (Want({STABLE: NEW}, FIRST + 2),)
    state, _ = advance(state, replace(last, wanted={STABLE: NEW}), 20.7)
    assert (state.phase, state.outcome) == (ENDED, PROMOTED)


# Gone on with


def chain(event: str, generation: int, controller: str = "c", **more: Any) -> Rollout:
    return Rollout("r", 2, 1, generation, event, **{"step": 0, "share": 500, "controller": controller, **more})


def test_going_on_makes_a_mark_in_the_ledger_and_keeps_step_and_weights() -> None:
    state = machine.resume(at_step(elapsed=42.0), chain(STEP, FIRST), "d")
    assert state
    assert (state.step, state.weights, state.elapsed, state.controller) == (0, SHARES, 42.0, "d")
    assert state.pending
    assert (state.pending["event"], state.pending["controller"], state.pending["generation"]) == (
        RESUMED,
        "d",
        FIRST + 1,
    )
    _unseen, actions = advance(state, Seen(None, WANTED, IS_UP), 5.0)
    assert actions == (), "nothing before the front was seen"


def test_a_step_that_was_recorded_and_not_done_is_done() -> None:
    waiting, _ = advance(at_step(), seen(judged=HEALTHY), 1.0)
    state = machine.resume(waiting, chain(STEP, FIRST + 1, step=1, share=9500), "d")
    assert state
    assert (state.step, state.weights, state.generation) == (1, {STABLE: 500, CANARY: 9500}, FIRST + 1)


def test_one_killed_between_front_and_journal_is_understood_from_the_front() -> None:
    state = machine.resume(at_step(), chain(STEP, FIRST), "d")
    assert state
    after, _ = advance(state, seen(TAKEN, {STABLE: WHOLE}), 1.0)
    assert (after.phase, after.generation) == (WITHDRAWN, TAKEN)


def test_a_rollout_that_was_ended_elsewhere_is_not_gone_on_with() -> None:
    state = machine.resume(at_step(), chain(ABORTED, TAKEN, "other"), "d")
    assert state
    assert (state.phase, state.pending, state.weights) == (WITHDRAWN, None, {STABLE: WHOLE})
    assert state.generation == TAKEN
    assert machine.resume(at_step(phase=ENDED), None, "d") is None
    assert machine.resume(None, None, "d") is None


def test_records_of_a_controller_that_is_gone_are_believed() -> None:
    state = machine.resume(at_step(), chain(PROMOTED, FIRST + 3, "other", step=1, share=9500, promoted=True), "d")
    assert state
    assert (state.phase, state.step, state.generation) == (WATCHING, 2, FIRST + 3)
    held = machine.resume(at_step(), chain(HELD, FIRST + 3, "other", held=True), "d")
    assert held
    assert held.phase == machine.HELD


def test_without_the_ledger_going_on_can_still_take_back() -> None:
    state = machine.resume(at_step(), None, "d")
    assert state
    after, actions = advance(state, seen(judged=ALARM), 1.0)
    assert isinstance(actions[0], SetWeights)
    assert isinstance(actions[2], Record)
    assert after.phase == WITHDRAWN


def test_the_first_record_opens_it_with_the_rules_that_hold() -> None:
    state = machine.begin(PLAN, "c", 7)
    assert state.pending
    assert (state.pending["event"], state.pending["generation"], state.pending["rules"]) == (
        STARTED,
        ROUND + 1,
        RULES.as_json(),
    )
    _, actions = advance(state, seen(7, {STABLE: WHOLE}, wanted={STABLE: OLD}), 0.0)
    assert kinds(actions) == ["Record"], "no server is started, no weight set, before it is open"
