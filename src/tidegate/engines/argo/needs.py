"""What of a plan's values Argo itself has to know: operands of conditions, items of loops, names that pods need.

``inputs`` and ``outputs`` work backwards from these through nested dags, and tell values apart that are read from those
whose items are only counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tidegate.engines.argo.control import COUNT, VALUE
from tidegate.ir import condition
from tidegate.ir.placeholder import Placeholder, Template, parse, placeholders
from tidegate.plan.model import Component, Constant, Container, Dag, Executor, FromInput, FromTask, Plan, Source, Task

PARAMETER, ARTIFACT = "parameter", "artifact"
Name = tuple[str, str]  # kind and name of an input or output
Needs = Mapping[Name, str]  # -> VALUE or COUNT


@dataclass(frozen=True)
class Read:
    """One place where Argo reads a value."""

    source: Source
    kind: str
    need: str


@dataclass(frozen=True)
class Analysis:
    """The needs of one plan; components are looked at once."""

    plan: Plan
    _inputs: dict[int, Needs] = field(default_factory=dict)

    def inputs(self, component: Component) -> Needs:
        """Which inputs of a component Argo reads somewhere inside it."""
        if id(component) not in self._inputs:
            body = component.body
            reads = (
                [r for t in body.tasks.values() for r in self.reads(t)]
                if isinstance(body, Dag)
                else _of_executor(self.plan.executors[body])
            )
            self._inputs[id(component)] = _merged(
                ((r.kind, r.source.name), VALUE if r.source.path else r.need)
                for r in reads
                if isinstance(r.source, FromInput)
            )
        return self._inputs[id(component)]

    def reads(self, task: Task) -> Iterator[Read]:
        """Yield what Argo reads to start a task, as sources of the dag around it."""
        for name in sorted(condition.inputs(task.condition)) if task.condition else ():
            yield Read(task.parameters.get(name, Constant(None)), PARAMETER, VALUE)
        for source in task.settings.values():
            yield Read(source, PARAMETER, VALUE)
        inner = self.inputs(task.component)
        if task.loop and task.loop.raw is None:
            kind = PARAMETER if task.loop.over == PARAMETER else ARTIFACT
            given = task.parameters if kind == PARAMETER else task.artifacts
            yield Read(given.get(task.loop.source, Constant(None)), kind, inner.get((kind, task.loop.item), COUNT))
        for (kind, name), need in inner.items():
            if not task.loop or name != task.loop.item:
                yield Read(argument_of(task, kind, name), kind, need)

    def outputs(self, dag: Dag, wanted: Needs) -> dict[str, Needs]:
        """Which outputs of each task in a dag are read: by its siblings, or as ``wanted`` outputs of the dag."""
        found: dict[str, list[tuple[Name, str]]] = {}
        for task in dag.tasks.values():
            for read in self.reads(task):
                if isinstance(read.source, FromTask):
                    need = VALUE if read.source.path else read.need
                    found.setdefault(read.source.task, []).append(((read.kind, read.source.output), need))
        for (kind, name), need in wanted.items():
            for selected in selectors(dag, kind).get(name, ()):
                found.setdefault(selected.task, []).append(((kind, selected.output), need))
        return {task: _merged(needs) for task, needs in found.items()}


def parameters_read(plan: Plan) -> dict[str, str]:
    """What Argo reads of a run's parameters: by name, ``VALUE`` or ``COUNT``."""
    return {name: need for (kind, name), need in Analysis(plan).inputs(plan.root).items() if kind == PARAMETER}


def selectors(dag: Dag, kind: str) -> Mapping[str, tuple[FromTask, ...]]:
    """Where the outputs of a kind come from."""
    return dag.output_parameters if kind == PARAMETER else dag.output_artifacts


def argument_of(task: Task, kind: str, name: str) -> Source:
    """What a task gives to an input of its component: an argument, or the default."""
    given = (task.parameters if kind == PARAMETER else task.artifacts).get(name)
    if given is not None:
        return given
    declared = task.component.interface.parameters.get(name) if kind == PARAMETER else None
    return Constant(declared.default if declared else None)


def dynamic(container: Container) -> dict[str, Template]:
    """The fields of a pod that hold placeholders, by name: its image, amounts of resources."""
    found = {"image": container.image}
    found |= {n: parse(v) for n, v in _texts(container.resources)}
    return {n: t for n, t in found.items() if placeholders(t)}


def _texts(resources: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in resources.items():
        if isinstance(value, str):
            yield prefix + name, value
        elif isinstance(value, Mapping):
            yield from _texts(value, f"{prefix}{name}.")


def _of_executor(executor: Executor) -> list[Read]:
    if not isinstance(executor, Container):
        return []
    found: set[Placeholder] = set().union(*map(placeholders, dynamic(executor).values()))
    return [Read(FromInput(p.name), PARAMETER, VALUE) for p in found if p.form == "input_parameter"]


def _merged(needs: Iterable[tuple[Name, str]]) -> dict[Name, str]:
    found: dict[Name, str] = {}
    for name, need in needs:
        found[name] = VALUE if VALUE in (need, found.get(name)) else COUNT
    return dict(sorted(found.items()))
