"""The gate: evidence against policy. Pure: no I/O, no clock; the verdict says every number it rests on.

Rules:

* A verdict is ``pass``, ``fail`` or ``cannot-tell``; only ``pass`` is a yes.
* A rule on a metric that is missing, NaN or infinite cannot be told.
* An evaluation of another model than the candidate cannot be told; one of the procedure (no model) can.
* With a champion, the candidate must beat it on the same rows: the number of rows only the candidate got right against
  those only the champion got right, one-sided exact McNemar test (binomial, p = 1/2; McNemar 1947, exact form).
* With a champion and ``max_prediction_shift``, the candidate's predictions on the same rows may be spread otherwise than
  the champion's by so much at most: total variation over the champion's bins (deciles of its score, or its labels).
* Without a champion the champion's rules hold, and the verdict says so. The champion's own bytes are no improvement.
* A comparison that is missing, of another metric, or against other bytes than the present champion's cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.registry import evaluation as evaluations
from tidegate.registry import policy as policies
from tidegate.registry.evaluation import Comparison, Evaluation
from tidegate.registry.policy import OPERATORS, Better, Policy, Rule

PASS, FAIL, CANNOT_TELL = "pass", "fail", "cannot-tell"


@dataclass(frozen=True)
class Finding:
    """What one rule of the policy said."""

    outcome: str
    text: str
    numbers: tuple[tuple[str, float], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The finding as evidence keeps it; numbers that JSON cannot say are strings."""
        return {"outcome": self.outcome, "text": self.text, "numbers": {k: _plain(v) for k, v in self.numbers}}


@dataclass(frozen=True)
class Verdict:
    """The gate's answer on one model."""

    outcome: str
    findings: tuple[Finding, ...]
    model: str
    policy: str
    evaluation: str

    @property
    def passed(self) -> bool:
        """Whether the answer is yes."""
        return self.outcome == PASS

    @property
    def reason(self) -> str:
        """What decided: the findings that said no, or all of them."""
        against = [f.text for f in self.findings if f.outcome != PASS]
        return "; ".join(against or [f.text for f in self.findings])

    def as_json(self) -> dict[str, Any]:
        """The verdict as evidence keeps it."""
        findings = [f.as_json() for f in self.findings]
        return {**self.__dict__, "findings": findings}


def judge(policy: Policy, evaluation: Evaluation, model: str, champion: str = "") -> Verdict:
    """Judge a candidate.

    Args:
        policy: what must hold.
        evaluation: what was measured.
        model: the candidate's digest.
        champion: the present champion's digest, empty where there is none.
    """
    findings = [_subject(evaluation, model), *(_rule(r, evaluation) for r in policy.require)]
    if policy.champion:
        findings.append(_better(policy.champion, evaluation.comparison, model, champion))
    if policy.max_prediction_shift is not None:
        findings.append(_shift(policy.max_prediction_shift, evaluation.comparison, model, champion))
    said = [f for f in findings if f]
    return Verdict(_worst([f.outcome for f in said]), tuple(said), model, policy.digest, evaluation.digest)


def check(policy_path: Path, evaluation_path: Path, bound: float | None = None) -> Verdict:
    """Judge files on a disk, without a registry: the champion is the one the evaluation compares with."""
    found = evaluations.read(evaluation_path)
    policy = policies.read(policy_path).tightened(bound)
    return judge(policy, found, found.model, found.comparison.champion if found.comparison else "")


def _worst(outcomes: Sequence[str]) -> str:
    return next((o for o in (FAIL, CANNOT_TELL) if o in outcomes), PASS)


def _subject(evaluation: Evaluation, model: str) -> Finding | None:
    if evaluation.model and evaluation.model != model:
        text = f"the evaluation is of {evaluation.model[:19]}…, the candidate is {model[:19] or 'unknown'}…"
        return Finding(CANNOT_TELL, text)
    if not evaluation.rows:
        return Finding(CANNOT_TELL, "the evaluation rests on no rows")
    return None


def _rule(rule: Rule, evaluation: Evaluation) -> Finding:
    value = evaluation.metrics.get(rule.metric)
    wanted = f"{OPERATORS[rule.operator]} {rule.bound:g}"
    if value is None:
        known = ", ".join(sorted(evaluation.metrics)) or "none"
        return Finding(CANNOT_TELL, f"{rule.metric} was not measured (measured: {known}); it must be {wanted}")
    if not math.isfinite(value):
        return Finding(CANNOT_TELL, f"{rule.metric} is {value}; it must be {wanted}", (("value", value),))
    outcome = PASS if rule.holds(value) else FAIL
    text = f"{rule.metric} {value:.6g} is {'' if outcome == PASS else 'not '}{wanted}"
    return Finding(outcome, text, (("value", value), ("bound", rule.bound)))


def _better(better: Better, comparison: Comparison | None, model: str, champion: str) -> Finding:
    if not champion:
        return Finding(PASS, "there is no champion to beat yet")
    if model == champion:
        return Finding(FAIL, "the candidate is the champion's own bytes")
    if comparison is None or comparison.champion != champion or comparison.metric != better.metric:
        against = f"against {comparison.champion[:19]}… on {comparison.metric}" if comparison else "missing"
        return Finding(CANNOT_TELL, f"the comparison with the champion {champion[:19]}… is {against}")
    won, lost = comparison.only_candidate, comparison.only_champion
    p = mcnemar(won, lost)
    alpha = 1 - better.confidence
    outcome = PASS if p < alpha and won > lost else FAIL
    text = (
        f"on the same {comparison.rows} rows the candidate alone is right on {won}, the champion alone on {lost}: "
        f"{'better' if outcome == PASS else 'not better'} (p = {p:.3g}, must be below {alpha:.3g})"
    )
    return Finding(outcome, text, (("p_value", p), ("confidence", better.confidence), ("won", won), ("lost", lost)))


def _shift(bound: float, comparison: Comparison | None, model: str, champion: str) -> Finding:
    if not champion or model == champion:
        why = "there is no champion yet" if not champion else "the candidate is the champion's own bytes"
        return Finding(PASS, f"{why}: no prediction can move")
    moved = comparison.predictions if comparison and comparison.champion == champion else None
    if moved is None:
        text = f"how far predictions moved from the champion's ({champion[:19]}…) was not measured"
        return Finding(CANNOT_TELL, f"{text}; it must be at most {bound:g}")
    outcome = PASS if moved.shift <= bound else FAIL
    text = f"predictions moved by {moved.shift:.3g} of the rows (total variation over the champion's bins)"
    said = f"{text}, {'' if outcome == PASS else 'not '}at most {bound:g}"
    return Finding(outcome, said, (("prediction_shift", moved.shift), ("bound", bound)))


def mcnemar(won: int, lost: int) -> float:
    """One-sided exact p-value: the chance of ``won`` or more heads in ``won + lost`` fair throws.

    The binomial tail is summed outwards from its largest term in floating point: right to 1e-9 for thousands of throws,
    to 1e-5 for a thousand million.
    """
    n = won + lost
    if 2 * won <= n:  # the larger half: one minus the other tail, which is that of the mirrored throw
        return 1 - mcnemar(lost + 1, won - 1) if won else 1.0
    log_first = math.lgamma(n + 1) - math.lgamma(won + 1) - math.lgamma(lost + 1) - n * math.log(2)
    term, total = 1.0, 0.0
    for k in range(won, n + 1):
        total += term
        term *= (n - k) / (k + 1)
        if term < total * 1e-18:
            break
    return math.exp(log_first) * total


def _plain(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
