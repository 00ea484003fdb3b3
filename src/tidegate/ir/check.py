"""The verifier: what a legal PipelineSpec is, as a table of rules with a code each.

The shape (fields and types) is checked against kfp's own protos first; the rules below say what the protos cannot.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from tidegate.errors import DefinitionError
from tidegate.ir.placeholder import placeholders_in

Spec = Mapping[str, Any]
_CHANNEL = "{{channel:task="
MAX_NAME = 200
Rule = Callable[[Spec], Iterator[str]]


def check(spec: Spec, platforms: Spec | None = None) -> dict[str, Any]:
    """Check a PipelineSpec and the settings of kfp's platform document.

    Returns:
        The PipelineSpec as kfp writes it: fields that are null or empty left out, names in order.

    Raises:
        DefinitionError: with the code of the first rule that is broken, naming every place that breaks it.
    """
    known = _shaped(spec, "PipelineSpec")
    known["deploymentSpec"] = _shaped(known.get("deploymentSpec", {}), "PipelineDeploymentConfig")
    _shaped({"platforms": platforms or {}}, "PlatformSpec", newer=True)
    _mappings(platforms or {})
    for code, allowed, rule in RULES:
        if broken := list(rule(known)):
            more = f" (and {len(broken) - 3} more)" if len(broken) > 3 else ""
            raise DefinitionError("; ".join(broken[:3]) + more, allowed=allowed, code=code)
    return known


def _shaped(spec: Any, kind: str, *, newer: bool = False) -> dict[str, Any]:
    """Read JSON as a message of kfp's protos and back; ``newer`` lets fields through that a newer kfp writes."""
    from google.protobuf import json_format

    try:
        message = json_format.ParseDict(spec, getattr(_protos(), kind)(), ignore_unknown_fields=newer)
        # proto maps come in no order; names in order make every listing and compilation the same each time
        shaped: dict[str, Any] = json.loads(json_format.MessageToJson(message, sort_keys=True, indent=None))
    except Exception as e:  # what the library raises on hostile values is not documented
        text = str(e).replace("\n", " ")
        raise DefinitionError(
            f"not a {kind}: {text[:300] or type(e).__name__}",
            allowed="The fields and types of kfp's pipeline_spec.proto.",
            code="ir-shape",
        ) from e
    return shaped


def _mappings(platforms: Any) -> None:
    """The proto takes empty values of any type for a message; readers of the settings take mappings."""
    found, path = platforms, "platforms"
    for name in ("kubernetes", "deploymentSpec", "executors"):
        if not isinstance(found, Mapping):
            break
        found, path = found.get(name, {}), f"{path}.{name}"
    executors = found.values() if isinstance(found, Mapping) else [found]
    if not isinstance(found, Mapping) or not all(isinstance(e, Mapping) for e in executors):
        raise DefinitionError(f"{path} is no mapping", allowed="What kfp's compiler writes.", code="ir-shape")


@cache
def _protos() -> Any:
    """The module of kfp's PipelineSpec protos, from its file: importing kfp around it takes ten times as long."""
    from importlib.metadata import distribution

    file = distribution("kfp-pipeline-spec").locate_file("kfp/pipeline_spec/pipeline_spec_pb2.py")
    spec = importlib.util.spec_from_file_location("tidegate.ir._pipeline_spec_pb2", str(file))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _components(spec: Spec) -> Iterator[tuple[str, Spec]]:
    yield "root", spec["root"]
    yield from spec.get("components", {}).items()


def _dags(spec: Spec) -> Iterator[tuple[str, Spec, Spec]]:
    for name, component in _components(spec):
        if "dag" in component:
            yield name, component, component["dag"].get("tasks", {})


def _tasks(spec: Spec) -> Iterator[tuple[str, Spec, Spec, Spec]]:
    for dag, component, tasks in _dags(spec):
        for name, task in tasks.items():
            yield f"{dag}/{name}", task, component, tasks


def _callee(spec: Spec, task: Spec) -> Spec:
    found: Spec = spec.get("components", {}).get(task.get("componentRef", {}).get("name", ""), {})
    return found


def _declared(component: Spec, way: str, kind: str) -> Spec:
    found: Spec = component.get(way, {}).get(kind, {})
    return found


def _whole(spec: Spec) -> Iterator[str]:
    if not spec.get("pipelineInfo", {}).get("name"):
        yield "pipelineInfo.name is missing"
    if "root" not in spec:
        yield "root is missing"


def _version(spec: Spec) -> Iterator[str]:
    if not str(spec.get("schemaVersion", "2.1.0")).startswith("2."):
        yield f"schemaVersion is {spec['schemaVersion']!r}"


def _bodies(spec: Spec) -> Iterator[str]:
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    for name, component in _components(spec):
        if ("dag" in component) == ("executorLabel" in component):
            yield f"component {name!r} has not exactly one of dag and executorLabel"
        elif "executorLabel" in component and component["executorLabel"] not in executors:
            yield f"component {name!r} names the unknown executor {component['executorLabel']!r}"


