"""Simulated live traffic for the judge: many rollouts at once, each with its own random requests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from tidegate.data.profile import quantile_bins
from tidegate.rollout import findings, judge, wealth
from tidegate.rollout.judgement import ALARMS, BOUND, WHOLE, WIDE, Judgement, Rules, Weights
from tidegate.rollout.router import LATENCY_EDGES

NORMAL = NormalDist()
SPREAD = 0.375  # the 99th percentile is 2.4 times the median
EVEN = (0.1,) * 10
WEIGHTS = Weights(500, 500, 9000)


@dataclass(frozen=True)
class World:
    """Live traffic: rates of errors and refusals, the canary's times of answering, scores.

    Attributes:
        rate: requests a second.
        weights: of the arms.
        errors: the canary's rate.
        other_errors: that of the other arms.
        slower: the canary's times, as a multiple of the others'.
        median: the others' median time, microseconds.
        spread: the standard deviation of a time's natural logarithm.
        scores: shares of the others' predictions in the champion's bins.
        canary_scores: shares of the canary's predictions in its own bins.
        refused: the canary's rate of refusals.
        other_refused: that of the other arms.
    """

    rate: float = 10_000
    weights: Weights = WEIGHTS
    errors: float = 0.001
    other_errors: float = 0.001
    slower: float = 1.0
    median: float = 2000
    spread: float = SPREAD
    scores: Sequence[float] = EVEN
    canary_scores: Sequence[float] = EVEN
    refused: float = 0.0
    other_refused: float = 0.0

    def latency(self) -> np.ndarray:
        """The shares of answers in each bin of latency, ``[2, bins]``: the canary's, the control's."""
        scales = np.log(np.multiply.outer((self.slower, 1.0), [self.median]))
        below = np.vectorize(NORMAL.cdf)((np.log(LATENCY_EDGES) - scales) / self.spread)
        return np.diff(below, axis=1, prepend=0.0, append=1.0)


@dataclass(frozen=True)
class Outcome:
    """What came of many rollouts: seconds until each test's alarm, and until the step was healthy; NaN for never."""

    alarms: Mapping[str, np.ndarray]
    healthy: np.ndarray

    @property
    def alarm(self) -> np.ndarray:
        """Seconds until the first alarm of any test."""
        return np.fmin.reduce(list(self.alarms.values()))


def shifted(sd: float, shares: Sequence[float] = EVEN) -> tuple[float, ...]:
    """Return the shares of bins after normal scores moved up by so many standard deviations."""
    below = np.cumsum(shares)[:-1]
    moved = [NORMAL.cdf(NORMAL.inv_cdf(float(p)) - sd) for p in below]
    return tuple(np.diff([0.0, *moved, 1.0]).tolist())


