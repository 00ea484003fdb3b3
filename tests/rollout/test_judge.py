"""The judge's rules, one by one; what it promises in the long run is in test_judge_statistics.py."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tidegate.registry.gate import CANNOT_TELL, FAIL, PASS
from tidegate.rollout import bounds, findings, judge, judgement
from tidegate.rollout.judge import begin, look
from tidegate.rollout.judgement import ALARM, CONTINUE, HEALTHY, Arm, History, Judgement, Look, Rules, Weights
from tidegate.rollout.router import LATENCY_EDGES

TABLE = [[1500 if a == b else 0 for a in range(10)] for b in range(10)]
WEIGHTS = Weights(500, 500, 9000)


def arm(
    requests: int, errors: int = 0, slow: float = 0.04, predictions: tuple[int, ...] | None = None, refused: int = 0
) -> Arm:
    """Answers of 1 ms, some of 10 ms, scores evenly over ten bins."""
    answered = requests - errors - refused
    late = int(answered * slow)
    latency = [0] * (len(LATENCY_EDGES) + 1)
    latency[7], latency[17] = answered - late, late
    even = (answered // 10,) * 9 + (answered - 9 * (answered // 10),)
    return Arm(requests, errors, tuple(latency), even if predictions is None else predictions, refused)


def seen(second: float, **canary: Any) -> Look:
    """What is seen after so many seconds of 10,000 requests each; the canary's errors and refusals are those of a second."""
    n = int(500 * second)
    canary |= {kind: int(canary.get(kind, 0) * second) for kind in ("errors", "refused")}
    return Look(second, arm(n, **canary), arm(n), arm(18 * n))


def judged(seconds: int, rules: Rules = Rules(), start: Judgement | None = None, **canary: Any) -> Judgement:
    said = start or begin(rules, WEIGHTS, TABLE)
    first = int(said.seen.seconds)
    for second in range(first + 1, first + seconds + 1):
        said = look(said, seen(second, **canary))
    return said


def outcomes(said: Judgement) -> dict[str, str]:
    return {f.text.split(":")[0]: f.outcome for f in said.findings}


def test_a_canary_like_its_control_is_healthy_once_there_is_evidence_and_not_before() -> None:
    said, verdicts = begin(Rules(), WEIGHTS, TABLE), []
    for second in range(1, 61):
        said = look(said, seen(second))
        verdicts.append(said.verdict)
    assert verdicts[:9] == [CONTINUE] * 9, "min_seconds"
    assert verdicts[-1] == HEALTHY
    assert ALARM not in verdicts
    assert set(outcomes(said).values()) == {PASS}


@pytest.mark.parametrize("rules", [Rules(min_seconds=70.0), Rules(min_requests=40_000)])
def test_a_step_is_not_healthy_before_it_had_its_time_and_requests(rules: Rules) -> None:
    said = judged(60, rules)
    assert said.verdict == CONTINUE
    assert [t for t, o in outcomes(said).items() if o != PASS] == ["exposure"]
    assert judged(21, rules, said).verdict == HEALTHY


@pytest.mark.parametrize(
    ("rules", "bound"),
    [(Rules(latency_tolerance=4.0), "error bound"), (Rules(max_error_increase=0.05), "latency bound")],
)
def test_a_step_is_not_healthy_before_both_bounds_hold(rules: Rules, bound: str) -> None:
    said = begin(replace(rules, min_seconds=1.0, min_requests=1), WEIGHTS, TABLE)
    for tenth in range(1, 31):
        said = look(said, seen(tenth / 10))
        assert said.verdict == CONTINUE
    assert {t: o for t, o in outcomes(said).items() if o != PASS} == {bound: CANNOT_TELL}


@pytest.mark.parametrize(
    ("test", "canary"),
    [
        ("errors", {"errors": 20}), ("refusals", {"refused": 20}), ("latency", {"slow": 0.2}),
        ("predictions", {"predictions": (5000, *[0] * 9)}),
    ],
)  # fmt: skip
def test_each_alarm_is_its_own_and_stays(test: str, canary: dict[str, Any]) -> None:
    said = begin(Rules(), WEIGHTS, TABLE)
    for tenth in range(1, 120):
        if "predictions" in canary:
            canary = {"predictions": (int(50 * tenth), *[0] * 9)}
        said = look(said, seen(tenth / 10, **canary))
    assert said.verdict == ALARM
    assert outcomes(said)[test] == FAIL
    assert {t for t in judgement.ALARMS if outcomes(said)[t] == FAIL} == {test}
    assert look(said, seen(600)) is said


