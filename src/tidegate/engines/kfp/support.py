"""What KFP's backend cannot do of what the SDK can say: refused before anything is sent, each with its code.

The table was measured on the backend 2.14.3 (docs/kfp.md says how). A row with a server's version holds for servers up
to that one; later ones are believed to do what their SDK says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tidegate.engines.own import own_step
from tidegate.errors import DefinitionError
from tidegate.ir.placeholder import Concat, IfPresent, Placeholder, parse, placeholders
from tidegate.plan.model import (
    Component,
    Constant,
    Container,
    Dag,
    FinalStatus,
    FromInput,
    FromTask,
    Importer,
    Plan,
    Task,
)

MEASURED = (2, 14)
_UNKNOWN = ("pipeline_job_create_time_utc", "pipeline_job_schedule_time_utc", "pipeline_root")
_SETTINGS = {
    "workspace": "a workspace (its claim is made and not mounted)",
    "resourceTtlOnCompletion": "a time to live of finished runs",
    "resourceTtlOnSuccess": "a time to live of finished runs",
    "resourceTtlOnFailure": "a time to live of finished runs",
    "activeDeadlineSeconds": "a deadline of the whole run",
}


@dataclass(frozen=True)
class Lack:
    """Something that a definition asks for and the backend does not do: its code, where, and what to do instead."""

    code: str
    found: str
    hint: str = ""


Rule = Callable[[Plan], Iterator[Lack]]


def check(plan: Plan, server: str = "") -> None:
    """Refuse what the backend cannot do.

    Args:
        plan: the plan.
        server: the server's version; empty where it is not known.

    Raises:
        DefinitionError: with the code of the first lack, naming them all.
    """
    rules = (*_ALWAYS, *(_OLD if is_measured(server) else ()))
    lacks = [lack for rule in rules for lack in rule(plan)]
    if lacks:
        raise DefinitionError(
            f"Kubeflow Pipelines{f' {server}' if server else ''} cannot do this: "
            + "; ".join(lack.found for lack in lacks[:5]),
            allowed="What docs/kfp.md lists.",
            hint=lacks[0].hint or "--engine local or argo",
            code=lacks[0].code,
        )


def is_measured(server: str) -> bool:
    """Whether the table holds for a server of this version; it does where the version is not known."""
    found = re.match(r"v?(\d+)\.(\d+)", server)
    return not found or (int(found[1]), int(found[2])) <= MEASURED


def _root(plan: Plan) -> Iterator[Lack]:
    if not isinstance(plan.root.body, Dag):
        yield Lack("kfp-root", "the definition is a single component", "Put it into a @dsl.pipeline.")
    elif plan.root.interface.artifacts:
        yield Lack("kfp-root-artifact", "input artifacts of the whole pipeline", "dsl.importer, with its address")


def _names(plan: Plan) -> Iterator[Lack]:
    for task in tasks(plan.root.body):
        if "." in task.name:
            yield Lack("kfp-name", f"a dot in the name of the task {task.name!r}")


def _settings(plan: Plan) -> Iterator[Lack]:
    for name, said in _SETTINGS.items():
        if plan.settings.get(name):
            yield Lack(f"kfp-{_kebab(name)}", said)


def _artifact_loops(plan: Plan) -> Iterator[Lack]:
    for task in tasks(plan.root.body):
        if task.loop and task.loop.over == "artifact":
            yield Lack("kfp-artifact-loop", f"a loop over artifacts ({task.name})", "Loop over their addresses.")


def _security(plan: Plan) -> Iterator[Lack]:
    for container in _containers(plan):
        if container.kubernetes.get("securityContext"):
            yield Lack("kfp-security-context", "set_security_context has no effect")
            return


def _metadata(plan: Plan) -> Iterator[Lack]:
    asked = [p for c in _containers(plan) for p in _asked(c) if p.attribute == "metadata"]
    if asked:
        yield Lack("kfp-placeholder", f"the placeholder for the metadata of {asked[0].name!r}", "Read it in the code.")


def _items(plan: Plan) -> Iterator[Lack]:
    """KFP gives the items of a list whose items have no type as text, and then refuses them."""
    for dag in _dags(plan.root):
        types = {n: p.type for n, p in dag.interface.parameters.items()}
        for task in dag.body.tasks.values() if isinstance(dag.body, Dag) else ():
            for name, source in task.parameters.items():
                wanted = task.component.interface.parameters.get(name)
                if not (wanted and isinstance(source, FromInput) and not source.path):
                    continue
                if types.get(source.name) == "STRING" != wanted.type:
                    yield Lack(
                        "kfp-loop-item",
                        f"items without a type, which are text there ({task.name}.{name} is no text)",
                        "Declare the list's items: list[int], list[dict].",
                    )


def _left_out(plan: Plan) -> Iterator[Lack]:
    """An artifact that a nested pipeline is not given, and passes on: its driver does not find it."""
    for task in tasks(plan.root.body):
        body = task.component.body
        if not isinstance(body, Dag):
            continue
        for name in set(task.component.interface.artifacts) - set(task.artifacts):
            if any(FromInput(name) in inner.artifacts.values() for inner in body.tasks.values()):
                found = f"an optional artifact that the nested pipeline {task.name} is not given ({name})"
                yield Lack("kfp-optional-artifact", found, "Make two nested pipelines, with it and without.")


def _statuses(plan: Plan) -> Iterator[Lack]:
    """KFP says COMPLETE where the SDK says SUCCEEDED; the launcher puts that right, which only components of ours have."""
    for task in tasks(plan.root.body):
        executor = plan.executors.get(task.component.body) if isinstance(task.component.body, str) else None
        told = any(isinstance(s, FinalStatus) for s in task.parameters.values())
        if told and not (isinstance(executor, Container) and own_step(executor)):
            found = f"a PipelineTaskFinalStatus (its state is COMPLETE there, not SUCCEEDED; {task.name})"
            yield Lack("kfp-final-status", found, "Write the exit task as @tidegate.component.")


def _ignored(plan: Plan) -> Iterator[Lack]:
    for task in tasks(plan.root.body):
        if task.always and any(isinstance(s, FromTask) for s in (*task.parameters.values(), *task.artifacts.values())):
            found = f"ignore_upstream_failure on a task with an input from upstream (empty there; {task.name})"
            yield Lack("kfp-ignored-output", found, "Order the two with .after(), and pass nothing.")


def _collected(plan: Plan) -> Iterator[Lack]:
    """What a loop gives where an iteration skips it: the driver of who collects it fails."""
    for task in tasks(plan.root.body):
        body = task.component.body
        if not task.loop or not isinstance(body, Dag):
            continue
        for sources in (*body.output_parameters.values(), *body.output_artifacts.values()):
            if len(sources) == 1 and body.tasks[sources[0].task].condition:
                found = f"dsl.Collected of what a condition may skip ({task.name})"
                yield Lack("kfp-collected-condition", found, "Give a value in each iteration: Else and OneOf.")


def _nested(plan: Plan) -> Iterator[Lack]:
    """What a loop in a loop gives is one flat list for whoever collects it; the local engine gives a list of lists."""
    for task in tasks(plan.root.body):
        body = task.component.body
        if task.loop and isinstance(body, Dag):
            for sources in body.output_parameters.values():
                if any(body.tasks[s.task].loop for s in sources):
                    found = f"dsl.Collected of parameters over loops in each other (flat there; {task.name})"
                    yield Lack("kfp-collected-nested", found, "Collect the inner loop in a step of the outer one.")


def _inside(plan: Plan) -> Iterator[Lack]:
    """KFP makes text of numbers inside lists and mappings; the launcher puts that right for components of ours."""
    for dag in _dags(plan.root):
        for task in dag.body.tasks.values() if isinstance(dag.body, Dag) else ():
            executor = plan.executors.get(task.component.body) if isinstance(task.component.body, str) else None
            if isinstance(executor, Container) and own_step(executor):
                continue
            for source in task.parameters.values():
                if isinstance(source, Constant) and source.has_placeholder and not isinstance(source.value, str):
                    named = {p.name for t in _texts(source.value) for p in placeholders(parse(t))}
                    if any(_is_number(dag, task.parameters.get(n)) for n in named):
                        found = f"a number from a step or an input inside a list or mapping (text there; {task.name})"
                        yield Lack("kfp-number-inside", found, "Pass it by itself, or write @tidegate.component.")


def _is_number(dag: Component, source: object) -> bool:
    if isinstance(source, FromInput) and source.name in dag.interface.parameters:
        return dag.interface.parameters[source.name].type != "STRING"
    if isinstance(source, FromTask) and isinstance(dag.body, Dag):
        return dag.body.tasks[source.task].component.interface.output_parameters[source.output].type != "STRING"
    return False


def _importers(plan: Plan) -> Iterator[Lack]:
    for executor in plan.executors.values():
        deep = isinstance(executor, Importer) and any(isinstance(v, Mapping) for v in executor.metadata.values())
        if deep:
            yield Lack(
                "kfp-importer-metadata", "mappings in an importer's metadata (one level more there)", "Keep it flat."
            )


def _structures(plan: Plan) -> Iterator[Lack]:
    for container in _containers(plan):
        for template in (*container.command, *container.args, *container.env.values()):
            if isinstance(template, Concat):
                yield Lack("kfp-concat", "dsl.ConcatPlaceholder (its JSON is the argument)", "Join it in the command.")
            elif isinstance(template, IfPresent):
                yield Lack(
                    "kfp-if-present",
                    f"dsl.IfPresentPlaceholder({template.input!r}) (its JSON may be the argument)",
                    "Give the input a default, and decide in the command.",
                )


def _constants(plan: Plan) -> Iterator[Lack]:
    for task in tasks(plan.root.body):
        for source in task.parameters.values():
            if isinstance(source, Constant) and source.has_placeholder:
                yield from _constant(task.name, source.value)


def _constant(task: str, value: object) -> Iterator[Lack]:
    for text in _texts(value):
        for placeholder in placeholders(parse(text)):
            if placeholder.form != "context":
                continue
            if placeholder.name in _UNKNOWN:
                yield Lack("kfp-placeholder", f"the placeholder {placeholder.name} ({task})", "Give it as a parameter.")
            elif text != f"{{{{$.{placeholder.name}}}}}":
                found = f"the placeholder {placeholder.name} with other text around it ({task})"
                yield Lack("kfp-placeholder-text", found, "Pass the placeholder alone, and join it in the code.")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (t for v in value.values() for t in _texts(v))
    elif isinstance(value, list | tuple):
        yield from (t for v in value for t in _texts(v))


def _output_lists(plan: Plan) -> Iterator[Lack]:
    for task in tasks(plan.root.body):
        lists = [n for n, slot in task.component.interface.output_artifacts.items() if slot.is_list]
        if isinstance(task.component.body, str) and lists:
            yield Lack("kfp-output-list", f"a list of output artifacts ({task.name}.{lists[0]})")


_ALWAYS: tuple[Rule, ...] = (_root, _names)
_OLD: tuple[Rule, ...] = (
    _settings,
    _artifact_loops,
    _items,
    _left_out,
    _statuses,
    _ignored,
    _importers,
    _collected,
    _nested,
    _inside,
    _security,
    _metadata,
    _structures,
    _constants,
    _output_lists,
)


def _dags(component: Component) -> Iterator[Component]:
    if isinstance(component.body, Dag):
        yield component
        for task in component.body.tasks.values():
            yield from _dags(task.component)


def tasks(body: Dag | str) -> Iterator[Task]:
    """Yield every task of a dag, those of the dags in it too."""
    for task in body.tasks.values() if isinstance(body, Dag) else ():
        yield task
        yield from tasks(task.component.body)


def _containers(plan: Plan) -> list[Container]:
    return [e for e in plan.executors.values() if isinstance(e, Container)]


def _asked(container: Container) -> frozenset[Placeholder]:
    texts = (*container.command, *container.args, *container.env.values())
    return frozenset().union(*map(placeholders, texts))


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
