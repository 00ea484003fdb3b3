"""Build the plan of a checked PipelineSpec: small functions, one per part of the IR."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.errors import DefinitionError
from tidegate.ir import condition, placeholder
from tidegate.plan import value
from tidegate.plan.model import (
    ArtifactSlot,
    Component,
    Constant,
    Container,
    Dag,
    Executor,
    FinalStatus,
    FromInput,
    FromTask,
    Importer,
    Interface,
    Loop,
    Parameter,
    Plan,
    Retry,
    Source,
    Task,
)

_SELECTOR = re.compile(r"parseJson\(string_value\)((?:\[(?:\"[^\"]*\"|'[^']*')\])+)")
_KEYS = re.compile(r"\[(?:\"([^\"]*)\"|'([^']*)')\]")
_DEPRECATED_TYPES = {"INT": value.INTEGER, "DOUBLE": value.DOUBLE, "STRING": value.STRING}
_INPUT_KINDS = {"taskOutputParameter", "componentInputParameter", "runtimeValue"}
MAX_NESTING = 64


@dataclass
class _Build:
    spec: Mapping[str, Any]
    kubernetes: Mapping[str, Any] = field(default_factory=dict)
    executors: dict[str, Executor] = field(default_factory=dict)
    components: dict[str, Component] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)


def build(spec: Mapping[str, Any], platforms: Mapping[str, Any] | None = None) -> Plan:
    """Return the plan of a PipelineSpec that ``ir.check`` accepts, with the settings of kfp's platform document.

    Raises:
        DefinitionError: a condition, selector or nesting that cannot be understood.
    """
    kubernetes = (platforms or {}).get("kubernetes", {})
    state = _Build(spec, _executor_settings(spec, kubernetes))
    root = _component(state, "root", spec["root"])
    whole = digest([spec, platforms]) if platforms else digest(spec)
    return Plan(spec["pipelineInfo"]["name"], whole, root, state.executors, kubernetes.get("pipelineConfig", {}))


def _executor_settings(spec: Mapping[str, Any], kubernetes: Mapping[str, Any]) -> dict[str, Any]:
    inside = [s for c in spec.get("components", {}).values() for s in c.get("singlePlatformSpecs", ())]
    found = [*(s for s in inside if s.get("platform") == "kubernetes"), kubernetes]
    return {n: e for s in found for n, e in s.get("deploymentSpec", {}).get("executors", {}).items()}


def digest(spec: Any) -> str:
    """``sha256:`` of any JSON value in canonical form."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _component(state: _Build, name: str, spec: Mapping[str, Any]) -> Component:
    if name in state.components:
        return state.components[name]
    if name in state.open or len(state.open) >= MAX_NESTING:
        raise DefinitionError(
            f"component {name!r} contains itself, or is nested more than {MAX_NESTING} deep", code="ir-nesting"
        )
    state.open.append(name)
    body = _dag(state, spec["dag"]) if "dag" in spec else _executor(state, spec)
    state.open.pop()
    made = Component(name, _interface(spec), body)
    state.components[name] = made
    return made


def _interface(spec: Mapping[str, Any]) -> Interface:
    given, made = spec.get("inputDefinitions", {}), spec.get("outputDefinitions", {})
    return Interface(
        {n: _parameter(n, p) for n, p in given.get("parameters", {}).items()},
        {n: _slot(a) for n, a in given.get("artifacts", {}).items()},
        {n: _parameter(n, p) for n, p in made.get("parameters", {}).items()},
        {n: _slot(a) for n, a in made.get("artifacts", {}).items()},
    )


def _parameter(name: str, spec: Mapping[str, Any]) -> Parameter:
    type_ = spec.get("parameterType") or _DEPRECATED_TYPES[spec.get("type", "STRING")]
    default = spec.get("defaultValue")
    if default is not None and not placeholder.placeholders_in(default):
        default = value.coerce(_whole(default), type_, f"the default of parameter {name!r}")
    literals = tuple(value.coerce(v, type_, f"a literal of {name!r}") for v in spec.get("literals", ()))
    optional = bool(spec.get("isOptional")) or "defaultValue" in spec
    return Parameter(type_, optional, default, literals)


def _slot(spec: Mapping[str, Any]) -> ArtifactSlot:
    return ArtifactSlot(
        _type(spec.get("artifactType", {})), bool(spec.get("isOptional")), bool(spec.get("isArtifactList"))
    )