def same(rows: int = 15_000, bins: int = 10) -> list[list[int]]:
    """Return the table of a candidate that predicts what the champion predicts."""
    return [[rows // bins if a == b else 0 for a in range(bins)] for b in range(bins)]


def simulate(
    rng: np.random.Generator,
    worlds: Sequence[tuple[float, World]],
    *,
    rules: Rules,
    table: Sequence[Sequence[int]] | None,
    seconds: float,
    every: float = 0.1,
    many: int = 100,
    until: str = "alarm",
    calm: float = 0.0,
) -> Outcome:
    """Let the judge look at one step of many rollouts until time is up or all of them have what is waited for.

    Args:
        rng: the source of chance.
        worlds: since when (seconds) traffic is like what, ascending, the first at 0.
        rules: of the rollout.
        table: see ``judge.begin``.
        seconds: how long.
        every: seconds between looks.
        many: how many rollouts.
        until: what is waited for: ``alarm`` or ``healthy``.
        calm: until then the judge looks every second only; nothing is to be found so far.
    """
    judgement = judge.begin(rules, worlds[0][1].weights, table)
    begun = judgement.wealth | judge.of_all_answers(judgement, settled(worlds[0][1]))
    made = {name: wealth.spread(w, (many,)) for name, w in begun.items()}
    found = {t: np.full(many, np.nan) for t in (*ALARMS, "healthy")}
    seen = np.zeros(many)
    steps = [1.0] * round(calm) + [every] * round((seconds - calm) / every)
    for now, step in zip(np.cumsum(steps).tolist(), steps, strict=True):
        world = next(w for at, w in reversed(worlds) if at < now - step / 2)
        more, requests = events(rng, world, step, many)
        seen += requests
        made = {n: wealth.after(w, more[n], now) for n, w in made.items()}
        _note(found, judgement, made, now, seen)
        if not np.isnan(_first(found) if until == "alarm" else found["healthy"]).any():
            break
    return Outcome({t: f for t, f in found.items() if t != "healthy"}, found["healthy"])


def settled(world: World) -> list[int]:
    """The control's answers by which the judge chooses what is slow."""
    return np.round(world.latency()[1] * 10_000).astype(int).tolist()  # type: ignore[no-any-return]


def _first(found: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.fmin.reduce([f for t, f in found.items() if t != "healthy"])


def events(rng: np.random.Generator, world: World, every: float, many: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return what comes in ``every`` seconds, ``[many, …]`` by wealth, and the canary's requests."""
    weights = world.weights
    whole = weights.canary + weights.control + weights.stable
    requests = rng.poisson(
        world.rate * every * np.array([weights.canary, weights.control, weights.stable]) / whole, (many, 3)
    )
    failed = rng.binomial(requests, (world.errors, world.other_errors, world.other_errors))
    refused = rng.binomial(requests - failed, (world.refused, world.other_refused, world.other_refused))
    answered = requests - failed - refused
    latency = rng.multinomial(answered[:, :2], world.latency())
    slow = latency[..., judge.percentile(settled(world)) + 1 :].sum(-1)
    mine = rng.multinomial(answered[:, 0], world.canary_scores)
    baseline, stable = (rng.multinomial(answered[:, i], world.scores) for i in (1, 2))
    rates = {}
    for test, counts in (("errors", failed), ("refusals", refused)):
        others = counts[:, 1] + counts[:, 2]
        rates[BOUND[test]] = np.stack([requests[:, 0] - counts[:, 0], counts[:, 0], others], 1)
        rates[test] = rates[BOUND[test]][:, 1:]
    return {
        **rates,
        "latency": slow,
        WHOLE: latency.reshape(many, -1),
        "latency bound": np.stack([answered[:, 0] - slow[:, 0], slow[:, 0], slow[:, 1]], 1),
        "predictions": np.concatenate([mine, baseline], 1),
        WIDE: np.concatenate([mine, baseline + stable], 1),
    }, requests[:, 0]


def _note(
    found: dict[str, np.ndarray], judgement: Judgement, made: dict[str, wealth.Wealth], now: float, seen: np.ndarray
) -> None:
    rules = judgement.rules
    logs = findings.logs(replace(judgement, wealth=made))
    over = {t: log >= -math.log(judgement.alphas[t]) for t, log in logs.items()}
    for test in ALARMS:
        if test in over:
            found[test] = np.where(np.isnan(found[test]) & over[test], now, found[test])
    good = seen >= rules.min_requests
    for test in over.keys() & BOUND.values():
        good = good & over[test]
    for test in found.keys() & logs.keys():
        good = good & (logs[test] < findings.SUSPECT)
    good = good & (now >= rules.min_seconds) & np.isnan(_first(found))
    found["healthy"] = np.where(np.isnan(found["healthy"]) & good, now, found["healthy"])


@dataclass(frozen=True)
class Pair:
    """A champion and a retrained candidate with other score levels, as the gate and as live traffic see them.

    Attributes:
        table: of the gate, from held-out rows.
        scores: live shares of the champion's predictions in its bins.
        candidate: live shares of the candidate's predictions in its own.
        misled: the same, where the server gives it two features in each other's place.
        by_champion: live shares of the candidate's predictions in the champion's bins.
    """

    table: Sequence[Sequence[int]]
    scores: Sequence[float]
    candidate: Sequence[float]
    misled: Sequence[float]
    by_champion: Sequence[float]


def pair(rng: np.random.Generator, rows: int = 15_000, drift: float = 0.0, live_rows: int = 400_000) -> Pair:
    """Draw two logistic models that agree in the main, held-out rows, and live rows whose features moved by ``drift`` sd."""
    champion = np.array([1.2, -0.8, 0.5, 0.3])
    candidate = champion + rng.normal(0, 0.15, 4)
    mean, sd = np.array([0.0, 2.0, -1.0, 0.5]), np.array([1.0, 0.5, 2.0, 1.0])
    held_out, live = rng.normal(mean, sd, (rows, 4)), rng.normal(mean + drift * sd, sd, (live_rows, 4))
    olds, news = _logit(held_out @ champion - 4), _logit(1.3 * held_out @ candidate - 3)
    edges = [quantile_bins(s) for s in (olds, news)]
    table = np.zeros((10, 10), dtype=int)
    np.add.at(table, (edges[0].indices(olds), edges[1].indices(news)), 1)
    swapped = live[:, [1, 0, 2, 3]]
    old, new = _logit(live @ champion - 4), _logit(1.3 * live @ candidate - 3)
    misled = _logit(1.3 * swapped @ candidate - 3)
    counted = (edges[0], old), (edges[1], new), (edges[1], misled), (edges[0], new)
    shares = [np.array(b.count(s)) / live_rows for b, s in counted]
    return Pair(table.tolist(), *(tuple(s.tolist()) for s in shares))


def _logit(value: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-value)))
