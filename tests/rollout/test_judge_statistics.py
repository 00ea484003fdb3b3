"""What the judge promises in the long run, by simulation; the figures of the full size are made by scripts/bench/judge.py."""

from dataclasses import replace

import numpy as np
import pytest

from conftest import LONG
from scripts.bench import traffic
from scripts.bench.traffic import WEIGHTS, Outcome, World, pair, same, shifted, simulate
from tidegate.rollout import findings, judge, judgement
from tidegate.rollout.judgement import ALARM, HEALTHY, Arm, Look, Rules, Weights
from tidegate.rollout.router import LATENCY_EDGES

MANY = 400 if LONG else 30
RULES = Rules(alpha=0.01)
EVEN = Weights(500, 500)


def found(world: World, *, seconds: float = 30, after: float = 0, seed: int = 1, **how: object) -> Outcome:
    worlds = [(0.0, World(rate=world.rate, weights=world.weights)), (after, world)] if after else [(0.0, world)]
    given = {"rules": RULES, "table": same(), "many": MANY, **how}
    return simulate(np.random.default_rng(seed), worlds, seconds=after + seconds, **given)  # type: ignore[arg-type]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("refused", [0.0, 0.01, 0.2])
def test_equal_versions_are_rolled_back_no_more_often_than_alpha(refused: float) -> None:
    """2,000 rollouts of half an hour, looked at every second, in the long setting."""
    many, seconds, alpha = (2000, 1800, 0.01) if LONG else (100, 80, 0.2)
    rules = Rules(alpha=alpha, steps=1)
    world = World(refused=refused, other_refused=refused)
    said = found(world, rules=rules, seconds=seconds, every=1.0, many=many)
    assert np.isfinite(said.alarm).mean() <= alpha / 2, "the step's half of the rollout's"
    assert refused > 0.1 or np.isfinite(said.healthy).mean() >= 0.99


@pytest.mark.parametrize(
    ("regression", "within"),
    [
        (World(errors=0.01), 2.0),
        (World(errors=0.01, other_errors=0.0), 1.0),
        (World(errors=0.1), 0.2),
        (World(errors=1.0), 0.1),
        (World(refused=0.01), 1.0),
        (World(refused=0.5, other_refused=0.01), 0.1),
        (World(refused=1.0), 0.1),
        (World(slower=1.2), 3.0),
        (World(slower=1.2, spread=0.7), 5.0),
        (World(canary_scores=shifted(0.25)), 8.0),
        (World(canary_scores=(1.0, *[0.0] * 9)), 1.2),
    ],
    ids=[
        "errors-1%", "errors-1%-of-none", "errors-10%", "errors-100%", "refusals-1%-of-none", "refusals-50%",
        "refusals-100%", "latency-x1.2", "latency-x1.2-of-a-wide-spread", "scores-0.25sd", "constant",
    ],
)  # fmt: skip
def test_a_planted_regression_is_found_in_seconds_and_never_promoted(regression: World, within: float) -> None:
    said = found(regression)
    assert np.isfinite(said.alarm).all()
    assert np.median(said.alarm) <= within + 1e-9
    assert np.isnan(said.healthy).all()


@pytest.mark.parametrize(
    ("regression", "within"),
    [
        (World(errors=0.01), 6.0),
        (World(errors=0.1), 1.0),
        (World(slower=1.5), 4.0),
        (World(canary_scores=shifted(0.5)), 8.0),
    ],
    ids=["errors-1%", "errors-10%", "latency-x1.5", "scores-0.5sd"],
)
def test_a_fault_that_begins_after_an_hour_of_health_is_found_in_seconds(regression: World, within: float) -> None:
    """In the short setting after two minutes of a horizon of an hour; looks are seldom until then."""
    calm, many = (3600.0, 100) if LONG else (120.0, 20)
    rng = np.random.default_rng(4)
    said = traffic.simulate(
        rng, [(0.0, World()), (calm, regression)], rules=RULES, table=same(), seconds=calm + 30, many=many, calm=calm
    )
    waited = said.alarm - calm
    assert (waited > 0).all()
    assert np.median(waited) <= within


