"""What a compiled object must satisfy before it is shown to anybody: a table of one-line rules, one code for all.

Hera's models stand for the shape of Argo's objects: they drop fields that they do not know, so an object that comes
back changed was wrong. The rules below are about what no schema says: references, names, sizes. The API server's own
check (``fieldValidation=Strict``) comes on top when something is submitted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from tidegate.engines.argo.cluster import NAME, Object
from tidegate.errors import ConfigError, DefinitionError

MAX_BYTES = 1 << 20  # of a Workflow: spec and status together, and etcd takes no more
MAX_SPEC = MAX_BYTES - (64 << 10)
_INPUT = re.compile(r"inputs\.parameters(?:\.([\w-]+)|\['([\w-]+)'\])")
_TASK = re.compile(r"tasks(?:\.([\w-]+)|\['([\w-]+)'\])")
_LONGEST = {"Workflow": 63, "WorkflowTemplate": 63, "CronWorkflow": 52}
_TASK_NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9_]{0,127}")


def check(body: Object) -> None:
    """Refuse an object that Argo would refuse, or run otherwise than it is meant.

    Raises:
        DefinitionError: the first rule that does not hold (code ``argo-invalid``), or it is too large
            (``argo-too-large``).
        ConfigError: the extra ``argo`` is not installed.
    """
    size = len(json.dumps(body))
    if size > MAX_SPEC:
        raise DefinitionError(
            f"the {body['kind']} takes {size / 1024:.0f} KiB",
            allowed=f"{MAX_SPEC // 1024} KiB; Kubernetes takes {MAX_BYTES // 1024} with what Argo writes beside it.",
            hint="Use loops in place of repeated tasks, or split the pipeline.",
            code="argo-too-large",
        )
    for rule in RULES:
        for found in rule(body):
            raise DefinitionError(f"the compiled {body['kind']} is wrong: {found}", code="argo-invalid")


def _templates(body: Object) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = body["spec"].get("templates", [])
    return found


def _tasks(body: Object) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for template in _templates(body):
        for task in template.get("dag", {}).get("tasks", ()):
            yield template, task


def _inputs(template: Mapping[str, Any]) -> set[str]:
    return {p["name"] for p in template.get("inputs", {}).get("parameters", ())}


def _shape(body: Object) -> Iterator[str]:
    try:
        from hera.workflows import models
    except ImportError as e:
        raise ConfigError(
            "the Python package hera is not here", hint="pip install 'tidegate[argo]'", code="extra-missing"
        ) from e
    model = getattr(models, body["kind"])
    try:
        read = model.model_validate(body).model_dump(mode="json", by_alias=True, exclude_none=True)
    except ValueError as e:
        yield str(e)
    else:
        yield from _differences(body, read, "")


def _differences(given: Any, read: Any, path: str) -> Iterator[str]:
    if isinstance(given, Mapping) and isinstance(read, Mapping):
        for key in given:
            yield from (
                _differences(given[key], read[key], f"{path}.{key}") if key in read else [f"no field {path}.{key}"]
            )
    elif isinstance(given, list) and isinstance(read, list):
        for i, (a, b) in enumerate(zip(given, read, strict=True)):
            yield from _differences(a, b, f"{path}[{i}]")
    elif given != read:
        yield f"{path} is {given!r}"


def _object_name(body: Object) -> Iterator[str]:
    said = body["metadata"].get("name") or body["metadata"].get("generateName", "").rstrip("-")
    longest = _LONGEST[body["kind"]]
    if len(said) > longest or not NAME.fullmatch(said):
        yield f"the name {said!r} is not one of a-z, 0-9 and '-', {longest} characters at most"


def _unique_names(body: Object) -> Iterator[str]:
    names = [t["name"] for t in _templates(body)]
    yield from (f"two templates are called {n}" for n in set(names) if names.count(n) > 1)


def _task_names(body: Object) -> Iterator[str]:
    yield from (f"{t['name']!r} is no name of a task" for _, t in _tasks(body) if not _TASK_NAME.fullmatch(t["name"]))


def _references(body: Object) -> Iterator[str]:
    known = {t["name"] for t in _templates(body)}
    wanted = {body["spec"].get("entrypoint"), body["spec"].get("onExit"), *(t["template"] for _, t in _tasks(body))}
    yield from (f"there is no template {name}" for name in wanted - known - {None})


def _arguments(body: Object) -> Iterator[str]:
    inputs = {t["name"]: _inputs(t) for t in _templates(body)}
    for template, task in _tasks(body):
        given = {p["name"] for p in task.get("arguments", {}).get("parameters", ())}
        if given != inputs[task["template"]]:
            yield f"{template['name']}.{task['name']} gives {sorted(given)} to {task['template']}"


def _inputs_read(body: Object) -> Iterator[str]:
    for template in _templates(body):
        read = {a or b for a, b in _INPUT.findall(json.dumps(template))}
        yield from (f"{template['name']} reads the input {n}" for n in read - _inputs(template))


def _tasks_read(body: Object) -> Iterator[str]:
    for template in _templates(body):
        tasks = {t["name"]: t for t in template.get("dag", {}).get("tasks", ())}
        for name, task in tasks.items():
            read = {a or b for a, b in _TASK.findall(json.dumps(task))}
            yield from (f"{template['name']}.{name} does not wait for the task {t}" for t in read - _upstream(task))


def _upstream(task: Mapping[str, Any]) -> set[str]:
    return set(re.findall(r"[\w-]+(?=\.)", task.get("depends", "")))


def _cycles(body: Object) -> Iterator[str]:
    for template in _templates(body):
        tasks = template.get("dag", {}).get("tasks", ())
        graph = {t["name"]: _upstream(t) for t in tasks}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as e:
            yield f"{template['name']} waits for itself: {' → '.join(e.args[1])}"


RULES: tuple[Callable[[Object], Iterator[str]], ...] = (
    _shape, _object_name, _unique_names, _task_names, _references, _arguments, _inputs_read, _tasks_read, _cycles,
)  # fmt: skip
