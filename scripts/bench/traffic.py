"""Simulated live traffic for the judge: many rollouts at once, each with its own random requests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from tidegate.rollout import judge, wealth
from tidegate.rollout.judge import Judgement, Rules, Weights
from tidegate.rollout.router import LATENCY_EDGES

NORMAL = NormalDist()
SPREAD = 0.375  # of the logarithm of a latency: the 99th percentile is 2.4 times the median
EVEN = (0.1,) * 10
WEIGHTS = Weights(500, 500, 9000)


@dataclass(frozen=True)
class World:
    """Live traffic: rates of errors, the canary's times of answering, scores.

    Attributes:
        rate: requests a second.
        weights: of the arms.
        errors: the canary's rate.
        other_errors: that of the other arms.
        slower: the canary's times, as a multiple of the others'.
        median: the others' median time, microseconds.
        scores: shares of the others' predictions in the champion's bins.
        canary_scores: shares of the canary's predictions in its own bins.
    """

    rate: float = 10_000
    weights: Weights = WEIGHTS
    errors: float = 0.001
    other_errors: float = 0.001
    slower: float = 1.0
    median: float = 2000
    scores: Sequence[float] = EVEN
    canary_scores: Sequence[float] = EVEN

    def slow(self) -> tuple[float, float]:
        """The shares of answers slower than the edge nearest to the control's 95th percentile: canary's, control's."""
        shares = [(self._above(e, self.slower), self._above(e, 1.0)) for e in LATENCY_EDGES]
        return min(shares, key=lambda s: abs(math.log(max(s[1], 1e-9) / judge.SLOW_SHARE)))

    def _above(self, edge: float, factor: float) -> float:
        return 1 - NORMAL.cdf(math.log(edge / (self.median * factor)) / SPREAD)


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
    """
    judgement = judge.begin(rules, worlds[0][1].weights, table)
    made = {name: wealth.spread(w, (many,)) for name, w in judgement.wealth.items()}
    found = {t: np.full(many, np.nan) for t in ("errors", "latency", "predictions", "healthy")}
    seen = np.zeros(many)
    for look in range(1, round(seconds / every) + 1):
        now = look * every
        world = next(w for at, w in reversed(worlds) if at < now)
        events, requests = _events(rng, world, every, many)
        seen += requests
        made = {n: wealth.after(w, events[n], now) for n, w in made.items()}
        _note(found, judgement, made, now, seen)
        if not np.isnan(_first(found) if until == "alarm" else found["healthy"]).any():
            break
    return Outcome({t: f for t, f in found.items() if t != "healthy"}, found["healthy"])


def _first(found: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.fmin.reduce([f for t, f in found.items() if t != "healthy"])


def _events(
    rng: np.random.Generator, world: World, every: float, many: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    weights = world.weights
    whole = weights.canary + weights.control + weights.stable
    requests = rng.poisson(
        world.rate * every * np.array([weights.canary, weights.control, weights.stable]) / whole, (many, 3)
    )
    failed = rng.binomial(requests, (world.errors, world.other_errors, world.other_errors))
    answered = requests - failed
    slow = rng.binomial(answered[:, :2], world.slow())
    mine = rng.multinomial(answered[:, 0], world.canary_scores)
    baseline, stable = (rng.multinomial(answered[:, i], world.scores) for i in (1, 2))
    others = failed[:, 1] + failed[:, 2]
    return {
        "errors": np.stack([failed[:, 0], others], 1),
        "error bound": np.stack([answered[:, 0], failed[:, 0], others], 1),
        "latency": slow,
        "latency bound": np.stack([answered[:, 0] - slow[:, 0], slow[:, 0], slow[:, 1]], 1),
        "predictions": np.concatenate([mine, baseline], 1),
        judge.WIDE: np.concatenate([mine, baseline + stable], 1),
    }, requests[:, 0]


def _note(
    found: dict[str, np.ndarray], judgement: Judgement, made: dict[str, wealth.Wealth], now: float, seen: np.ndarray
) -> None:
    rules = judgement.rules
    logs = judge.logs(replace(judgement, wealth=made))
    over = {t: log >= -math.log(judgement.alphas[t]) for t, log in logs.items()}
    for test in ("errors", "latency", "predictions"):
        if test in over:
            found[test] = np.where(np.isnan(found[test]) & over[test], now, found[test])
    good = over["error bound"] & over.get("latency bound", True) & (seen >= rules.min_requests)
    good = good & (now >= rules.min_seconds) & np.isnan(_first(found))
    found["healthy"] = np.where(np.isnan(found["healthy"]) & good, now, found["healthy"])