def test_a_canary_that_fails_everything_is_an_alarm_at_the_first_look() -> None:
    assert look(begin(Rules(), WEIGHTS, TABLE), seen(0.1, errors=500)).verdict == ALARM


def test_findings_say_evidence_against_thresholds_and_bounds_against_margins_in_words_and_json() -> None:
    said = judged(30)
    for finding in said.findings:
        assert finding.text
        json.dumps(finding.as_json(), allow_nan=False)
    numbers = {f.text.split(":")[0]: dict(f.numbers) for f in said.findings}
    alpha = Rules().alpha / 5 / 5
    for test in judgement.ALARMS:
        assert numbers[test]["threshold"] == pytest.approx(1 / alpha)
        assert numbers[test]["e_value"] <= 1
    assert numbers["error bound"]["margin"] == 0.005
    assert 0 < numbers["error bound"]["bound"] < 0.005
    assert numbers["refusal bound"]["margin"] == 0.01
    assert 0 < numbers["refusal bound"]["bound"] < 0.01
    assert numbers["latency bound"]["margin"] == pytest.approx(0.0125)
    failing = look(begin(Rules(), WEIGHTS, TABLE), seen(600, errors=500))
    json.dumps([f.as_json() for f in failing.findings], allow_nan=False)


def test_one_alpha_is_split_over_steps_the_watch_and_tests_and_never_more_is_spent() -> None:
    rules = Rules(alpha=0.05, steps=3)
    parts = [judgement.share(rules, begun) for begun in range(40)]
    assert parts[:3] == [0.0125] * 3
    assert sum(parts) <= 0.05 + 1e-12
    alphas = begin(rules, WEIGHTS, TABLE, History(1)).alphas
    assert alphas == dict.fromkeys(judgement.TESTS, 0.0125 / 5)
    assert sum(alphas[t] for t in judgement.ALARMS) + max(alphas[b] for b in judgement.BOUND.values()) <= 0.0125 + 1e-12


def test_history_counts_steps_and_what_the_controls_did() -> None:
    said = look(begin(Rules(), WEIGHTS, TABLE), Look(3, arm(1500), arm(1500, 2, refused=3), arm(27_000, 8, refused=7)))
    first = judge.then(said)
    assert first == History(1, 19 * 1500, 10, 10)
    assert judge.then(replace(said, history=first)) == History(2, 2 * 19 * 1500, 20, 20)


