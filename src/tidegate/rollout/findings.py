"""What a judgement says: how far each test is from its threshold and each bound from its margin, in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tidegate.registry.gate import CANNOT_TELL, FAIL, PASS, Finding
from tidegate.rollout.bounds import upper_bound
from tidegate.rollout.judgement import BOUND, TWICE, Judgement, Look, margins, pooled, rated, stakes
from tidegate.rollout.router import LATENCY_EDGES

SUSPECT = math.log(10)
NOT_COMPARED = "not compared"


def findings(judgement: Judgement) -> tuple[Finding, ...]:
    """Return what all tests say: the alarms, the bounds, the exposure."""
    now = {test: float(log) for test, log in logs(judgement).items()}
    return (*_alarms(judgement, now), *_bounds(judgement, now), _exposure(judgement))


def _alarms(judgement: Judgement, now: Mapping[str, float]) -> list[Finding]:
    """Say of each alarm what it compares, and how far its wealth is from its threshold."""
    texts = {t: text for t, text in _compared(judgement).items() if t in now}
    found = [_alarm(t, text, now[t], judgement.alphas[t]) for t, text in texts.items()]
    weights = judgement.weights
    if not weights.control:
        found.append(Finding(PASS, f"latency and predictions are {NOT_COMPARED}: there is no control at this weight"))
        return found
    if not weights.is_even:
        times = f"{weights.canary / weights.control:.3g} times its control's traffic"
        found.append(Finding(PASS, f"latency is {NOT_COMPARED}: the canary has {times}, and is slower for that alone"))
    if judgement.table is None:
        found.append(Finding(PASS, f"predictions are {NOT_COMPARED}: the evidence has no table of them"))
    return found


def _compared(judgement: Judgement) -> dict[str, str]:
    rules, pool, seen = judgement.rules, pooled(judgement.seen), judgement.seen
    fast, slow, control_fast, control_slow = judgement.answered
    mine, tolerance = seen.canary, rules.latency_tolerance
    whole = 1.25**tolerance - 1  # where times vary much; less where they do not
    errors = f"{_rate(mine.errors, mine.requests)}, the control's {_rate(pool.errors, pool.requests)}"
    refused = f"{_rate(mine.refused, mine.requests)}, the control {_rate(pool.refused, pool.requests)}"
    late = f"the canary's {_rate(slow, fast + slow)}, the control's {_rate(control_slow, control_fast + control_slow)}"
    rows = f"{sum(seen.canary.predictions)} predictions of the canary, {sum(seen.control.predictions)} of the control"
    return {
        "errors": f"the canary's error rate is {errors} (tolerance {rules.error_tolerance:.0%})",
        "refusals": f"the canary refuses (4xx) {refused} (tolerance {rules.error_tolerance:.0%})",
        "latency": f"slow answers: {late} (tolerance {tolerance:.0%}); all: {_longer(seen)} (tolerance some {whole:.0%})",
        "predictions": f"{rows} (tolerance {rules.prediction_tolerance:.0%})",
    }


def _longer(seen: Look) -> str:
    """How many times as long as the control the canary takes for an answer, by the geometric means."""
    at = np.log(np.array([*LATENCY_EDGES, LATENCY_EDGES[-1]], dtype=float))
    arms = [np.array(arm.latency, dtype=float) for arm in (seen.canary, seen.control)]
    if not all(arm.sum() for arm in arms):
        return "unknown"
    canary, control = (arm @ at / arm.sum() for arm in arms)
    return f"{math.exp(canary - control):.2f} times as long"


def _alarm(test: str, text: str, log: float, alpha: float) -> Finding:
    threshold = -math.log(alpha)
    said = f"{test}: {text}: e-value {_e(log)}, alarm at {_e(threshold)}"
    numbers = (("e_value", _exp(log)), ("threshold", _exp(threshold)))
    outcome = FAIL if log >= threshold else CANNOT_TELL if log >= SUSPECT else PASS
    return Finding(outcome, said, numbers)


def logs(judgement: Judgement) -> dict[str, np.ndarray]:
    """Return the logarithm of each test's wealth; where it has two, that of their mean."""
    found = {test: wealth.log for test, wealth in judgement.wealth.items()}
    for test, other in TWICE.items():
        if other in found:
            found[test] = np.logaddexp(found[test], found.pop(other)) - math.log(2)
    return found


def _bounds(judgement: Judgement, now: Mapping[str, float]) -> list[Finding]:
    requests, counts = judgement.seen.canary.requests, {}
    for test, (own, others) in rated(judgement.seen).items():
        counts[BOUND[test]] = np.array([requests - own, own, others])
    if judgement.weights.is_even:
        fast, slow, _, control = judgement.answered
        counts["latency bound"] = np.array([fast, slow, control])
    return [_bound(judgement, now[test], test, of_step) for test, of_step in counts.items()]


def _bound(judgement: Judgement, log: float, test: str, counts: np.ndarray) -> Finding:
    weights, margin = judgement.weights, margins(judgement.rules)[test]
    others = weights.control + (0.0 if test == "latency bound" else weights.stable)
    threshold = -math.log(judgement.alphas[test])
    bound = upper_bound(weights.canary / others if others else 0.0, counts, threshold, stakes(test))
    outcome = PASS if log >= threshold else CANNOT_TELL
    text = f"{test}: the canary's rate is at most {bound:.3%} above the control's (margin {margin:.3%})"
    numbers = (("bound", bound), ("margin", margin), ("e_value", _exp(log)), ("threshold", _exp(threshold)))
    return Finding(outcome, text, numbers)


def _exposure(judgement: Judgement) -> Finding:
    rules, seen = judgement.rules, judgement.seen
    enough = seen.canary.requests >= rules.min_requests and seen.seconds >= rules.min_seconds
    text = (
        f"exposure: {seen.canary.requests} requests in {seen.seconds:.1f} s "
        f"(at least {rules.min_requests} and {rules.min_seconds:g} s)"
    )
    numbers = (("requests", float(seen.canary.requests)), ("seconds", seen.seconds))
    return Finding(PASS if enough else CANNOT_TELL, text, numbers)


def _rate(events: float, of: float) -> str:
    return f"{events / of:.3%} of {of:.0f}" if of else "unknown"


def _exp(log: float) -> float:
    return math.exp(log) if log < 700 else math.inf


def _e(log: float) -> str:
    return f"{math.exp(log):.3g}" if log < 50 else f"1e{log / math.log(10):.0f}"