def _type(spec: Mapping[str, Any]) -> str:
    return f"{spec.get('schemaTitle') or 'system.Artifact'}@{spec.get('schemaVersion') or '0.0.1'}"


def _dag(state: _Build, spec: Mapping[str, Any]) -> Dag:
    outputs = spec.get("outputs", {})
    return Dag(
        {name: _task(state, name, task) for name, task in spec.get("tasks", {}).items()},
        {n: _parameter_selectors(o) for n, o in outputs.get("parameters", {}).items()},
        {n: _artifact_selectors(o) for n, o in outputs.get("artifacts", {}).items()},
    )


def _parameter_selectors(spec: Mapping[str, Any]) -> tuple[FromTask, ...]:
    chosen = spec.get("valueFromOneof", {}).get("parameterSelectors") or [spec["valueFromParameter"]]
    return tuple(FromTask(s["producerSubtask"], s["outputParameterKey"]) for s in chosen)


def _artifact_selectors(spec: Mapping[str, Any]) -> tuple[FromTask, ...]:
    return tuple(FromTask(s["producerSubtask"], s["outputArtifactKey"]) for s in spec.get("artifactSelectors", ()))


def _task(state: _Build, name: str, spec: Mapping[str, Any]) -> Task:
    ref = spec["componentRef"]["name"]
    component = _component(state, ref, state.spec["components"][ref])
    inputs, trigger = spec.get("inputs", {}), spec.get("triggerPolicy", {})
    parameters = {n: _parameter_source(n, s, component) for n, s in inputs.get("parameters", {}).items()}
    artifacts = {n: _artifact_source(s) for n, s in inputs.get("artifacts", {}).items()}
    settings = _settings(_kubernetes(state, state.spec["components"][ref])) if isinstance(component.body, str) else {}
    sources = (*parameters.values(), *artifacts.values(), *settings.values())
    upstream = [s.task for s in sources if isinstance(s, FromTask | FinalStatus)]
    caching = spec.get("cachingOptions", {})
    return Task(
        name,
        component,
        parameters,
        artifacts,
        after=tuple(dict.fromkeys([*spec.get("dependentTasks", ()), *upstream])),
        always=trigger.get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED",
        condition=condition.parse(trigger["condition"]) if trigger.get("condition") else None,
        loop=_loop(spec),
        retry=_retry(spec.get("retryPolicy", {})),
        cache=bool(caching.get("enableCache")),
        cache_key=caching.get("cacheKey", ""),
        settings=settings,
    )


def _settings(found: Any, place: str = "") -> dict[str, Source]:
    """The settings that are inputs: fields named ``…Parameter``, each an input specification of the task's own."""
    if isinstance(found, list):
        return {p: s for i, v in enumerate(found) for p, s in _settings(v, f"{place}{i}.").items()}
    if not isinstance(found, Mapping):
        return {}
    made: dict[str, Source] = {}
    for name, spec in found.items():
        if name.endswith("Parameter") and isinstance(spec, Mapping) and _INPUT_KINDS & set(spec):
            made[place + name] = _parameter_source(name, spec, None)
        else:
            made |= _settings(spec, f"{place}{name}.")
    return made


