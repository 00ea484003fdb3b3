"""One step of a rollout on trial: counts since it began, and what the judge makes of them.

A trial goes with a phase and step. It begins with the first look at a front that has the step's weights; a controller
that takes over goes on with the trial that it finds, so that nothing is looked at twice and no alpha is used again.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from tidegate.registry.gate import CANNOT_TELL, FAIL, Finding
from tidegate.registry.rollout_policy import RolloutPolicy
from tidegate.rollout import counts as counting
from tidegate.rollout import judge
from tidegate.rollout.counts import Counts, Meter, Score
from tidegate.rollout.judgement import BOUND, HEALTHY, Arm, History, Judgement, Look, Rules, Weights
from tidegate.rollout.router import BASELINE, CANARY, STABLE, Observation
from tidegate.rollout.state import ALARM, GIVEN, SHADOW, Judged, State
from tidegate.rollout.wealth import Wealth

_SHOWING = (*BOUND.values(), "exposure")  # what a promotion needs
Table = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Trial:
    """A step on trial.

    Attributes:
        table: rows of the evaluation by the champion's and the candidate's bin; None where the evidence has none.
        counts: since the step began.
        history: what the steps before used.
        key: the phase and step that are judged; empty before the first.
        seconds: since the step began.
        judgement: of the step; None before the first.
    """

    table: Table | None
    counts: Counts
    history: History = field(default_factory=History)
    key: tuple[str, int] = ("", -1)
    seconds: float = 0.0
    judgement: Judgement | None = None


def begin(table: Table | None) -> Trial:
    """Return the trial of a rollout that has not begun."""
    mine, others = (len(table[0]), len(table)) if table else (0, 0)
    return Trial(table, counting.begin({CANARY: mine, BASELINE: others, STABLE: others}))


def after(
    trial: Trial, state: State, observation: Observation | None, scores: Mapping[str, Iterable[Score]], passed: float
) -> Trial:
    """Return the trial after another look.

    Args:
        trial: before.
        state: the rollout, whose weights the front may not have yet.
        observation: what the front says; None where it could not be seen.
        scores: what servers say of their predictions.
        passed: seconds since the look before.
    """
    control = _control(state)
    counts = counting.after(trial.counts, observation, scores, control)
    if observation is not None and observation.weights != {a: w for a, w in state.weights.items() if w}:
        counts = counting.unchanged(trial.counts, counts)
    trial = replace(trial, counts=counts, seconds=trial.seconds + passed)
    if state.phase not in GIVEN or observation is None or observation.generation != state.generation:
        return trial
    if trial.key != _key(state):
        return _begun(trial, state)
    if trial.judgement is None:
        return trial
    return replace(trial, judgement=judge.look(trial.judgement, _look(trial, control)))


def _begun(trial: Trial, state: State) -> Trial:
    history = judge.then(trial.judgement) if trial.judgement else trial.history
    weights = Weights(1.0, 1.0) if state.phase == SHADOW else weights_of(state.weights)  # copies of all
    judgement = judge.begin(rules_of(state.plan.rules, state.step), weights, trial.table, history)
    return replace(
        trial,
        counts=counting.restarted(trial.counts),
        history=history,
        key=_key(state),
        seconds=0.0,
        judgement=judgement,
    )


def weights_of(shares: Mapping[str, int]) -> Weights:
    """A step's shares as the judge has them."""
    if BASELINE in shares:
        return Weights(shares[CANARY], shares[BASELINE], shares.get(STABLE, 0))
    return Weights(shares.get(CANARY, 0), shares.get(STABLE, 0))


def rules_of(rules: RolloutPolicy, step: int) -> Rules:
    """A policy's rules as the judge has them, for a step or, beyond the last one, for the watch."""
    horizon = rules.deadline if step < len(rules.steps) else max(rules.rollback_window, 1.0)
    same = (
        "alpha",
        "error_tolerance",
        "max_error_increase",
        "latency_tolerance",
        "prediction_tolerance",
        "min_requests",
    )
    said = {name: getattr(rules, name) for name in same}
    return Rules(steps=len(rules.steps), horizon=horizon, min_seconds=rules.min_time, **said)


def _key(state: State) -> tuple[str, int]:
    return ("shadow" if state.phase == SHADOW else "step", state.step)


def _control(state: State) -> str:
    return BASELINE if BASELINE in state.weights else STABLE


def _look(trial: Trial, control: str) -> Look:
    stable = _arm(trial.counts, STABLE) if control == BASELINE else None
    return Look(trial.seconds, _arm(trial.counts, CANARY), _arm(trial.counts, control), stable)


def _arm(counts: Counts, arm: str) -> Arm:
    tally = counts.tally(arm)
    return Arm(tally.requests, tally.errors, tally.latency, counts.predictions(arm), tally.refused)


def judged(trial: Trial, state: State) -> Judged | None:
    """Return what is said of the rollout's present step; None where it is not on trial yet."""
    if trial.judgement is None or trial.key != _key(state):
        return None
    findings = trial.judgement.findings
    if trial.counts.both_fail:
        found = _both_fail(trial, _control(state))
        return Judged(ALARM, found.text, _evidence((found, *findings)))
    return Judged(trial.judgement.verdict, _reason(trial.judgement), _evidence(findings))


def _reason(judgement: Judgement) -> str:
    """What decided: the tests that failed, or what shows that nothing is wrong, or what cannot be told yet."""
    if judgement.verdict == HEALTHY:
        return "; ".join(f.text for f in judgement.findings if f.text.startswith(_SHOWING))
    wanted = FAIL if judgement.verdict == ALARM else CANNOT_TELL
    return "; ".join(f.text for f in judgement.findings if f.outcome == wanted)


