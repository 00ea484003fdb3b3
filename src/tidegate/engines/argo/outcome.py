"""How a run on Argo went, by the same graph that runs one on a laptop, fed with what the steps recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.engines.argo.nodes import by_signal, ended_early
from tidegate.engines.base import Arguments
from tidegate.engines.graph import Graph, Ready, RunContext
from tidegate.engines.kept import as_kept, is_kept
from tidegate.engines.values import NOTHING, values_from_json
from tidegate.plan.events import CANCELED, FAILED, SKIPPED, SUCCEEDED, Outcome, StepFinished
from tidegate.plan.model import Plan
from tidegate.store.runs import StepRecord

Lost = Callable[[str], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Ended:
    """What is known of a run that has ended, but for its records.

    Attributes:
        state: how it ended there.
        seconds: how long it took.
        lost: why a step left no record.
        error: what went wrong with the whole.
        finished: what an earlier try of the run had finished.
    """

    state: str
    seconds: float = 0.0
    lost: Lost = lambda _: None
    error: Mapping[str, Any] | None = None
    finished: Mapping[str, StepRecord] = field(default_factory=dict)


def outcome(
    plan: Plan, arguments: Arguments, context: RunContext, records: Mapping[str, StepRecord], ended: Ended
) -> Outcome:
    """Return how a run ended.

    Args:
        plan: the plan.
        arguments: what the run was given.
        context: names of the run.
        records: what its steps recorded, by path.
        ended: what the cluster says.
    """
    graph, steps = Graph(plan, arguments, context), list[StepFinished]()
    graph.start()
    while graph.ready or graph.ended:
        steps += [StepFinished(e.path, e.state, error=e.error, note=e.note) for e in graph.ended]
        waiting, graph.ready, graph.ended = graph.ready, [], []
        for ready in waiting:
            step = _step(ready, records.get(ready.path), ended)
            steps.append(step)
            outputs = values_from_json(records[ready.path].outputs) if step.state == SUCCEEDED else NOTHING
            graph.finish(ready, step.state, outputs, step.error)
    state = _state(graph.state, ended)
    error = next(({**s.error, "step": s.step} for s in steps if s.error and s.state == FAILED), None)
    return Outcome(
        context["pipeline_job_uuid"], state, graph.outputs.parameters, graph.outputs.artifacts, tuple(steps),
        _error(state, error, ended), ended.seconds,
    )  # fmt: skip


def _step(ready: Ready, record: StepRecord | None, ended: Ended) -> StepFinished:
    if record and record.state == CANCELED and ended.state != CANCELED:
        # told to end, and not by whoever ended the run: Argo knows why
        error = ended_early(ended.lost(ready.path), record.error)
        return StepFinished(ready.path, FAILED, seconds=record.seconds, error=error)
    if record and record.state == SUCCEEDED and ended.state == FAILED and (error := ended.lost(ready.path)):
        # its pod was evicted, or killed, between its record and its end: to Argo it failed, and nothing after it ran
        return StepFinished(ready.path, FAILED, seconds=record.seconds, error=error)
    if record:
        note = record.note or (f"{record.attempts} attempts" if record.attempts > 1 else "")
        error = ended_early(ended.lost(ready.path), record.error) if by_signal(record.error) else record.error
        step = StepFinished(ready.path, record.state, record.cached, record.seconds, error, note)
        return as_kept(step) if is_kept(record, ended.finished) else step
    if error := ended.lost(ready.path):
        return StepFinished(ready.path, CANCELED if ended.state == CANCELED else FAILED, error=error)
    return StepFinished(ready.path, SKIPPED, note="it did not run")


def _state(replayed: str, ended: Ended) -> str:
    if ended.state == CANCELED:
        return CANCELED
    return FAILED if FAILED in (replayed, ended.state) else SUCCEEDED


def _error(state: str, error: Mapping[str, Any] | None, ended: Ended) -> Mapping[str, Any] | None:
    if state == CANCELED:
        return {"code": "cancelled", "message": "the run was cancelled"}
    if state == FAILED:
        return error or ended.error or {"code": "argo-failed", "message": "Argo says that the run failed"}
    return None
