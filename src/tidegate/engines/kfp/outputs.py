"""The outputs of a run, found in what its steps recorded: those of components that are not ours stay with KFP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.engines.values import Values, values_from_json
from tidegate.plan.events import SUCCEEDED
from tidegate.plan.model import Dag, FromTask, Plan, Task
from tidegate.store.runs import StepRecord


@dataclass(frozen=True)
class Outputs:
    """The outputs of a run, and the names of those that nobody of ours recorded."""

    values: Values
    unknown: tuple[str, ...]


def outputs(plan: Plan, records: Mapping[str, StepRecord]) -> Outputs:
    """Return the outputs of a run that succeeded, by the records of its steps."""
    dag = plan.root.body
    if not isinstance(dag, Dag):
        return Outputs(Values(), ())
    made = {path: values_from_json(r.outputs) for path, r in records.items() if r.state == SUCCEEDED}
    parameters = {n: next(_parameters(dag, "", s, made), None) for n, s in dag.output_parameters.items()}
    artifacts = {n: list(_artifacts(dag, "", s, made)) for n, s in dag.output_artifacts.items()}
    unknown = [n for n, v in parameters.items() if v is None] + [n for n, v in artifacts.items() if not v]
    known = {n: v for n, v in parameters.items() if v is not None}
    return Outputs(Values(known, {n: v for n, v in artifacts.items() if v}), tuple(unknown))


def _parameters(dag: Dag, path: str, sources: tuple[FromTask, ...], made: Mapping[str, Values]) -> Iterator[Any]:
    for task, output in _named(dag, sources):
        body, inner = task.component.body, path + task.name
        if not isinstance(body, Dag):
            value = made[inner].parameters.get(output) if inner in made else None
            yield from () if value is None else (value,)
        elif not task.loop:
            yield from _parameters(body, f"{inner}/", body.output_parameters.get(output, ()), made)
        else:
            turns = [
                _parameters(body, f"{t}/", body.output_parameters.get(output, ()), made) for t in _turns(inner, made)
            ]
            yield [value for turn in turns for value in list(turn)[:1]]


def _artifacts(dag: Dag, path: str, sources: tuple[FromTask, ...], made: Mapping[str, Values]) -> Iterator[Any]:
    for task, output in _named(dag, sources):
        body, inner = task.component.body, path + task.name
        if not isinstance(body, Dag):
            yield from made[inner].artifacts.get(output, ()) if inner in made else ()
            continue
        for turn in _turns(inner, made) if task.loop else [inner]:
            yield from _artifacts(body, f"{turn}/", body.output_artifacts.get(output, ()), made)


def _named(dag: Dag, sources: tuple[FromTask, ...]) -> Iterator[tuple[Task, str]]:
    yield from ((dag.tasks[s.task], s.output) for s in sources if s.task in dag.tasks)


def _turns(loop: str, made: Mapping[str, Values]) -> list[str]:
    """The iterations of a loop that left something, in their order."""
    found = {int(p[len(loop) + 1 :].partition("]")[0]) for p in made if p.startswith(f"{loop}[")}
    return [f"{loop}[{i}]" for i in sorted(found)]
