"""Templates and tasks as documents: defaults merged in, inputs filled, references followed."""

import copy
import re
from collections.abc import Mapping
from typing import Any

from tests.engines.argo.expression import evaluate
from tests.engines.argo.govalue import ExpressionError, go_json
from tests.engines.argo.node import ControllerError, Document
from tests.engines.argo.substitution import Values, expanded, replaced

ABSENT = "__argo__internal__absent__"  # an argument that is to count as not given


def with_texts(document: Any) -> Any:
    """A spec whose parameters are text, as Argo's AnyString makes them."""
    if isinstance(document, dict):
        for key in ("value", "default"):
            if isinstance(document.get(key), int | float):
                document[key] = go_json(document[key])
        return {k: v if k in ("withItems", "env") else with_texts(v) for k, v in document.items()}
    return [with_texts(d) for d in document] if isinstance(document, list) else document


def global_values(workflow: Document, spec: Document, arguments: Mapping[str, str]) -> dict[str, Any]:
    """``workflow.…``, with the arguments also put into the spec."""
    metadata = workflow["metadata"]
    found = {
        "workflow.name": metadata["name"],
        "workflow.uid": "00000000-0000-4000-8000-000000000000",
        "workflow.status": "Running",
    }
    found |= {"workflow.namespace": metadata.get("namespace", "default"), "workflow.mainEntrypoint": spec["entrypoint"]}
    found["workflow.serviceAccountName"] = spec.get("serviceAccountName", "")
    found["workflow.creationTimestamp"] = metadata.get("creationTimestamp", "2026-01-01T00:00:00Z")
    parameters = spec.setdefault("arguments", {}).setdefault("parameters", [])
    for name, value in arguments.items():
        parameters[:] = [p for p in parameters if p["name"] != name] + [{"name": name, "value": value}]
    if parameters:
        found["workflow.parameters"] = go_json(parameters)
    found |= {f"workflow.parameters.{p['name']}": p["value"] for p in parameters}
    for kind in ("labels", "annotations"):
        found |= {f"workflow.{kind}.{k}": v for k, v in metadata.get(kind, {}).items()}
    return found


def merged(under: Any, over: Any) -> Any:
    """A strategic merge: maps by key, lists of named things by name, anything else is replaced."""
    if isinstance(under, dict) and isinstance(over, dict):
        return {**under, **{k: merged(under[k], v) if k in under else v for k, v in over.items()}}
    key = next((k for k in ("mountPath", "name") if is_keyed(under, k) and is_keyed(over, k)), None)
    if key is None:
        return over
    names = [o[key] for o in over]
    both = {u[key]: u for u in under}
    return [merged(both[o[key]], o) if o[key] in both else o for o in over] + [u for u in under if u[key] not in names]


def is_keyed(value: Any, key: str) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and key in v for v in value)


def processed(template: Document, arguments: Document, values: Values) -> Document:
    """A template with its inputs filled and all known tags replaced (ProcessArgs)."""
    template = copy.deepcopy(template)
    given = {p["name"]: p.get("value") for p in arguments.get("parameters", ())}
    for parameter in template.get("inputs", {}).get("parameters", ()):
        name, default = parameter["name"], parameter.get("default")
        value = given.get(name, parameter.get("value", default))
        if value == ABSENT and default is None:
            raise ControllerError(f"inputs.parameters.{name}: argument references an absent optional")
        parameter["value"] = default if value == ABSENT else value
        if parameter["value"] is None:
            raise ControllerError(f"inputs.parameters.{name} was not supplied")
    passed = {a["name"]: a for a in arguments.get("artifacts", ())}
    for artifact in template.get("inputs", {}).get("artifacts", ()):
        if artifact["name"] in passed:
            artifact["at"] = passed[artifact["name"]]["at"]
        elif not artifact.get("optional") and not set(artifact) & {"s3", "raw", "http"}:
            raise ControllerError(f"inputs.artifacts.{artifact['name']} was not supplied")
    return substituted(template, values)


def substituted(template: Document, values: Values) -> Document:
    """First what is global, then the inputs, which may by then hold other text (SubstituteParams)."""
    template = replaced(template, values)
    parameters = template.get("inputs", {}).get("parameters", [])
    inputs = {f"inputs.parameters.{p['name']}": p["value"] for p in parameters}
    made: Document = replaced(template, {**values, **inputs, "inputs.parameters": go_json(parameters)})
    return made


NAME = re.compile(r"([a-zA-Z0-9][-a-zA-Z0-9]*?\.[A-Z][a-zA-Z]+)|([a-zA-Z0-9][-a-zA-Z0-9]*)")


def depends_logic(task: Document, tasks: Mapping[str, Document]) -> tuple[str, list[str]]:
    """The condition with plain names written out, and the tasks in it (common/ancestry.go)."""
    logic, before = task.get("depends") or " && ".join(task.get("dependencies", ())), dict[str, None]()

    def written_out(found: re.Match[str]) -> str:
        name = found[0].split(".")[0]
        before[name] = None
        if name not in tasks:
            raise ControllerError(f"target {name} does not exist")
        return found[0] if found[1] else f"({name}.Succeeded || {name}.Skipped || {name}.Daemoned)"

    return NAME.sub(written_out, logic), list(before)


def should_execute(when: str) -> bool:
    """``when`` after its tags were replaced: true, false, or a comparison in which bare words are strings (govaluate)."""
    if not when:
        return True
    words = {
        w: w for w in re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^']*'|\"[^\"]*\"", "", when)) if w not in ("true", "false")
    }
    try:
        value = evaluate(when, words)
    except (ExpressionError, NotImplementedError) as e:
        raise ControllerError(f"Invalid 'when' expression '{when}': {e}") from None
    if not isinstance(value, bool):
        raise ControllerError(f"Expected boolean evaluation for '{when}'. Got {value}")
    return value


def absent_reference(value: str | None, scope: Values) -> bool:
    """Whether an argument is nothing but a reference to an output of a task that did not run."""
    if value is None or not value.startswith("{{") or not value.endswith("}}"):
        return False
    name = value[2:-2].strip()
    return name in scope and scope[name] is None


def referred(text: str, scope: Values) -> Any:
    """What a ``{{tag}}`` that is the whole of a field refers to; nil is an absent optional (resolveVar)."""
    tag = text.strip().removeprefix("{{").removesuffix("}}").strip()
    if tag.startswith("="):
        return evaluate(tag[1:], {k: v for k, v in scope.items() if "." not in k})
    if tag not in scope:
        raise ControllerError(f'Unable to resolve: "{tag}"')
    return scope[tag]


def resolve_artifacts(holder: Document, scope: Values) -> None:
    """Put in place of references to artifacts what they refer to; optional ones that are not there go."""
    kept = []
    for artifact in holder.get("artifacts", ()):
        try:
            if "fromExpression" in artifact:
                found = evaluate(artifact["fromExpression"], expanded(scope))
            elif "from" in artifact:
                found = referred(artifact["from"], scope)
            else:
                found = artifact
        except ControllerError:
            if artifact.get("optional"):
                continue
            raise
        except ExpressionError as e:
            raise ControllerError(f"unable to resolve outputs from scope: {e}") from None
        if not isinstance(found, dict):
            raise ControllerError(f"Variable {artifact} is not an artifact")
        kept.append({**artifact, "at": found.get("at")})
    if kept or holder.get("artifacts"):
        holder["artifacts"] = kept
