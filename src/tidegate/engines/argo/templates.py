"""A plan's dags as DAG templates, one small function a construct; identical templates are stored once.

Template inputs are ``at`` (where the dag is: ``outer/for-loop-1[2]/``) and the control texts that something inside
reads. A loop is a template of its own around its iterations, whose item is an index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tidegate.engines.argo import expression
from tidegate.engines.argo.cluster import label
from tidegate.engines.argo.container import output_name, pod_template, retry_strategy
from tidegate.engines.argo.control import COUNT, VALUE
from tidegate.engines.argo.needs import ARTIFACT, PARAMETER, Analysis, Needs, argument_of, dynamic, selectors
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.graph import dag_of_one
from tidegate.errors import DefinitionError
from tidegate.ir.condition import inputs
from tidegate.ir.placeholder import placeholders
from tidegate.plan.model import (
    Component,
    Constant,
    Container,
    Dag,
    FinalStatus,
    FromInput,
    FromTask,
    Loop,
    Plan,
    Source,
    Task,
)
from tidegate.plan.value import LIST, STRING

ENTRYPOINT = "main"
EACH = "each"
_NUMBER = re.compile(r"-[0-9]+$")  # kfp numbers the calls of a component
_ENDED = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted")
_WORDS = set("nil true false let in not and or if else matches contains startsWith endsWith".split())


@dataclass(frozen=True)
class Scope:
    """Where a source is read: inside the dag of a component, at the root or below, perhaps in a loop's iteration.

    ``always`` is for a task that runs however those before it ended.
    """

    component: Component
    root: bool = False
    loop: Loop | None = None
    items: str = ""  # declared type of the loop's items
    always: bool = False

    def input(self, kind: str, name: str) -> str:
        """The control text of an input of the component."""
        if self.loop and name == self.loop.item and kind == PARAMETER:
            found = expression.item(expression.template_input("items"), self.items, expression.template_input("index"))
            return expression.text_of(found)
        if self.root:
            if kind == ARTIFACT:
                raise _refused("a loop over an input artifact of the pipeline", "Argo does not know how many there are")
            return expression.root_input(name, self.component.interface.parameters[name].type)
        return expression.template_input(output_name(kind, name))

    def value(self, source: Source, kind: str, dag: Dag) -> tuple[str, str]:
        """The value of a source, and its declared type where it is known."""
        if isinstance(source, FromInput | FromTask) and source.path:
            whole = expression.value_of(self.text(replace(source, path=()), kind))
            return expression.picked(whole, source.path), ""
        found, type_ = expression.value_of(self.text(source, kind)), self.type_of(source, dag)
        untyped = isinstance(source, FromInput) and type_ == STRING and not self.root
        return expression.as_string(found) if untyped else found, type_

    def text(self, source: Source, kind: str) -> str:
        """The control text of a source."""
        match source:
            case Constant(value, has_placeholder):
                if has_placeholder:
                    raise _refused("a condition or loop over text with placeholders", "Argo decides before it is known")
                return expression.constant(value)
            case FromInput(name, path):
                text = self.input(kind, name)
            case FromTask(task, output, path):
                text = expression.task_output(task_name(task), output_name(kind, output), may_have_failed=self.always)
            case FinalStatus():
                raise _refused("a condition on a task's final status", "only its component can read that")
        return expression.text_of(expression.picked(expression.value_of(text), path)) if path else text

    def type_of(self, source: Source, dag: Dag) -> str:
        """The declared type of a parameter source."""
        match source:
            case FromInput(name):
                declared = self.component.interface.parameters.get(name)
                return declared.type if declared else ""
            case FromTask(task, output):
                producer = dag.tasks[task]
                if producer.loop:
                    return LIST
                made = producer.component.interface.output_parameters.get(output)
                return made.type if made else ""
        return ""


def _refused(found: str, why: str) -> DefinitionError:
    return DefinitionError(f"{found} cannot run on Argo", allowed=f"Other constructs: {why}.", code="argo-construct")


def task_name(name: str) -> str:
    """The name of a task in Argo, which reads ``depends`` as an expression: numbers and its words are no names there."""
    return f"t-{name}" if name[:1].isdigit() or name in _WORDS else name


@dataclass
class Templates:
    """The templates of a plan, by content."""

    plan: Plan
    settings: ArgoSettings
    analysis: Analysis
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, wanted: str, template: dict[str, Any]) -> str:
        """Store a template; return the name of it, or of the identical one of what was the same component to its author."""
        wanted = _NUMBER.sub("", wanted)
        text = json.dumps([wanted, template], sort_keys=True)
        if text not in self.names:
            name = base = label(wanted) or "step"
            number = 1
            while name in self.made:
                number += 1
                name = f"{base}-{number}"
            self.made[name], self.names[text] = template, name
        return self.names[text]


def build_templates(plan: Plan, settings: ArgoSettings) -> list[dict[str, Any]]:
    """Return the templates of a plan, the entrypoint first.

    Raises:
        DefinitionError: something that cannot be said to Argo.
    """
    templates = Templates(plan, settings, Analysis(plan), {ENTRYPOINT: {}})
    body = plan.root.body
    dag = body if isinstance(body, Dag) else dag_of_one(plan.name, plan.root)
    templates.made[ENTRYPOINT] = _dag_template(templates, dag, Scope(plan.root, root=True), {})
    return [{"name": name, **template} for name, template in templates.made.items()]


def _dag_template(templates: Templates, dag: Dag, scope: Scope, wanted: Needs) -> dict[str, Any]:
    outputs = templates.analysis.outputs(dag, wanted)
    tasks = [_task(templates, task, dag, scope, outputs.get(name, {})) for name, task in dag.tasks.items()]
    body: dict[str, Any] = {"failFast": False, "tasks": tasks}
    if any(t.always for t in dag.tasks.values()):
        body["target"] = " ".join(map(task_name, dag.tasks))
    template: dict[str, Any] = {"dag": body}
    if made := [_output(dag, kind, name) for kind, name in wanted]:
        template["outputs"] = {"parameters": made}
    return template


def _output(dag: Dag, kind: str, name: str) -> dict[str, Any]:
    sources = selectors(dag, kind).get(name, ())
    found = " ?? ".join(
        f"tasks['{task_name(s.task)}'].outputs.parameters['{output_name(kind, s.output)}']" for s in sources
    )
    text = f"{found} ?? {expression.ABSENT}" if found else expression.ABSENT
    return {"name": output_name(kind, name), "valueFrom": {"expression": text}}


def _task(templates: Templates, task: Task, dag: Dag, scope: Scope, wanted: Needs) -> dict[str, Any]:
    made: dict[str, Any] = {"name": task_name(task.name)}
    scope = replace(scope, always=task.always)
    if task.after:
        made["depends"] = " && ".join(_depends(task_name(u), always=task.always) for u in task.after)
    if task.condition:
        operands = {n: scope.value(task.parameters.get(n, Constant(None)), PARAMETER, dag) for n in _operands(task)}
        made["when"] = expression.tag(expression.condition(task.condition, operands.__getitem__))
    at = "" if scope.root else "{{inputs.parameters.at}}"
    if task.loop:
        made["template"], given = _loop(templates, task, dag, scope, wanted)
        given = {"at": at + task.name, **given}
    elif isinstance(task.component.body, Dag):
        made["template"] = _nested(templates, task, wanted)
        given = {"at": f"{at}{task.name}/", **_inner(templates, task, scope)}
    else:
        made["template"], given = _leaf(templates, task, dag, scope, wanted)
        given = {"step": at + task.name, **given}
    made["arguments"] = {"parameters": [{"name": n, "value": v} for n, v in given.items()]}
    return made


def _operands(task: Task) -> frozenset[str]:
    return inputs(task.condition) if task.condition else frozenset()


def _depends(upstream: str, *, always: bool) -> str:
    states = " || ".join(f"{upstream}.{s}" for s in _ENDED)
    return f"({states})" if always else f"{upstream}.Succeeded"


def _with_inputs(template: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {"inputs": {"parameters": [{"name": n} for n in names]}, **template}


def _nested(templates: Templates, task: Task, wanted: Needs) -> str:
    component = task.component
    assert isinstance(component.body, Dag)
    template = _dag_template(templates, component.body, Scope(component), wanted)
    names = ["at", *(output_name(kind, name) for kind, name in templates.analysis.inputs(component))]
    template = _with_inputs(template, names)
    if task.retry.times:
        template["retryStrategy"] = retry_strategy(task.retry)
    return templates.add(component.name.removeprefix("comp-"), template)


def _inner(templates: Templates, task: Task, scope: Scope, but: str = "") -> dict[str, str]:
    """What a task gives to the control inputs of its component."""
    needs = templates.analysis.inputs(task.component)
    return {
        output_name(kind, name): expression.tag(scope.text(argument_of(task, kind, name), kind))
        for kind, name in needs
        if name != but
    }


def _leaf(templates: Templates, task: Task, dag: Dag, scope: Scope, wanted: Needs) -> tuple[str, dict[str, str]]:
    executor = templates.plan.executors[str(task.component.body)]
    names, given = dict[str, str](), dict[str, str]()
    for place, source in _places(task, executor):
        names[place] = name = f"set-{len(names)}"
        given[name] = expression.tag(_name_only(scope.value(source, PARAMETER, dag)[0]))
    arguments = bool(templates.plan.root.interface.parameters)
    template = pod_template(task, executor, wanted, names, templates.settings, arguments=arguments)
    if asked := [s for s in task.parameters.values() if isinstance(s, FinalStatus)]:
        said = {s.task: f"{{{{tasks.{task_name(s.task)}.status}}}}" for s in asked}
        given["status"] = json.dumps(said)
    return templates.add(task.component.name.removeprefix("comp-"), template), given


def _places(task: Task, executor: Any) -> Iterator[tuple[str, Source]]:
    """The settings of a pod that are known only when the task runs, by their places."""
    yield from ((p, s) for p, s in task.settings.items() if not isinstance(s, Constant))
    if isinstance(executor, Container):
        found = {p.name for t in dynamic(executor).values() for p in placeholders(t) if p.form == "input_parameter"}
        yield from ((f"input.{name}", argument_of(task, PARAMETER, name)) for name in sorted(found))


def _name_only(value: str) -> str:
    """A value as a name in a pod's specification, which is text to Kubernetes and Argo: nothing else gets there."""
    text = f'(type({value}) == "string" ? {value} : toJson({value}))'
    return f"({text} matches {expression.literal('^[A-Za-z0-9][A-Za-z0-9._/:@-]*$')} ? {text} : {expression.NO_VALUE})"