def test_a_suspicion_is_no_alarm_and_not_healthy() -> None:
    said, suspected = judged(60), 0
    calm = said.seen.canary.errors
    for extra in range(1, 400):
        now = seen(60 + extra / 10)
        said = look(said, replace(now, canary=replace(now.canary, errors=calm + extra // 4)))
        if said.verdict == ALARM:
            break
        if outcomes(said)["errors"] == CANNOT_TELL:
            suspected += 1
            assert said.verdict == CONTINUE
    assert suspected > 0
    assert said.verdict == ALARM


# what is missing is never health


def test_without_counts_nothing_is_ever_healthy() -> None:
    said = begin(Rules(), WEIGHTS, TABLE)
    for second in range(1, 100):
        said = look(said, Look(second, Arm(), Arm(), Arm()))
        assert said.verdict == CONTINUE
        assert CANNOT_TELL in outcomes(said).values()


@pytest.mark.parametrize("quiet", ["canary", "control"])
def test_an_arm_that_gets_no_requests_is_waited_for_and_then_an_alarm(quiet: str) -> None:
    said = judged(60)
    assert said.verdict == HEALTHY
    still = getattr(said.seen, quiet)
    verdicts = []
    for second in range(61, 69):
        said = look(said, replace(seen(second), **{quiet: still}))
        verdicts.append(said.verdict)
    assert verdicts == [CONTINUE] * 5 + [ALARM] * 3
    assert f"{quiet} has 0 requests" in said.findings[0].text


@pytest.mark.parametrize("quiet", ["canary", "control"])
def test_an_arm_that_answers_and_counts_no_predictions_is_an_alarm(quiet: str) -> None:
    said = begin(Rules(), WEIGHTS, TABLE)
    for second in range(1, 9):
        now = seen(second)
        said = look(said, replace(now, **{quiet: replace(getattr(now, quiet), predictions=())}))
    assert said.verdict == ALARM
    assert f"{quiet} answered" in said.findings[0].text


def test_a_canary_that_refuses_all_is_called_that_and_not_one_that_counts_no_predictions() -> None:
    said = begin(Rules(), WEIGHTS, TABLE)
    said = look(said, seen(0.1, refused=500))
    assert (said.verdict, outcomes(said)["refusals"]) == (ALARM, FAIL)
    assert not any("predictions" in f.text for f in said.findings if f.outcome == FAIL)


def test_bad_requests_of_clients_that_every_arm_refuses_are_no_fault_of_the_canary() -> None:
    said = begin(Rules(), WEIGHTS, TABLE)
    for second in range(1, 91):
        n = 500 * second
        said = look(said, Look(second, *(arm(k * n, refused=k * n // 20) for k in (1, 1, 18))))
        assert said.verdict != ALARM
    assert said.verdict == HEALTHY


def test_a_step_is_not_healthy_before_the_refusal_bound_holds() -> None:
    said = begin(Rules(min_seconds=1.0, min_requests=1, latency_tolerance=4.0), WEIGHTS, TABLE)
    for second in range(1, 11):
        n = 500 * second
        said = look(said, Look(second, *(arm(k * n, refused=k * n // 20) for k in (1, 1, 18))))
        assert said.verdict == CONTINUE
    assert {t: o for t, o in outcomes(said).items() if o != PASS} == {"refusal bound": CANNOT_TELL}


def test_without_a_table_predictions_are_not_missed_and_the_finding_says_so() -> None:
    said = begin(Rules(), WEIGHTS)
    for second in range(1, 61):
        said = look(said, replace(seen(second), canary=replace(arm(500 * second), predictions=())))
    assert said.verdict == HEALTHY
    assert any("predictions are not compared" in f.text for f in said.findings)


BAD: list[dict[str, Any]] = [
    {"requests": math.nan},
    {"requests": 5000.0},
    {"requests": True},
    {"errors": -1},
    {"errors": 10**9},
    {"refused": -1},
    {"refused": math.nan},
    {"errors": 20_000, "refused": 20_000_000},
    {"requests": 100},
    {"latency": (1, 2, 3)},
    {"latency": ()},
    {"latency": (0,) * (len(LATENCY_EDGES) + 1)},
    {"latency": (math.nan,) * (len(LATENCY_EDGES) + 1)},
    {"predictions": (500,) * 9},
    {"predictions": ()},
    {"predictions": (0,) * 10},
]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("which", ["canary", "control", "stable"])
def test_counts_that_are_none_or_go_backwards_are_never_healthy_and_an_alarm_when_they_stay(
    bad: dict[str, Any], which: str
) -> None:
    said = judged(60)
    verdicts = []
    for second in range(61, 68):
        now = seen(second)
        said = look(said, replace(now, **{which: replace(getattr(now, which), **bad)}))
        verdicts.append(said.verdict)
    assert verdicts == [CONTINUE] * 5 + [ALARM] * 2


def test_one_bad_reading_among_good_ones_changes_nothing_but_that_it_is_not_healthy() -> None:
    clean, said = judged(61), judged(60)
    said = look(said, replace(seen(60.5), canary=Arm(-1)))
    assert said.verdict == CONTINUE
    assert outcomes(said)["the counts of canary are no counts, for 0.0 s now (allowed"] == CANNOT_TELL
    said = look(said, seen(61))
    assert said.verdict == HEALTHY
    assert findings.logs(said)["errors"] == pytest.approx(findings.logs(clean)["errors"])


@pytest.mark.parametrize("when", [60, 12, 0, -1, math.nan])
def test_a_look_that_is_late_or_seen_twice_changes_nothing_and_is_not_healthy(when: float) -> None:
    before = judged(60)
    said = look(before, replace(seen(60), seconds=when))
    assert said.verdict == CONTINUE
    assert said.seen == before.seen
    assert look(said, seen(61)).verdict == HEALTHY


def test_a_fault_is_found_while_other_data_is_missing() -> None:
    said = begin(Rules(), WEIGHTS, TABLE)
    for tenth in range(1, 4):
        said = look(said, replace(seen(tenth / 10, errors=200), control=replace(arm(50 * tenth), predictions=())))
    assert said.verdict == ALARM


# controls


def test_stables_predictions_of_other_requests_than_candidates_get_are_no_evidence() -> None:
    """Large bodies go to stable only; their rows are in another bin than all others."""
    said = begin(Rules(), WEIGHTS, TABLE)
    for second in range(1, 61):
        now = seen(second)
        assert now.stable is not None
        more = tuple(n + (3000 * second if i == 9 else 0) for i, n in enumerate(now.stable.predictions))
        said = look(said, replace(now, stable=replace(now.stable, predictions=more)))
        assert said.verdict != ALARM
    assert said.verdict == HEALTHY


def test_stable_is_the_control_where_there_is_no_baseline() -> None:
    said = begin(Rules(), Weights(5000, 5000), TABLE)
    for second in range(1, 30):
        said = look(said, Look(second, arm(5000 * second), arm(5000 * second)))
    assert said.verdict == HEALTHY
    bad = look(said, Look(30, arm(155_000, errors=5000), arm(155_000)))
    assert bad.verdict == ALARM


@pytest.mark.parametrize(("errors", "verdict"), [(0, HEALTHY), (10, HEALTHY), (200, ALARM)])
def test_without_a_control_errors_are_held_against_what_controls_had_before(errors: int, verdict: str) -> None:
    said = begin(Rules(), Weights(1, 0), TABLE, History(3, 100_000, 100))
    for second in range(1, 31):
        said = look(said, Look(second, arm(10_000 * second, errors * second), Arm()))
    assert said.verdict == verdict
    assert any("no control at this weight" in f.text for f in said.findings)


@pytest.mark.parametrize(("refused", "verdict"), [(0, HEALTHY), (300, HEALTHY), (600, ALARM)])
def test_without_a_control_refusals_are_held_against_what_controls_had_before(refused: int, verdict: str) -> None:
    said = begin(Rules(), Weights(1, 0), TABLE, History(3, 100_000, 100, 3000))
    for second in range(1, 31):
        said = look(said, Look(second, arm(10_000 * second, refused=refused * second), Arm()))
    assert said.verdict == verdict
    assert outcomes(said)["refusals"] == (FAIL if verdict == ALARM else PASS)


@pytest.mark.parametrize(
    ("slow", "edge"), [({7: 940, 12: 60}, 7), ({7: 960, 12: 40}, 7), ({7: 500, 12: 440, 20: 60}, 12), ({7: 100}, 0)]
)
def test_slow_is_above_the_edge_nearest_to_the_95th_percentile(slow: dict[int, int], edge: int) -> None:
    latency = [slow.get(i, 0) for i in range(len(LATENCY_EDGES) + 1)]
    found = judge.percentile(latency)
    above = sum(latency[found + 1 :]) / sum(latency)
    assert found >= edge
    assert all(
        abs(math.log(max(sum(latency[i + 1 :]) / sum(latency), 1e-9) / 0.05)) >= abs(math.log(max(above, 1e-9) / 0.05))
        for i in range(len(LATENCY_EDGES))
    )


def test_answers_before_the_edge_was_chosen_are_no_evidence() -> None:
    said = look(begin(Rules(), WEIGHTS, TABLE), seen(1, slow=1.0))
    assert said.edge is not None
    assert not said.answered.any()


@pytest.mark.parametrize("events", [0, 3, 40])
def test_the_bound_is_where_the_evidence_reaches_its_threshold(events: int) -> None:
    counts, threshold = np.array([4000.0 - events, events, events]), 7.8
    bound = bounds.upper_bound(1.0, counts, threshold)
    below, above = bounds.log_wealth(1.0, np.array([bound * 0.98, bound * 1.001]), counts)
    assert below < threshold <= above + 1e-9


def test_a_bound_that_no_evidence_supports_is_one() -> None:
    assert bounds.upper_bound(1.0, np.array([0.0, 0.0, 0.0]), 7.8) == 1.0
    assert bounds.upper_bound(0.05, np.array([0.0, 10.0, 0.0]), 7.8) == 1.0


@pytest.mark.parametrize(("control", "compared"), [(9500, True), (500, False)])
def test_an_arm_with_more_traffic_than_its_control_is_not_called_slow_for_that(control: int, compared: bool) -> None:
    said = begin(Rules(), Weights(9500, control), TABLE)
    for second in range(1, 61):
        n = 950 * second
        said = look(said, Look(second, arm(n, slow=0.2), arm(n * control // 9500, slow=0.04)))
    assert said.verdict == (ALARM if compared else HEALTHY)
    assert ("latency bound" in outcomes(said)) == compared


def test_where_latency_is_not_compared_errors_and_predictions_are() -> None:
    for bad in ({"errors": 500}, {"refused": 500}, {"predictions": (9500, *[0] * 9)}):
        said = begin(Rules(), Weights(9500, 500), TABLE)
        for second in range(1, 61):
            n = 9500 * second
            mine = {k: v * second if isinstance(v, int) else tuple(second * x for x in v) for k, v in bad.items()}  # type: ignore[attr-defined]
            said = look(said, Look(second, arm(n, **mine), arm(n // 19)))
        assert said.verdict == ALARM, bad