def _kubernetes(state: _Build, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = state.kubernetes.get(spec["executorLabel"], {})
    return found


def _parameter_source(name: str, spec: Mapping[str, Any], component: Component | None) -> Source:
    path = _path(spec.get("parameterExpressionSelector", ""))
    if "taskOutputParameter" in spec:
        source = spec["taskOutputParameter"]
        return FromTask(source["producerTask"], source["outputParameterKey"], path)
    if "componentInputParameter" in spec:
        return FromInput(spec["componentInputParameter"], path)
    if "taskFinalStatus" in spec:
        return FinalStatus(spec["taskFinalStatus"]["producerTask"])
    return _constant(name, spec.get("runtimeValue", {}), component)


def _constant(name: str, spec: Mapping[str, Any], component: Component | None) -> Constant:
    constant = spec["constant"] if "constant" in spec else _deprecated_constant(spec.get("constantValue", {}))
    constant = _whole(constant)
    if placeholder.placeholders_in(constant):
        return Constant(constant, has_placeholder=True)
    declared = component.interface.parameters.get(name) if component else None
    if declared and constant is not None:
        constant = value.coerce(constant, declared.type, f"the constant for {name!r}")
    return Constant(constant)


def _whole(constant: Any) -> Any:
    # the proto keeps every number as a double; like the KFP backend, a whole one is an integer again
    if isinstance(constant, float) and constant.is_integer() and abs(constant) <= 2**53:
        return int(constant)
    if isinstance(constant, Mapping):
        return {k: _whole(v) for k, v in constant.items()}
    return [_whole(v) for v in constant] if isinstance(constant, list) else constant


def _deprecated_constant(spec: Mapping[str, Any]) -> Any:
    if "intValue" in spec:
        return int(spec["intValue"])
    return next(iter(spec.values()), None)


def _path(selector: str) -> tuple[str, ...]:
    if not selector:
        return ()
    if not (found := _SELECTOR.fullmatch(selector.strip())):
        raise DefinitionError(
            f"the expression {selector[:120]!r} cannot be read",
            allowed='parseJson(string_value)["key"].',
            code="ir-selector",
        )
    return tuple(a or b for a, b in _KEYS.findall(found[1]))


def _artifact_source(spec: Mapping[str, Any]) -> Source:
    if "taskOutputArtifact" in spec:
        source = spec["taskOutputArtifact"]
        return FromTask(source["producerTask"], source["outputArtifactKey"])
    return FromInput(spec["componentInputArtifact"])


def _loop(spec: Mapping[str, Any]) -> Loop | None:
    limit = int(spec.get("iteratorPolicy", {}).get("parallelismLimit", 0))
    if "artifactIterator" in spec:
        over = spec["artifactIterator"]
        return Loop("artifact", over["itemInput"], source=over["items"]["inputArtifact"], limit=limit)
    if "parameterIterator" not in spec:
        return None
    over = spec["parameterIterator"]
    if "inputParameter" in over["items"]:
        return Loop("parameter", over["itemInput"], source=over["items"]["inputParameter"], limit=limit)
    return Loop("parameter", over["itemInput"], raw=tuple(_raw_items(over["items"].get("raw", ""))), limit=limit)


def _raw_items(text: str) -> list[Any]:
    try:
        items = json.loads(text)
    except ValueError:
        items = None
    if not isinstance(items, list):
        raise DefinitionError(f"the loop items {text[:120]!r} are no JSON list", code="ir-loop-items")
    return items


def _retry(spec: Mapping[str, Any]) -> Retry:
    if not spec:
        return Retry()
    return Retry(
        int(spec.get("maxRetryCount", 0)),
        _seconds(spec.get("backoffDuration", "0s")),
        float(spec.get("backoffFactor") or 2.0),
        min(_seconds(spec.get("backoffMaxDuration", "3600s")) or 3600.0, 3600.0),
    )


def _seconds(text: str) -> float:
    return float(text.removesuffix("s") or 0)


def _executor(state: _Build, component: Mapping[str, Any]) -> str:
    spec = state.spec["deploymentSpec"]["executors"][component["executorLabel"]]
    kubernetes = _kubernetes(state, component)
    passed = component.get("taskConfigPassthroughs", [])
    key = digest([spec, kubernetes, passed] if kubernetes or passed else spec)
    if key not in state.executors:
        state.executors[key] = (
            _container(spec["container"], kubernetes, passed) if "container" in spec else _importer(spec["importer"])
        )
    return key


def _container(spec: Mapping[str, Any], kubernetes: Mapping[str, Any], passed: list[Mapping[str, Any]]) -> Container:
    return Container(
        placeholder.parse(spec.get("image", "")),
        tuple(map(placeholder.parse, spec.get("command", ()))),
        tuple(map(placeholder.parse, spec.get("args", ()))),
        {e["name"]: placeholder.parse(e.get("value", "")) for e in spec.get("env", ())},
        spec.get("resources", {}),
        kubernetes,
        {f["field"]: bool(f.get("applyToTask")) for f in passed},
    )


def _importer(spec: Mapping[str, Any]) -> Importer:
    uri = spec.get("artifactUri", {})
    constant = uri["constant"] if "constant" in uri else uri.get("constantValue", {}).get("stringValue")
    return Importer(
        _type(spec.get("typeSchema", {})),
        placeholder.parse(constant) if constant is not None else None,
        uri.get("runtimeParameter", ""),
        _whole(spec.get("metadata", {})),
        bool(spec.get("reimport")),
    )