def _loop(templates: Templates, task: Task, dag: Dag, scope: Scope, wanted: Needs) -> tuple[str, dict[str, str]]:
    loop = task.loop
    assert loop
    needs = templates.analysis.inputs(task.component)
    items, type_ = _items(task, dag, scope)
    item_read = (PARAMETER, loop.item) in needs
    given = _inner(templates, task, scope, but=loop.item)
    body = {n: f"{{{{inputs.parameters.{n}}}}}" for n in given}
    if loop.raw is None or item_read:
        given["items"] = expression.tag(items)
    if item_read:
        body |= {"items": "{{inputs.parameters.items}}", "index": "{{item}}"}
    each = _iteration(templates, task, Scope(task.component, loop=loop, items=type_), wanted, body)
    each["withParam"] = (
        expression.tag(expression.indexes(expression.template_input("items"), type_))
        if loop.raw is None
        else json.dumps([*range(len(loop.raw))])
    )
    template: dict[str, Any] = {"dag": {"failFast": False, "tasks": [each]}}
    if loop.limit:
        template["parallelism"] = loop.limit
    if wanted:
        template["outputs"] = {"parameters": [_gathered(kind, name) for kind, name in wanted]}
    if task.retry.times:
        template["retryStrategy"] = retry_strategy(task.retry)
    return templates.add(task.name, _with_inputs(template, ["at", *given])), given