@pytest.mark.parametrize(
    "world",
    [
        World(),
        World(errors=0.0, other_errors=0.0),
        World(errors=0.02, other_errors=0.02),
        World(errors=0.0),
        World(refused=0.05, other_refused=0.05),
        World(refused=0.0, other_refused=0.05),
    ],
    ids=["usual", "no-errors", "many-errors", "better", "many-refusals", "fewer-refusals"],
)
def test_a_healthy_canary_is_healthy_within_minutes_and_no_alarm(world: World) -> None:
    said = found(world, seconds=300, every=2.0, until="healthy")
    assert np.isfinite(said.healthy).mean() >= 0.97
    assert np.isnan(said.alarm).all()


def test_a_healthy_canary_is_healthy_at_low_traffic_when_the_plan_gives_it_time() -> None:
    world = World(rate=100 / 60, weights=Weights(2500, 2500, 5000), errors=0.0, other_errors=0.0)
    rules = replace(RULES, latency_tolerance=2.0, horizon=12 * 3600.0)
    said = found(world, rules=rules, seconds=12 * 3600, every=300.0, until="healthy")
    assert np.isfinite(said.healthy).mean() >= 0.97
    assert np.isnan(said.alarm).all()


@pytest.mark.parametrize("worse", [World(errors=0.008), World(slower=1.12)], ids=["errors", "latency"])
def test_a_canary_beyond_a_margin_is_not_healthy(worse: World) -> None:
    said = found(worse, seconds=120, every=1.0)
    assert np.isfinite(said.healthy).mean() <= 0.01 + 1 / MANY


@pytest.mark.parametrize("spread", [0.3, 0.375, 0.7])
def test_a_canary_that_is_slower_by_less_than_the_tolerance_is_no_alarm(spread: float) -> None:
    """At 3 % the share beyond the control's 95th percentile grows by a fifth at the first spread, a tenth at the last."""
    said = found(World(slower=1.03, spread=spread), seconds=120, every=0.5)
    assert np.isnan(said.alarm).all()


@pytest.mark.parametrize("others", [0.0, 0.01, 0.05, 0.2])
def test_a_canary_that_refuses_a_hundredth_more_is_not_healthy(others: float) -> None:
    """Where the alarm finds nothing, too: 6 % against 5 % is within its tolerance."""
    rules = replace(RULES, latency_tolerance=19.0)
    for weights in (WEIGHTS, Weights(9500, 500)):
        world = World(refused=others + 0.011, other_refused=others, weights=weights)
        said = found(world, rules=rules, seconds=120, every=1.0)
        assert np.isfinite(said.healthy).mean() <= 0.01 + 1 / MANY


@pytest.mark.parametrize("rows", [15_000, 1000])
@pytest.mark.parametrize("drift", [0.0, 0.2])
def test_a_retrained_model_with_other_score_levels_is_healthy_and_one_fed_in_a_wrong_order_is_not(
    rows: int, drift: float
) -> None:
    """The gate's rows are few, and live rows are not distributed like them."""
    models = pair(np.random.default_rng(7), rows, drift)
    retrained = World(scores=models.scores, canary_scores=models.candidate)
    said = found(retrained, table=models.table, seconds=240, every=4.0)
    assert np.isnan(said.alarm).all()
    assert np.isfinite(said.healthy).all()
    misled = found(replace(retrained, canary_scores=models.misled), table=models.table, seconds=60)
    assert np.isfinite(misled.alarm).all()
    assert np.isnan(misled.healthy).all()


def test_a_table_of_few_rows_is_a_blunt_test_and_no_false_alarm() -> None:
    """Twelve honest candidates, each with a gate that had 300 rows."""
    for seed in range(12):
        models = pair(np.random.default_rng(seed), 300, live_rows=100_000)
        world = World(scores=models.scores, canary_scores=models.candidate)
        said = found(world, table=models.table, seconds=60, every=1.0, many=5)
        assert np.isnan(said.alarm).all()


def test_a_retrained_model_held_against_its_champions_shares_would_be_rolled_back() -> None:
    """Why there is a table: two honest models do not share their deciles."""
    models = pair(np.random.default_rng(7))
    naive = found(World(scores=models.scores, canary_scores=models.by_champion), seconds=60)
    assert np.isfinite(naive.alarm).all()