def _executor_kinds(spec: Spec) -> Iterator[str]:
    for label, executor in spec.get("deploymentSpec", {}).get("executors", {}).items():
        if not isinstance(executor, Mapping) or not {"container", "importer"} & set(executor):
            kind = ", ".join(executor) if isinstance(executor, Mapping) else executor
            yield f"executor {label!r} is of the kind {kind or 'none'}"


def _executor_fields(spec: Spec) -> Iterator[str]:
    for label, executor in spec["deploymentSpec"].get("executors", {}).items():
        if any(not e.get("name") for e in executor.get("container", {}).get("env", ())):
            yield f"executor {label!r} has an environment variable without a name"
        if not isinstance(executor.get("importer", {}).get("artifactUri", {}).get("constant", ""), str):
            yield f"importer {label!r} has an address that is no text"
    for name, component in _components(spec):
        if any("field" not in f for f in component.get("taskConfigPassthroughs", ())):
            yield f"component {name!r} passes a task configuration on without saying which"


def _names(spec: Spec) -> Iterator[str]:
    for where, component in _components(spec):
        for way in ("inputDefinitions", "outputDefinitions"):
            for kind in ("parameters", "artifacts"):
                for name in _declared(component, way, kind):
                    if not name or len(name) > MAX_NAME or name in (".", "..") or {"/", "\\", "\0"} & set(name):
                        yield f"{where} has an input or output named {name[:80]!r}"


def _references(spec: Spec) -> Iterator[str]:
    for where, task, _, _ in _tasks(spec):
        name = task.get("componentRef", {}).get("name")
        if name not in spec.get("components", {}):
            yield f"task {where!r} calls the unknown component {name!r}"


def _sources(task: Spec) -> Iterator[tuple[str, Spec, str]]:
    for kind in ("parameters", "artifacts"):
        for name, source in task.get("inputs", {}).get(kind, {}).items():
            yield name, source, kind


def _producers(spec: Spec) -> Iterator[str]:
    for where, task, _, tasks in _tasks(spec):
        for name, source, kind in _sources(task):
            from_task = source.get("taskOutputParameter", source.get("taskOutputArtifact"))
            if from_task is not None:
                output = from_task.get("outputParameterKey") or from_task.get("outputArtifactKey")
                yield from _missing_output(spec, tasks, from_task.get("producerTask"), output, kind, f"{where}.{name}")
        for other in task.get("dependentTasks", ()):
            if other not in tasks:
                yield f"task {where!r} depends on the unknown task {other!r}"


def _missing_output(
    spec: Spec, tasks: Spec, producer: str | None, output: str | None, kind: str, where: str
) -> Iterator[str]:
    if producer is None or producer not in tasks:
        yield f"{where} reads the unknown task {producer!r}"
    elif output not in _declared(_callee(spec, tasks[producer]), "outputDefinitions", kind):
        yield f"{where} reads {producer}.{output}, which is no output"


def _component_inputs(spec: Spec) -> Iterator[str]:
    for where, task, component, _ in _tasks(spec):
        for name, source, kind in _sources(task):
            wanted = source.get("componentInputParameter") or source.get("componentInputArtifact")
            if wanted and wanted not in _declared(component, "inputDefinitions", kind):
                yield f"{where}.{name} reads the unknown input {wanted!r}"
            if kind == "artifacts" and not {"componentInputArtifact", "taskOutputArtifact"} & set(source):
                yield f"{where}.{name} reads nothing"


def _arguments(spec: Spec) -> Iterator[str]:
    for where, task, _, _ in _tasks(spec):
        callee = _callee(spec, task)
        items = {task[i].get("itemInput", "") for i in ("parameterIterator", "artifactIterator") if i in task}
        for kind in ("parameters", "artifacts"):
            given = task.get("inputs", {}).get(kind, {})
            for name, declared in _declared(callee, "inputDefinitions", kind).items():
                optional = declared.get("isOptional") or "defaultValue" in declared
                if name not in given and name not in items and not optional:
                    yield f"task {where!r} misses the input {name!r}"


def _outputs(spec: Spec) -> Iterator[str]:
    for dag, component, tasks in _dags(spec):
        outputs = component["dag"].get("outputs", {})
        for name, output in outputs.get("parameters", {}).items():
            for s in output.get("valueFromOneof", {}).get("parameterSelectors") or [
                output.get("valueFromParameter", {})
            ]:
                producer, key = s.get("producerSubtask"), s.get("outputParameterKey")
                yield from _missing_output(spec, tasks, producer, key, "parameters", f"output {dag}.{name}")
        for name, output in outputs.get("artifacts", {}).items():
            for s in output.get("artifactSelectors", ()):
                producer, key = s.get("producerSubtask"), s.get("outputArtifactKey")
                yield from _missing_output(spec, tasks, producer, key, "artifacts", f"output {dag}.{name}")