def _items(task: Task, dag: Dag, scope: Scope) -> tuple[str, str]:
    """The control text of a loop's items, and their declared type."""
    loop = task.loop
    assert loop
    if loop.raw is not None:
        return expression.constant(list(loop.raw)), LIST
    if loop.over == ARTIFACT:
        return scope.text(task.artifacts[loop.source], ARTIFACT), LIST
    source = task.parameters.get(loop.source, Constant(None))
    path = isinstance(source, FromInput | FromTask) and source.path
    return scope.text(source, PARAMETER), "" if path else scope.type_of(source, dag)


def _iteration(
    templates: Templates, task: Task, scope: Scope, wanted: Needs, given: Mapping[str, str]
) -> dict[str, Any]:
    component = task.component
    within = "{{inputs.parameters.at}}[{{item}}]/"
    reads = {k: VALUE if v == VALUE else COUNT for k, v in wanted.items()}
    if (
        isinstance(component.body, str)
        and not given
        and not any(isinstance(s, FinalStatus) for s in task.parameters.values())
    ):
        inner = dag_of_one(task.name, component).tasks[task.name]
        name, _ = _leaf(templates, inner, Dag({task.name: inner}), scope, reads)
        arguments = {"step": within + task.name}
    else:
        dag = component.body if isinstance(component.body, Dag) else dag_of_one(task.name, component)
        template = _dag_template(templates, dag, scope, reads)
        name = templates.add(f"{task.name}-each", _with_inputs(template, ["at", *given]))
        arguments = {"at": within, **given}
    parameters = [{"name": n, "value": v} for n, v in arguments.items()]
    return {"name": EACH, "template": name, "arguments": {"parameters": parameters}}


def _gathered(kind: str, name: str) -> dict[str, Any]:
    output = output_name(kind, name)
    text = f"(tasks['{EACH}'].outputs.parameters['{output}'] ?? \"[]\")"
    found = expression.collected(text) if kind == PARAMETER else expression.counted(text)
    return {"name": output, "valueFrom": {"expression": found}}
