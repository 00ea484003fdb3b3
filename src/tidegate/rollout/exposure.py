"""How much traffic a step needs before a healthy canary is seen to be healthy. Pure: computed from the judge's bounds.

Rules:

* A step needs as many requests of the canary as make all bounds of the judge hold, for a canary with the live rates of
  now; ``CAUTION`` standard errors to its disadvantage are put on each count of events, so that most healthy canaries
  need no more. With no errors and no slow answers the figure is exact.
* It needs ``min_requests`` and ``min_time`` too.
* A plan in which a step would need longer than its deadline is refused before it starts, with what to change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidegate.errors import UsageError
from tidegate.rollout.bets import STAKES
from tidegate.rollout.bounds import log_wealth
from tidegate.rollout.judge import SETTLE, percentile
from tidegate.rollout.judgement import PARTS, SLOW_SHARE, Rules, Weights, margins, share, stakes
from tidegate.rollout.router import Tally

CAUTION = 1.3
MOST = 10**12


@dataclass(frozen=True)
class Live:
    """What stable's traffic is like now.

    Attributes:
        rate: requests a second, of all arms.
        errors: the share of them that fail.
        slow: the share of answers slower than the edge that the judge would choose.
        refused: the share of requests that are refused.
    """

    rate: float
    errors: float = 0.0
    slow: float = SLOW_SHARE
    refused: float = 0.0


@dataclass(frozen=True)
class Need:
    """What one step needs.

    Attributes:
        requests: of the canary.
        seconds: until it has had them, and the step its least time.
        rate: requests a second of the canary.
        reason: what needs most: a bound of the judge, ``min_requests`` or ``min_time``.
    """

    requests: int
    seconds: float
    rate: float
    reason: str

    @property
    def text(self) -> str:
        """In words, such as ``1,201 canary requests, 5 a minute = 4 h``."""
        return f"{self.requests:,} canary requests, {_pace(self.rate)} = {_time(self.seconds)}"


def live(tally: Tally, seconds: float) -> Live:
    """Return what traffic is like from what stable counted in some time before the rollout."""
    answered = sum(tally.latency)
    slow = sum(tally.latency[percentile(tally.latency) + 1 :]) / answered if answered else SLOW_SHARE
    asked = max(1, tally.requests)
    return Live(tally.requests / seconds, tally.errors / asked, slow, tally.refused / asked)


def needs(rules: Rules, steps: Sequence[Weights], now: Live) -> tuple[Need, ...]:
    """Return what each step of a plan needs."""
    return tuple(_need(rules, weights, number, now) for number, weights in enumerate(steps))


def check(rules: Rules, steps: Sequence[Weights], now: Live) -> tuple[Need, ...]:
    """Return what each step of a plan needs, if it can have it before its deadline, ``rules.horizon``.

    Raises:
        UsageError: it cannot (code ``rollout-undecidable``).
    """
    found = needs(rules, steps, now)
    for number, (need, weights) in enumerate(zip(found, steps, strict=True)):
        if need.seconds > rules.horizon:
            part = 100 * weights.canary / (weights.canary + weights.control + weights.stable)
            raise UsageError(
                f"step {number + 1} ({part:.3g} % of the traffic) cannot be decided before its deadline: "
                f"it needs {need.text} > {_time(rules.horizon)}",
                allowed=f"A step that is decided in {_time(rules.horizon)}; {need.reason} needs most.",
                hint=f"Raise {_knob(need.reason)}.",
                code="rollout-undecidable",
            )
    return found


def _need(rules: Rules, weights: Weights, number: int, now: Live) -> Need:
    threshold = -math.log(share(rules, number) / PARTS)
    whole, others = weights.canary + weights.control + weights.stable, weights.control + weights.stable
    odds = weights.canary / others if others else 0.0
    margin, wanted = margins(rules), {"min_requests": rules.min_requests}
    for bound, rate in (("error bound", now.errors), ("refusal bound", now.refused)):
        above = margin[bound] + (0.0 if others else rate)
        wanted[bound] = _until(odds, above, rate, threshold, stakes(bound))
    if weights.is_even:
        near = weights.canary / weights.control
        settling = math.ceil(SETTLE * near)
        answers = settling + _until(near, margin["latency bound"], now.slow, threshold)
        wanted["latency bound"] = math.ceil(answers / max(1 - now.errors - now.refused, answers / MOST))
    reason = max(wanted, key=lambda name: wanted[name])
    pace = now.rate * weights.canary / whole
    seconds = wanted[reason] / pace if pace else math.inf
    if seconds < rules.min_seconds:
        return Need(wanted[reason], rules.min_seconds, pace, "min_time")
    return Need(wanted[reason], seconds, pace, reason)


def _until(odds: float, margin: float, event_rate: float, threshold: float, of: tuple[float, ...] = STAKES) -> int:
    """The canary's requests until a bound holds; ``MOST`` if it takes more."""
    enough = 1
    while enough < MOST and not _holds(enough, odds, margin, event_rate, threshold, of):
        enough *= 2
    low = enough // 2
    while enough - low > 1:
        middle = (low + enough) // 2
        if _holds(middle, odds, margin, event_rate, threshold, of):
            enough = middle
        else:
            low = middle
    return enough


def _holds(
    requests: int, odds: float, margin: float, event_rate: float, threshold: float, of: tuple[float, ...]
) -> bool:
    mine = requests * event_rate
    mine += CAUTION * math.sqrt(mine)
    others = requests * event_rate / odds if odds else 0.0
    others = max(0.0, others - CAUTION * math.sqrt(others))
    counts = np.array([requests - min(mine, requests), min(mine, requests), others])
    return bool(log_wealth(odds, np.array([margin]), counts, of)[0] >= threshold)


def _knob(reason: str) -> str:
    errors = "--max-error-increase"
    options = {"error bound": errors, "refusal bound": errors, "latency bound": "--latency-tolerance"}
    if reason in options:
        return f"--step, {options[reason]} or --deadline"
    return f"--step or --deadline, or lower {reason} of the policy"


def _pace(rate: float) -> str:
    for factor, unit in ((1, "second"), (60, "minute"), (3600, "hour")):
        if rate * factor >= 1:
            return f"{rate * factor:,.3g} a {unit}" if rate * factor < 1000 else f"{rate * factor:,.0f} a {unit}"
    return f"{rate * 86400:.2g} a day"


def _time(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
