"""What changed: between two definitions of a pipeline, between two runs of one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.plan.events import SUCCEEDED
from tidegate.store.runs import StepRecord

_CODE = "--code_digest"


def definition_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs between two PipelineSpecs: components by name and how, the pipeline's own tasks."""
    changes = []
    old, new = ({"the pipeline": s.get("root", {}), **s.get("components", {})} for s in (before, now))
    for name in dict.fromkeys([*old, *new]):
        what = name if name == "the pipeline" else name.removeprefix("comp-")
        if name not in old or name not in new:
            changes.append(f"{what} is {'new' if name in new else 'gone'}")
        elif how := _component_change(old[name], new[name], _executor(before, old[name]), _executor(now, new[name])):
            changes.append(f"{how} of {what}")
    return changes or ["its names or versions"]


def _executor(spec: Mapping[str, Any], component: Mapping[str, Any]) -> Mapping[str, Any]:
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    found = executors.get(component.get("executorLabel"), {})
    container: Mapping[str, Any] = found.get("container", found)
    return container


def _component_change(
    old: Mapping[str, Any], new: Mapping[str, Any], was: Mapping[str, Any], runs: Mapping[str, Any]
) -> str:
    if old != new:
        return "tasks" if "dag" in new else "inputs or outputs"
    fields = [f for f in dict.fromkeys([*was, *runs]) if was.get(f) != runs.get(f)]
    if fields == ["args"] and _without_code(was["args"]) == _without_code(runs["args"]):
        return "code"
    return " and ".join("code" if f == "command" else f for f in fields)


def _without_code(args: Sequence[str]) -> list[str]:
    return [a for i, a in enumerate(args) if not i or args[i - 1] != _CODE]


@dataclass(frozen=True)
class StepChange:
    """How a step of a later run compares with an earlier one.

    Attributes:
        step: its path.
        how: ``ran``, ``cached``, ``new``, ``gone``, or the state it ended in.
        changed: the inputs of its cache key that differ, each with the values where they are short.
    """

    step: str
    how: str
    changed: tuple[str, ...] = ()


def run_changes(before: Sequence[StepRecord], now: Sequence[StepRecord]) -> Iterator[StepChange]:
    """Compare two runs of a pipeline step by step: which ran again, and which input of its key changed."""
    old, new = ({s.path: s for s in steps} for steps in (before, now))
    for path in dict.fromkeys([*new, *old]):
        if path not in new:
            yield StepChange(path, "gone")
        elif path not in old:
            yield StepChange(path, "new")
        else:
            yield StepChange(path, _how(new[path]), tuple(_changed(old[path], new[path])))


def _how(step: StepRecord) -> str:
    if step.state != SUCCEEDED:
        return step.state
    return "cached" if step.cached else "ran"


def _changed(old: StepRecord, new: StepRecord) -> Iterator[str]:
    for part in sorted({*old.parts, *new.parts}):
        if old.parts.get(part) != new.parts.get(part):
            yield _described(part, old, new)


def _described(part: str, old: StepRecord, new: StepRecord) -> str:
    kind, _, name = part.partition(" ")
    if kind == "parameter":
        values = [_short(s.inputs.get("parameters", {}).get(name)) for s in (old, new)]
        return f"{part}: {values[0]} → {values[1]}"
    if kind == "artifact":
        digests = [", ".join(a["digest"][:15] or a["uri"] for a in _artifacts(s, name)) or "-" for s in (old, new)]
        return f"{part}: {digests[0]} → {digests[1]}" if digests[0] != digests[1] else f"{part}: its metadata"
    return {
        "command": "code or command",
        "env": "environment variables",
        "environment": "installed packages",
        "settings": "Kubernetes settings, a secret or a config map",
    }.get(part, part)


def _artifacts(step: StepRecord, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = step.inputs.get("artifacts", {}).get(name, [])
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