def _final_statuses(spec: Spec) -> Iterator[str]:
    for where, task, _, tasks in _tasks(spec):
        for name, source, _ in _sources(task):
            producer = source.get("taskFinalStatus", {}).get("producerTask")
            if "taskFinalStatus" in source and producer not in tasks:
                yield f"{where}.{name} asks how the unknown task {producer!r} ended"


def _iterators(spec: Spec) -> Iterator[str]:
    for where, task, _, _ in _tasks(spec):
        for iterator, kind, key in (
            ("parameterIterator", "parameters", "inputParameter"),
            ("artifactIterator", "artifacts", "inputArtifact"),
        ):
            items = task.get(iterator, {}).get("items", {})
            if iterator in task and "raw" not in items and items.get(key) not in task.get("inputs", {}).get(kind, {}):
                yield f"task {where!r} loops over {items.get(key)!r}, which is no input of it"
            item = task.get(iterator, {}).get("itemInput")
            if iterator in task and item not in _declared(_callee(spec, task), "inputDefinitions", kind):
                yield f"task {where!r} gives its items to {item!r}, which is no input of its component"


def _constants(spec: Spec) -> Iterator[str]:
    for where, task, _, _ in _tasks(spec):
        for name, source, _ in _sources(task):
            constant = source.get("runtimeValue", {}).get("constant")
            if forms := {p.form for p in placeholders_in(constant)} - {"input_parameter", "context"}:
                yield f"{where}.{name} is a constant that holds {', '.join(sorted(forms))}"


def _channels(spec: Spec) -> Iterator[str]:
    """Places where kfp's compiler left the text of a pipeline channel as it stands, which would run as that text."""
    for where, task, _, _ in _tasks(spec):
        if _CHANNEL in task.get("parameterIterator", {}).get("items", {}).get("raw", ""):
            yield f"the items of loop {where!r} hold an f-string"
        for name, source, _ in _sources(task):
            if _CHANNEL in str(source.get("runtimeValue", {}).get("constant", "")):
                yield f"{where}.{name} holds an f-string"
    for label, executor in spec.get("deploymentSpec", {}).get("executors", {}).items():
        container, importer = executor.get("container", {}), executor.get("importer", {})
        if any(_CHANNEL in e.get("value", "") for e in container.get("env", ())):
            yield f"an environment variable of {label!r} holds an f-string"
        if _CHANNEL in str(importer):
            yield f"the importer {label!r} holds an f-string"


def _cycles(spec: Spec) -> Iterator[str]:
    for dag, _, tasks in _dags(spec):
        try:
            TopologicalSorter({name: _upstream(task) & tasks.keys() for name, task in tasks.items()}).prepare()
        except CycleError as e:
            yield f"the tasks {', '.join(sorted(set(e.args[1]))[:5])} of {dag!r} wait for each other"


def _upstream(task: Spec) -> set[str]:
    found = set(task.get("dependentTasks", ()))
    for _, source, _ in _sources(task):
        for way in ("taskOutputParameter", "taskOutputArtifact", "taskFinalStatus"):
            found |= {source[way].get("producerTask", "")} if way in source else set()
    return found


RULES: tuple[tuple[str, str, Rule], ...] = (
    ("ir-incomplete", "A pipeline has a name and a root.", _whole),
    ("ir-version", "schemaVersion 2.x, what kfp 2 writes.", _version),
    ("ir-body", "A component is a dag of tasks or names one executor.", _bodies),
    (
        "ir-executor-kind",
        "Executors are containers and importers; resolver and customJob run on no engine.",
        _executor_kinds,
    ),
    ("ir-name", f"Names of inputs and outputs become files: at most {MAX_NAME} characters, no / and no \\.", _names),
    ("ir-executor", "Environment variables have names, addresses to import are text.", _executor_fields),
    ("ir-component", "A task calls a component of the same spec.", _references),
    ("ir-producer", "A task reads declared outputs of its sibling tasks.", _producers),
    (
        "ir-input",
        "A task reads declared inputs of the component around it. (kfp 2.17 compiles loop items in some f-strings wrongly: "
        "pass the item as an argument of its own.)",
        _component_inputs,
    ),
    ("ir-argument", "Every input without a default gets an argument.", _arguments),
    ("ir-output", "A dag's outputs are outputs of its own tasks.", _outputs),
    ("ir-final-status", "A final status is that of a sibling task.", _final_statuses),
    ("ir-iterator", "A loop runs over constant items or over an input of its task.", _iterators),
    (
        "ir-constant",
        "A constant may hold input parameters and names of the run, known before the step starts.",
        _constants,
    ),
    (
        "ir-channel",
        "kfp does not compile f-strings of task outputs and parameters here: pass the value as an argument of its own.",
        _channels,
    ),
    ("ir-cycle", "Tasks form no cycle.", _cycles),
)
