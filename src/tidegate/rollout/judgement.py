"""What the judge knows of a step of a rollout: rules, weights, counts, and what came of them so far (see ``judge``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tidegate.registry.gate import Finding
from tidegate.rollout import bets
from tidegate.rollout.router import LATENCY_EDGES
from tidegate.rollout.wealth import Wealth

CONTINUE, ALARM, HEALTHY = "continue", "alarm", "healthy"
ALARMS = ("errors", "refusals", "latency", "predictions")
BOUND = {"errors": "error bound", "refusals": "refusal bound", "latency": "latency bound"}
TESTS = (*ALARMS, *BOUND.values())
PARTS = len(ALARMS) + 1  # of alpha: the bounds use the same one
RATES = ("errors", "refusals")  # shares of requests, which do not depend on the load
WIDE, WHOLE = "predictions with stable", "latency of all"
TWICE = {"predictions": WIDE, "latency": WHOLE}  # tests whose wealth is the mean of two
REFUSED = 2.0  # the margin of refusals by that of errors: most are their clients' own mistakes, and they are many
SLOW_SHARE = 0.05


@dataclass(frozen=True)
class Rules:
    """What a rollout promises; tolerances are relative, ``max_error_increase`` is absolute.

    Attributes:
        alpha: the chance of a false alarm in a whole rollout.
        steps: how many steps the plan has.
        horizon: seconds that a step is given (its deadline): within them a late fault is found as soon as any.
        min_requests: of the canary, before a step can be healthy.
        min_seconds: of a step, before it can be healthy.
        patience: seconds for which data may be missing.
    """

    alpha: float = 0.01
    steps: int = 4
    horizon: float = 3600.0
    error_tolerance: float = 0.25
    max_error_increase: float = 0.005
    latency_tolerance: float = 0.25
    prediction_tolerance: float = 0.25
    min_requests: int = 500
    min_seconds: float = 10.0
    patience: float = 5.0


@dataclass(frozen=True)
class Weights:
    """The shares of traffic of a step, in any unit.

    Attributes:
        canary: of the candidate.
        control: of the baseline, or of stable where there is none; 0 where the canary has all traffic.
        stable: of stable where the control is a baseline; else 0.
    """

    canary: float
    control: float
    stable: float = 0.0

    @property
    def is_even(self) -> bool:
        """Whether the canary is no busier than its control, so that their latency can be compared."""
        return self.canary <= self.control


@dataclass(frozen=True)
class Arm:
    """Counts of one arm since the step began; ``latency`` by ``router.LATENCY_EDGES``, ``predictions`` by its profile."""

    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = ()
    predictions: tuple[int, ...] = ()
    refused: int = 0


@dataclass(frozen=True)
class Look:
    """What is seen at one moment; ``stable`` only where the control is a baseline."""

    seconds: float
    canary: Arm
    control: Arm
    stable: Arm | None = None


@dataclass(frozen=True)
class History:
    """What a rollout has used so far.

    Attributes:
        begun: how often a step was begun.
        requests: of the controls.
        errors: among them.
        refused: among them.
    """

    begun: int = 0
    requests: int = 0
    errors: int = 0
    refused: int = 0


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is known of a step; ``verdict`` and ``findings`` are for the controller, the rest for the next look."""

    rules: Rules
    weights: Weights
    history: History
    alphas: dict[str, float]
    table: tuple[tuple[int, ...], ...] | None
    wealth: dict[str, Wealth]
    verdict: str = CONTINUE
    findings: tuple[Finding, ...] = ()
    seen: Look = field(default_factory=lambda: Look(0.0, Arm(), Arm(), Arm()))
    checked: Look = field(default_factory=lambda: Look(0.0, Arm(), Arm(), Arm()))
    missing_since: float | None = None
    edge: int | None = None
    answered: np.ndarray = field(default_factory=lambda: np.zeros(4))
    usual: np.ndarray = field(default_factory=lambda: np.zeros(len(LATENCY_EDGES) + 1))


def share(rules: Rules, begun: int) -> float:
    """Return what part of alpha the step may use before which ``begun`` were begun."""
    whole = rules.alpha / (rules.steps + 1)
    return whole if begun < rules.steps else whole / 2 ** (begun - rules.steps + 1)


def margins(rules: Rules) -> dict[str, float]:
    """Return by how much the canary's rate may be above the control's, by bound."""
    most = rules.max_error_increase
    return {"error bound": most, "refusal bound": REFUSED * most, "latency bound": SLOW_SHARE * rules.latency_tolerance}


def stakes(bound: str) -> tuple[float, ...]:
    """Return the stakes of a bound: where every fifth request is refused, only small ones do not lose all to chance."""
    return bets.FINE if bound == "refusal bound" else bets.STAKES


def rated(seen: Look) -> dict[str, np.ndarray]:
    """Return the events of each rate: the canary's, the others'."""
    mine, others = seen.canary, pooled(seen)
    return {"errors": np.array([mine.errors, others.errors]), "refusals": np.array([mine.refused, others.refused])}


def pooled(seen: Look) -> Arm:
    """Return the control and stable beside it as one arm, without latency."""
    if seen.stable is None:
        return seen.control
    a, b = seen.control, seen.stable
    length = max(len(a.predictions), len(b.predictions))
    predictions = as_counts(a.predictions, length) + as_counts(b.predictions, length)
    counts = tuple(int(n) for n in predictions)
    return Arm(a.requests + b.requests, a.errors + b.errors, (), counts, a.refused + b.refused)


def as_counts(counts: Sequence[int], length: int) -> np.ndarray:
    """Return counts as numbers; none are zeros."""
    return np.array(counts, dtype=float) if len(counts) else np.zeros(length)
