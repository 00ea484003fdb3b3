"""What one step of a run needs to know, found by replaying the run graph over the records of the steps before it.

A pod knows its step's path. The plan is narrowed to the scopes on that path, and in them to the tasks whose values the
step reads; these are stripped to what their outputs are made of. The graph then says what the step's inputs are, with
the same rules as on a laptop: defaults, keys of items, lists of what loops made, the branch that ran. That the step
runs at all was Argo's decision: conditions are not asked again, and a task without a record left nothing. Only inside a
dag that may be tried again they are: a task that does not run in this try may have a record of an earlier one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from tidegate.engines.base import Arguments
from tidegate.engines.graph import Graph, Ready, RunContext
from tidegate.engines.values import NOTHING, values_from_json
from tidegate.errors import StepFailed
from tidegate.ir import condition
from tidegate.plan.events import SKIPPED, SUCCEEDED
from tidegate.plan.model import (
    Component,
    Constant,
    Dag,
    FinalStatus,
    FromInput,
    FromTask,
    Interface,
    Plan,
    Retry,
    Source,
    Task,
)
from tidegate.store.runs import StepRecord

_PART = re.compile(r"(.*?)(?:\[(\d+)\])?", re.DOTALL)
Records = Callable[[str], StepRecord | None]
Statuses = Callable[[str], Mapping[str, object]]
AT_ONCE = 16


def trace(
    plan: Plan, arguments: Arguments, context: RunContext, path: str, records: Records, statuses: Statuses
) -> Ready:
    """Return a step with its resolved inputs.

    Args:
        plan: the whole plan.
        arguments: what the run was given.
        context: names of the run.
        path: the step's path.
        records: gives the record of a step by its path, None where it left none.
        statuses: gives the final status of a task by its path, as kfp's PipelineTaskFinalStatus.

    Raises:
        StepFailed: there is no such step, or what it needs is missing or of a wrong type.
    """
    graph = Graph(narrowed(plan, path, statuses), arguments, context)
    graph.start()
    while graph.ready:
        waiting, graph.ready = graph.ready, []
        if found := next((r for r in waiting if r.path == path), None):
            return found
        read = _records_of([r for r in waiting if _may_matter(r.path, path)], records)
        for ready in waiting:
            _finish(graph, ready, read.get(ready.id))
    error = next((e.error for e in graph.ended if e.path == path and e.error), None)
    raise StepFailed(
        str(error["message"]) if error else f"nothing in the plan leads to the step {path!r}",
        allowed=str((error or {}).get("allowed", "")),
        code=str(error["code"]) if error else "step-unknown",
    )


def _records_of(wanted: Sequence[Ready], records: Records) -> dict[int, StepRecord | None]:
    """The records of steps by their nodes, many at a time."""
    if len(wanted) < 2:
        return {r.id: records(r.path) for r in wanted}
    from concurrent.futures import ThreadPoolExecutor  # brings logging, which a step after one other need not wait for

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip([r.id for r in wanted], pool.map(lambda r: records(r.path), wanted), strict=True))


def _finish(graph: Graph, ready: Ready, record: StepRecord | None) -> None:
    if record and record.state == SUCCEEDED:
        graph.finish(ready, SUCCEEDED, values_from_json(record.outputs))
    else:
        graph.finish(ready, SKIPPED, NOTHING)


def _may_matter(other: str, path: str) -> bool:
    """Whether a step can be an ancestor: steps of other iterations of the loops around ``path`` are none."""
    for a, b in zip(other.split("/"), path.split("/"), strict=False):
        if a != b:
            (name, index), (own, own_index) = _part(a), _part(b)
            return name != own or index is None or own_index is None
    return True


def _part(text: str) -> tuple[str, str | None]:
    found = _PART.fullmatch(text)
    return (found[1], found[2]) if found else (text, None)


def narrowed(plan: Plan, path: str, statuses: Statuses) -> Plan:
    """Return the plan with no more than the values of the step at ``path`` depend on."""
    body = plan.root.body
    if isinstance(body, str):
        return plan
    root = replace(plan.root, body=_scope(body, path.split("/"), "", statuses))
    return replace(plan, root=root)


def _scope(dag: Dag, parts: Sequence[str], prefix: str, statuses: Statuses, *, again: bool = False) -> Dag:
    name = _part(parts[0])[0] if parts[0] not in dag.tasks else parts[0]
    if name not in dag.tasks:
        raise StepFailed(f"the plan has no task {'/'.join([prefix, *parts]).lstrip('/')!r}", code="step-unknown")
    task = dag.tasks[name]
    tried = again or _tried_again(task)
    known = {n: _known(s, prefix, statuses) for n, s in task.parameters.items()}
    task = replace(task, parameters=known, condition=None, always=True, retry=Retry())
    if isinstance(task.component.body, Dag) and len(parts) > 1:
        inner = _scope(task.component.body, parts[1:], f"{prefix}{parts[0]}/", statuses, again=tried)
        task = replace(task, component=replace(task.component, body=inner))
    tasks = {name: replace(task, after=_siblings(_sources(task)))}
    _add(tasks, dag, tasks[name].after, again=again)
    return Dag(tasks)


def _tried_again(task: Task) -> bool:
    return bool(task.retry.times) and isinstance(task.component.body, Dag)


def _known(source: Source, prefix: str, statuses: Statuses) -> Source:
    return Constant(dict(statuses(prefix + source.task))) if isinstance(source, FinalStatus) else source


def _sources(task: Task) -> list[Source]:
    return [*task.parameters.values(), *task.artifacts.values(), *task.settings.values()]


def _siblings(sources: Iterable[Source]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(s.task for s in sources if isinstance(s, FromTask)))


def _add(tasks: dict[str, Task], dag: Dag, names: Iterable[str], *, again: bool) -> None:
    """Add siblings whose outputs are read, stripped, and those that say how often loops among them turned."""
    for name in names:
        if name not in tasks:
            tasks[name] = _stripped(dag.tasks[name], again=again)
            _add(tasks, dag, tasks[name].after, again=again)


def _stripped(task: Task, *, again: bool) -> Task:
    """A task without anything but what its outputs are made of: inner outputs, the items of its loops.

    Args:
        task: the task.
        again: it is in a dag that may be tried again, so that whether it runs belongs to these too.
    """
    kept = _read(task, again=again)
    parameters = {n: s for n, s in task.parameters.items() if n in kept}
    artifacts = {n: s for n, s in task.artifacts.items() if n in kept}
    body, tried = task.component.body, again or _tried_again(task)
    if isinstance(body, Dag):
        tasks = {n: _stripped(t, again=tried) for n, t in body.tasks.items()}
        body = Dag(tasks, body.output_parameters, body.output_artifacts)
    item = {task.loop.item} if task.loop else set()
    component = replace(task.component, interface=_lenient(task.component.interface, kept | item), body=body)
    made = Task(task.name, component, parameters, artifacts, always=True, loop=task.loop)
    if again:
        return replace(made, after=task.after, always=task.always, condition=task.condition)
    return replace(made, after=_siblings(_sources(made)))


def _read(task: Task, *, again: bool) -> set[str]:
    """The inputs of a task by which is decided what in it runs, and how often."""
    found = _inner_read(task.component, again=again or _tried_again(task))
    if task.loop:
        found = (found - {task.loop.item}) | ({task.loop.source} if task.loop.source else set())
    return found | (condition.inputs(task.condition) if again and task.condition else set())


def _inner_read(component: Component, *, again: bool) -> set[str]:
    if isinstance(component.body, str):
        return set()
    found: set[str] = set()
    for task in component.body.tasks.values():
        names = _read(task, again=again)
        sources = [s for n, s in (*task.parameters.items(), *task.artifacts.items()) if n in names]
        found |= {s.name for s in sources if isinstance(s, FromInput)}
    return found


def _lenient(interface: Interface, kept: set[str]) -> Interface:
    parameters = {n: replace(p, optional=True, literals=()) for n, p in interface.parameters.items() if n in kept}
    artifacts = {n: replace(a, optional=True) for n, a in interface.artifacts.items() if n in kept}
    return Interface(parameters, artifacts, interface.output_parameters, interface.output_artifacts)