def test_slow_bursts_of_either_process_are_no_evidence() -> None:
    """Each process waits for the machine twice a second for 30 ms, at its own times; all its answers then are slow."""
    rng, many, usual = np.random.default_rng(3), 100 if LONG else 20, World().latency()[1]
    edge = judge.percentile(traffic.settled(World()))
    begun = judge.begin(RULES, WEIGHTS)
    tail, whole = (
        traffic.wealth.spread(w, (many,))
        for w in (begun.wealth["latency"], judge.of_all_answers(begun, traffic.settled(World()))[judgement.WHOLE])
    )
    late = np.flatnonzero((np.array(LATENCY_EDGES) > 5_000) & (np.array(LATENCY_EDGES) < 35_000))
    top = np.zeros(many)
    for tenth in range(1, 6000 if LONG else 600):
        stalls = rng.poisson(0.2, (many, 2))
        waited = np.where(stalls, rng.gamma(np.maximum(stalls, 1), 0.03), 0.0)
        slow = np.minimum(rng.poisson(500 * waited), 50)
        answers = rng.multinomial(50 - slow, usual)
        answers[..., late] += rng.multinomial(slow, [1 / len(late)] * len(late))
        tail = traffic.wealth.after(tail, answers[..., edge + 1 :].sum(-1), tenth / 10)
        whole = traffic.wealth.after(whole, answers.reshape(many, -1), tenth / 10)
        top = np.maximum(
            top, findings.logs(replace(begun, wealth={"latency": tail, judgement.WHOLE: whole}))["latency"]
        )
    assert (top < 8).all()


def test_what_is_simulated_is_what_is_judged() -> None:
    """One rollout through ``look`` has the wealth that the simulation's arrays have."""
    rng = np.random.default_rng(9)
    judged = judge.begin(RULES, WEIGHTS, same())
    settled = traffic.settled(World())
    begun = judged.wealth | judge.of_all_answers(judged, settled)
    arrays = {n: traffic.wealth.spread(w, (1,)) for n, w in begun.items()}
    counts = np.zeros((3, 3), dtype=int)
    scores, latency = np.zeros((3, 10), dtype=int), np.zeros((3, len(LATENCY_EDGES) + 1), dtype=int)
    latency += settled  # enough for the edge and the ranks to be chosen at the first look
    counts[:, 0] += 10_000
    scores += 1000
    judged = judge.look(judged, _seen(0.5, counts, latency, scores))
    for tenth in range(6, 40):
        events, _ = traffic.events(rng, World(errors=0.002, refused=0.01, other_refused=0.01), 0.1, 1)
        _count(counts, latency, scores, events)
        judged = judge.look(judged, _seen(tenth / 10, counts, latency, scores))
        arrays[judgement.WHOLE] = replace(arrays[judgement.WHOLE], gains=judged.wealth[judgement.WHOLE].gains)
        arrays = {n: traffic.wealth.after(w, events[n], tenth / 10) for n, w in arrays.items()}
    assert judged.verdict not in (ALARM, HEALTHY)
    assert judged.wealth["latency"].sums == pytest.approx(arrays["latency"].sums[0])
    assert judged.wealth[judgement.WHOLE].sums == pytest.approx(arrays[judgement.WHOLE].sums[0])
    assert judged.wealth["latency bound"].sums == pytest.approx(arrays["latency bound"].sums[0])
    first = np.array([10_000.0, 0.0, 0.0])
    for test in judgement.RATES:
        bound = judgement.BOUND[test]
        assert judged.wealth[bound].sums == pytest.approx(arrays[bound].sums[0] + judged.wealth[bound].gains @ first)
        assert judged.wealth[test].sums == pytest.approx(arrays[test].sums[0])


@pytest.mark.parametrize(("slower", "factor"), [(1.0, 3.0), (1.0, 0.3), (1.2, 3.0), (1.2, 0.3)])
def test_ranks_follow_the_control_when_traffic_becomes_slower_or_quicker(slower: float, factor: float) -> None:
    """By its first 100 answers alone an equal canary would be taken back, or a slow one never found."""
    for seed in range(3):
        alarms = _alarms(World(slower=slower, median=2000 * factor, weights=EVEN), seed)
        assert not alarms if slower == 1.0 else 5 < alarms[0] < 15


