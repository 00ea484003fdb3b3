"""Plans: what a step needs before a healthy canary is seen to be healthy, and plans that cannot be decided."""

import math

import numpy as np
import pytest

from scripts.bench.traffic import World, settled, simulate
from tidegate.errors import UsageError
from tidegate.rollout import exposure
from tidegate.rollout.bounds import log_wealth
from tidegate.rollout.exposure import Live, check, needs
from tidegate.rollout.judge import percentile
from tidegate.rollout.judgement import Rules, Weights, share
from tidegate.rollout.router import LATENCY_EDGES, Tally

PLAN = [Weights(500, 500, 9000), Weights(2500, 2500, 5000), Weights(5000, 5000), Weights(10_000, 0)]


def test_without_errors_the_figure_is_where_the_bound_holds_and_not_one_request_before() -> None:
    need = needs(Rules(latency_tolerance=19.0), PLAN, Live(10_000, 0.0))[0]
    threshold = -math.log(share(Rules(), 0) / 5)
    margin = np.array([0.005])
    after, before = (log_wealth(1 / 19, margin, np.array([n, 0.0, 0.0]))[0] for n in (need.requests, need.requests - 1))
    assert before < threshold <= after
    assert need.reason in ("error bound", "min_time")


@pytest.mark.parametrize(("errors", "refused"), [(0.0, 0.0), (0.001, 0.0), (0.01, 0.0), (0.0, 0.1)])
def test_most_healthy_canaries_need_no_more_than_was_said(errors: float, refused: float) -> None:
    world = World(errors=errors, other_errors=errors, refused=refused, other_refused=refused)
    answers = settled(world)
    slow = sum(answers[percentile(answers) + 1 :]) / sum(answers)
    need = needs(Rules(min_seconds=1.0), PLAN[:1], Live(10_000, errors, slow, refused))[0]
    found = simulate(
        np.random.default_rng(2),
        [(0.0, world)],
        rules=Rules(min_seconds=1.0),
        table=None,
        seconds=1.5 * need.seconds,
        every=max(0.5, need.seconds / 60),
        many=100,
        until="healthy",
    )
    in_time = (found.healthy <= need.seconds + 1).mean()
    assert in_time >= 0.8
    assert (found.healthy > need.seconds / 8).mean() >= 0.8, "nor far less"


def test_more_errors_smaller_margins_and_less_alpha_need_more() -> None:
    def requests(errors: float = 0.001, **rules: float) -> int:
        made = Rules(**{"latency_tolerance": 19.0, "min_requests": 1, **rules})  # type: ignore[arg-type]
        return needs(made, PLAN[:1], Live(10_000, errors))[0].requests

    def refusals(refused: float, **rules: float) -> int:
        made = Rules(**{"latency_tolerance": 19.0, "min_requests": 1, **rules})  # type: ignore[arg-type]
        return needs(made, PLAN[:1], Live(10_000, 0.0, refused=refused))[0].requests

    assert refusals(0.0) == requests(0.0), "the error bound needs more"
    assert refusals(0.01) < refusals(0.05) < refusals(0.2)
    assert refusals(0.05, max_error_increase=0.01) < refusals(0.05)
    assert requests(0.0) < requests(0.001) < requests(0.01) < requests(0.1)
    assert requests(max_error_increase=0.05) < requests() < requests(max_error_increase=0.001)
    assert requests(alpha=0.1) < requests() < requests(alpha=0.001)
    assert requests(latency_tolerance=0.5) < requests(latency_tolerance=0.25)


def test_only_answers_count_for_the_latency_bound_so_that_refusals_and_errors_make_it_need_more_requests() -> None:
    def requests(errors: float, refused: float) -> int:
        rules = Rules(max_error_increase=0.45)
        need = needs(rules, PLAN[:1], Live(10_000, errors, refused=refused))[0]
        assert need.reason in ("latency bound", "min_time")
        return need.requests

    assert requests(0.0, 0.5) == 2 * requests(0.0, 0.0)
    assert requests(0.25, 0.25) == 2 * requests(0.0, 0.0)
    assert requests(0.0, 1.0) >= exposure.MOST, "never"


def test_a_plan_that_cannot_be_decided_in_time_is_refused_with_what_to_change() -> None:
    with pytest.raises(UsageError) as refused:
        check(Rules(latency_tolerance=19.0), PLAN, Live(100 / 60))
    text = str(refused.value)
    assert refused.value.code == "rollout-undecidable"
    assert "step 1 (5 % of the traffic) cannot be decided before its deadline" in text
    assert "canary requests, 5 a minute = " in text
    assert "> 1 h" in text
    assert "Raise --step, --max-error-increase or --deadline." in text
    with pytest.raises(UsageError, match="refusal bound needs most") as refused:
        check(Rules(latency_tolerance=19.0), PLAN, Live(100, refused=0.2))
    assert "Raise --step, --max-error-increase or --deadline" in str(refused.value)
    with pytest.raises(UsageError, match="Raise --step, --latency-tolerance or --deadline"):
        check(Rules(), PLAN, Live(100 / 60))
    with pytest.raises(UsageError, match="or lower min_requests of the policy"):
        check(Rules(min_requests=10**6, latency_tolerance=19.0), PLAN, Live(1000))


def test_the_least_time_is_called_what_the_policy_calls_it() -> None:
    with pytest.raises(UsageError, match="or lower min_time of the policy"):
        check(Rules(min_seconds=20.0, horizon=10.0), PLAN, Live(100_000))


def test_a_plan_at_low_traffic_is_allowed_when_it_gives_it_time() -> None:
    slow = Rules(latency_tolerance=19.0, horizon=86_400.0)
    first, *_ = check(slow, PLAN, Live(100 / 60))
    assert first.reason == "error bound"
    assert first.seconds == pytest.approx(first.requests / (100 / 60 * 0.05))


def test_no_traffic_can_decide_nothing() -> None:
    with pytest.raises(UsageError, match="0 a day = inf d"):
        check(Rules(), PLAN, Live(0.0))


def test_every_step_of_the_usual_plan_is_decided_in_a_minute_at_ten_thousand_requests_a_second() -> None:
    found = check(Rules(), PLAN, Live(10_000, 0.001))
    assert [n.seconds < 60 for n in found] == [True] * 4
    assert all(n.seconds >= Rules().min_seconds for n in found)


def test_what_traffic_is_like_is_read_from_stables_counts() -> None:
    latency = [0] * (len(LATENCY_EDGES) + 1)
    latency[7], latency[17] = 9300, 580
    found = exposure.live(Tally(10_000, 20, tuple(latency), 100), 20.0)
    assert found == Live(500.0, 0.002, 580 / 9880, 0.01)
    assert exposure.live(Tally(), 20.0) == Live(0.0, 0.0, 0.05)
