"""What a rollout looks like on a terminal: its plan, how it goes, how it ended."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from tidegate.registry.gate import FAIL, PASS
from tidegate.registry.rollouts import PROMOTED
from tidegate.rollout.exposure import Need
from tidegate.rollout.findings import NOT_COMPARED
from tidegate.rollout.opening import Opening
from tidegate.rollout.session import NOBODY
from tidegate.rollout.state import ENDED, State

_SIGNS = {PASS: "✓", FAIL: "✗"}
_NO_SIGN = "–"  # of what says neither good nor bad


def plan_json(opening: Opening, needs: Sequence[Need]) -> dict[str, Any]:
    """The same for scripts."""
    plan, rules = opening.plan, opening.plan.rules
    steps = [
        {
            "share": rules.steps[i] / 100,
            "weights": {arm: w / 100 for arm, w in plan.weights(i).items()},
            "requests": need.requests,
            "seconds": need.seconds,
            "rate": need.rate,
            "reason": need.reason,
        }
        for i, need in enumerate(needs)
    ]
    versions = {"candidate": plan.candidate.version, "stable": plan.stable.version}
    return {
        "id": plan.id,
        "model": plan.model,
        **versions,
        "steps": steps,
        "rules": rules.as_json(),
        "notes": list(opening.notes),
    }


def plan_lines(opening: Opening, needs: Sequence[Need]) -> list[str]:
    """The plan before it begins: shares, and what each step needs."""
    plan, rules = opening.plan, opening.plan.rules
    shown = [
        f"{plan.id}: version {plan.candidate.version} of {plan.model} against its champion, version {plan.stable.version}"
    ]
    for i, need in enumerate(needs):
        arms = ", ".join(f"{arm} {w / 100:g} %" for arm, w in plan.weights(i).items())
        shown.append(f"  step {i + 1}: {rules.steps[i] / 100:g} % ({arms}); needs {need.text}")
    late = "is taken back" if rules.on_deadline == "rollback" else "waits for a person"
    shown.append(
        f"  what is not decided within {rules.deadline:g} s of a step {late}; nothing is promoted without evidence"
    )
    shown.append(f"  alpha {rules.alpha:g} for the whole rollout; version {plan.stable.version} stays warm "
                 f"{rules.rollback_window:g} s after the promotion")  # fmt: skip
    return shown + [f"note: {note}" for note in opening.notes]


def lines(view: Mapping[str, Any]) -> list[str]:
    """How a rollout goes."""
    top, findings, bottom = _parts(view)
    return [*top, *findings, *bottom]


def fitted(view: Mapping[str, Any], width: int, height: int) -> list[str]:
    """The same in the rows of a terminal: what does not fit is cut, then findings are left out, those that pass first.

    Args:
        view: the rollout.
        width: columns of the terminal.
        height: rows that may be used.
    """
    top, findings, bottom = _parts(view)
    top = [_cut(line, width) for line in top]
    passing = [line for line in findings if line.startswith(f"  {_SIGNS[PASS]}")]
    for short in ([], passing, [*findings, *bottom]):
        rows = [_cut(r, width) if r in short else r for r in [*findings, *bottom]]
        shown = [*top, *chain.from_iterable(textwrap.wrap(r, width, subsequent_indent="    ") for r in rows)]
        if len(shown) <= height:
            return shown
    kept = sorted(findings, key=passing.__contains__)[: max(height - len(top) - len(bottom) - 1, 0)]
    more = f"  … {len(findings) - len(kept)} more: tidegate rollout status {view['model']}"
    shown = [*top, *(_cut(line, width) for line in [*kept, more, *bottom])]
    return [*shown[: height - 1], shown[-1]]  # the last says what to type


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _parts(view: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """What stands where, what was found, and what follows from it."""
    limit = f" of {view['limit']:g}" if view["limit"] else ""
    top = [
        f"{view['id']}: version {view['candidate']} against {view['stable']}",
        f"{_phase(view)}, {_step(view)}, {view['seconds']:.0f}{limit} s",
        f"  {'arm':<9} {'share':>6} {'requests':>10} {'errors':>7} {'refused':>8} {'predictions':>12}",
    ]
    for arm, share in view["weights"].items():
        counts = view["counts"].get(arm, {"requests": 0, "errors": 0, "refused": 0, "predictions": 0})
        numbers = (
            f"{counts['requests']:>10,} {counts['errors']:>7,} {counts['refused']:>8,} {counts['predictions']:>12,}"
        )
        top.append(f"  {arm:<9} {f'{share:g} %':>6} {numbers}")
    bottom = [f"  verdict: {view['verdict']}"] if view["verdict"] and view["phase"] != ENDED else []
    bottom += [f"  why: {view['reason']}"] if view["reason"] else []
    bottom += [f"  waits for the ledger to hold {view['waits_for']!r}"] if view["waits_for"] else []
    bottom += [f"  note: {t}" for t in view["trouble"]]
    return top, [f"  {_sign(f)} {f['text']}" for f in view["findings"]], bottom + _next(view)


def _step(view: Mapping[str, Any]) -> str:
    if view["step"] < 1:
        return "before the first step"
    steps = len(view["steps"])
    return f"step {view['step']} of {steps}" if view["step"] <= steps else "after the last step"


def _sign(finding: Mapping[str, Any]) -> str:
    return _NO_SIGN if NOT_COMPARED in finding["text"] else _SIGNS.get(finding["outcome"], "?")


def _phase(view: Mapping[str, Any]) -> str:
    return f"ended, {view['outcome']}" if view["phase"] == ENDED else str(view["phase"])


def _next(view: Mapping[str, Any]) -> list[str]:
    name = view["model"]
    if view["phase"] == ENDED:
        return [f"  → tidegate rollout history {name}"]
    if NOBODY in view["trouble"]:
        return [f"  → tidegate rollout start {name} goes on; tidegate rollback {name} gives all traffic to stable"]
    if view["phase"] == "held":
        again = f"tidegate rollout start {name}:{view['candidate']} --again"
        return [f"  → tidegate rollout abort {name}; then, with more traffic, time or margin: {again}"]
    return [f"  → tidegate rollback {name} gives all traffic to version {view['stable']} at once"]


def summary(state: State, is_written: bool) -> str:
    """How it ended, in a few lines."""
    plan = state.plan
    if state.outcome == PROMOTED:
        said = f"promoted: version {plan.candidate.version} is the champion of {plan.model} and has all traffic"
    else:
        said = f"{state.outcome or 'taken back'}: all traffic of {plan.model} goes to version {plan.stable.version}"
    shown = [said, f"  {state.reason}"]
    if not is_written:
        shown.append(
            f"  the ledger does not hold it yet\n  → tidegate rollout start {plan.model} writes it down when the store answers"
        )
    return "\n".join([*shown, f"  → tidegate rollout history {plan.model}"])