@pytest.mark.parametrize("theirs", [0.05, 0.2])
def test_a_canary_that_answers_what_its_control_refuses_is_not_slow_for_that(theirs: float) -> None:
    for seed in range(3):
        assert not _alarms(World(median=20_000, other_refused=theirs, weights=EVEN), seed, ramp=1.15)


@pytest.mark.parametrize(("refused", "is_compared"), [(0.0, True), (0.2, False)])
def test_all_answers_are_compared_only_while_both_arms_answer_alike_many(refused: float, is_compared: bool) -> None:
    """Ranks lag behind by a second or two, in which a bet on answers of unlike requests is not fair."""
    rng, judged, world = np.random.default_rng(1), judge.begin(RULES, EVEN), World(weights=EVEN, other_refused=refused)
    arms = [Arm(latency=(0,) * (len(LATENCY_EDGES) + 1))] * 2
    for tenth in range(1, 100):
        arms = [_after(rng, *each) for each in zip(arms, (0.0, refused), world.latency(), strict=True)]
        judged = judge.look(judged, Look(tenth / 10, *arms))
    assert judged.wealth[judgement.WHOLE].sums.any() == is_compared


def _alarms(world: World, seed: int, seconds: float = 60, ramp: float = 100.0) -> list[float]:
    """When the judge gives an alarm in a world whose times are the usual ones for five seconds, and then become its own.

    Args:
        world: there.
        seed: of chance.
        seconds: in all, with a look each 0.1 s.
        ramp: how many times as slow they become in a second at most.
    """
    rng, judged, found = np.random.default_rng(seed), judge.begin(RULES, EVEN), []
    arms = [Arm(latency=(0,) * (len(LATENCY_EDGES) + 1))] * 2
    for tenth in range(1, round(10 * seconds)):
        far = ramp ** max(0.0, tenth / 10 - 5)
        median = min(world.median, 2000 * far) if world.median > 2000 else max(world.median, 2000 / far)
        present = replace(world, median=median, slower=world.slower if tenth > 50 else 1.0)
        rates, shares = (present.refused, present.other_refused), present.latency()
        arms = [_after(rng, *each) for each in zip(arms, rates, shares, strict=True)]
        judged = judge.look(judged, Look(tenth / 10, *arms))
        found += [tenth / 10] if judged.verdict == ALARM else []
    return found


def _after(rng: np.random.Generator, arm: Arm, refused: float, shares: np.ndarray) -> Arm:
    requests = int(rng.poisson(50))
    more = int(rng.binomial(requests, refused))
    latency = np.array(arm.latency) + rng.multinomial(requests - more, shares)
    return replace(arm, requests=arm.requests + requests, refused=arm.refused + more, latency=tuple(latency.tolist()))


def _count(counts: np.ndarray, latency: np.ndarray, scores: np.ndarray, events: dict) -> None:
    well, failed, others = events["error bound"][0]
    refused, others_refused = events["refusals"][0]
    mine, theirs = events["predictions"][0][:10], events["predictions"][0][10:]
    counts[0] += (well + failed, failed, refused)
    counts[1] += (theirs.sum(), 0, 0)
    left = events[judgement.WIDE][0][10:].sum() - theirs.sum()  # errors and refusals of both others are known together
    counts[2] += (left + others + others_refused, others, others_refused)
    latency[:2] += events[judgement.WHOLE][0].reshape(2, -1)
    scores[0] += mine
    scores[1] += theirs
    scores[2] += events[judgement.WIDE][0][10:] - theirs


def _seen(seconds: float, counts: np.ndarray, latency: np.ndarray, scores: np.ndarray) -> Look:
    lists = [(tuple(latency[i].tolist()), tuple(scores[i].tolist())) for i in range(3)]
    arms = [Arm(int(n), int(e), *lists[i], int(r)) for i, (n, e, r) in enumerate(counts)]
    return Look(seconds, *arms)