def _both_fail(trial: Trial, control: str) -> Finding:
    mine, others = trial.counts.tally(CANARY), trial.counts.tally(control)
    text = (
        f"both arms fail: {mine.errors} of {mine.requests} requests of the canary, {others.errors} of "
        f"{others.requests} of {control}; the fault is not the candidate's alone"
    )
    numbers = (("canary_errors", float(mine.errors)), ("control_errors", float(others.errors)))
    return Finding(FAIL, text, numbers)


def _evidence(findings: Sequence[Finding]) -> dict[str, Any]:
    return {"findings": [f.as_json() for f in findings]}


def as_json(trial: Trial) -> dict[str, Any]:
    """The trial as a journal keeps it: exactly, so that going on is the same as never having stopped."""
    return {
        "table": trial.table,
        "history": _plain(trial.history),
        "key": trial.key,
        "seconds": trial.seconds,
        "counts": {
            **_plain(trial.counts),
            "tallies": _meters(trial.counts.tallies),
            "scores": _meters(trial.counts.scores),
        },
        "judgement": _judgement_json(trial.judgement) if trial.judgement else None,
    }


def from_json(body: Mapping[str, Any]) -> Trial:
    """Read a trial back.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    trial = Trial(
        _rows(body["table"]),
        _counts(body["counts"]),
        History(**body["history"]),
        (str(body["key"][0]), int(body["key"][1])),
        float(body["seconds"]),
        _judgement(body["judgement"]) if body["judgement"] else None,
    )
    return trial if "refused" in body["history"] else _begun_again(trial)


def _begun_again(trial: Trial) -> Trial:
    """A journal of a tidegate that counted no refusals: its step begins again, and so do counts, in other columns."""
    bins = {arm: len(meter.total) for arm, meter in trial.counts.scores.items()}
    return replace(trial, counts=counting.begin(bins), key=("", -1))


def _counts(body: Mapping[str, Any]) -> Counts:
    tallies, scores = ({a: _meter(m) for a, m in body[k].items()} for k in ("tallies", "scores"))
    a, b, c, d = body["asked"]
    return Counts(tallies, scores, (a, b, c, d), body["both_fail"], body["is_new"])


def _meter(body: Mapping[str, Any]) -> Meter:
    return Meter(tuple(body["total"]), {e: tuple(v) for e, v in body["last"].items()})


def _judgement_json(made: Judgement) -> dict[str, Any]:
    said: dict[str, Any] = {name: _plain(getattr(made, name)) for name in ("rules", "weights", "history")}
    said |= {name: _look_json(getattr(made, name)) for name in ("seen", "checked")}
    same = {name: getattr(made, name) for name in ("alphas", "table", "verdict", "missing_since", "edge")}
    wealth = {name: {f.name: _packed(getattr(w, f.name)) for f in fields(w)} for name, w in made.wealth.items()}
    findings = [f.as_json() for f in made.findings]
    return {**said, **same, "wealth": wealth, "answered": _packed(made.answered), "usual": _packed(made.usual),
            "findings": findings}  # fmt: skip


def _judgement(body: Mapping[str, Any]) -> Judgement:
    wealth = {n: Wealth(**{k: _unpacked(v) for k, v in w.items()}) for n, w in body["wealth"].items()}
    return Judgement(
        Rules(**body["rules"]),
        Weights(**body["weights"]),
        History(**body["history"]),
        dict(body["alphas"]),
        _rows(body["table"]),
        wealth,
        body["verdict"],
        tuple(_finding(f) for f in body["findings"]),
        _seen(body["seen"]),
        _seen(body["checked"]),
        body["missing_since"],
        body["edge"],
        _unpacked(body["answered"]),
        **({"usual": _unpacked(body["usual"])} if "usual" in body else {}),  # a journal of an older tidegate has none
    )


def _finding(body: Mapping[str, Any]) -> Finding:
    return Finding(body["outcome"], body["text"], tuple((k, float(v)) for k, v in body["numbers"].items()))


def _plain(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as they are; ``asdict`` copies every number of them, ten times as long."""
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _meters(meters: Mapping[str, Meter]) -> dict[str, Any]:
    return {arm: _plain(meter) for arm, meter in meters.items()}


def _look_json(seen: Look) -> dict[str, Any]:
    arms = {
        k: _plain(a) if a else None
        for k, a in (("canary", seen.canary), ("control", seen.control), ("stable", seen.stable))
    }
    return {"seconds": seen.seconds, **arms}


def _seen(body: Mapping[str, Any]) -> Look:
    arms = [_counted(body[k]) if body[k] else None for k in ("canary", "control", "stable")]
    canary, control, stable = arms
    return Look(body["seconds"], canary or Arm(), control or Arm(), stable)


def _counted(body: Mapping[str, Any]) -> Arm:
    lists = tuple(body["latency"]), tuple(body["predictions"])
    return Arm(body["requests"], body["errors"], *lists, body.get("refused", 0))


def _rows(table: Any) -> Table | None:
    return tuple(tuple(int(n) for n in row) for row in table) if table is not None else None


def _packed(value: Any) -> Any:
    """An array as its bytes, which are exact; infinity, which JSON lacks, as a text."""
    if isinstance(value, np.ndarray):
        return {"shape": value.shape, "bytes": base64.b64encode(value.astype("<f8").tobytes()).decode()}
    return "inf" if isinstance(value, float) and math.isinf(value) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return np.frombuffer(base64.b64decode(value["bytes"]), "<f8").reshape(value["shape"]).copy()
    return math.inf if value == "inf" else value
