"""Run one component function in a temporary folder with real artifacts, for its unit test.

::

    def test_training_learns(tmp_path):
        result = run_component(train, tmp_path, data=artifact(Dataset, "tests/data/iris"), label="species")
        assert result.artifacts["model"].path.joinpath("model.onnx").exists()
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.errors import DefinitionError


@dataclass(frozen=True)
class Artifact:
    """A file or folder with kfp metadata, as an input or an output of a component under test."""

    path: Path
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What the component gave back: parameters by name (a single return is ``Output``), artifacts by name."""

    outputs: Mapping[str, Any]
    artifacts: Mapping[str, Artifact]


def run_component(component: Any, folder: Path, /, **inputs: Any) -> Result:
    """Run a component's function through kfp's executor, in this process.

    Args:
        component: what ``@tidegate.component`` or ``@dsl.component`` made.
        folder: an empty folder for the outputs, such as pytest's ``tmp_path``.
        inputs: parameters as values; artifacts as paths or ``Artifact``; a list of them for a list input.

    Raises:
        DefinitionError: an input that the component does not have, or a missing one.
    """
    from kfp.dsl.executor import Executor

    spec = component.component_spec
    _check_inputs(spec, inputs)
    given = {
        name: inputs.get(name, declared.default)
        for name, declared in (spec.inputs or {}).items()
        if inputs.get(name, declared.default) is not None
    }
    root = folder / component.name
    if root.exists():
        shutil.rmtree(root)
    parameters = {k: v for k, v in given.items() if _is_parameter(spec.inputs[k])}
    artifacts = {k: _runtime(k, v, spec.inputs[k].type) for k, v in given.items() if k not in parameters}
    executor_input = {
        "inputs": {"parameterValues": parameters, "artifacts": artifacts},
        "outputs": _outputs(spec, root),
    }
    Executor(executor_input=executor_input, function_to_execute=component.python_func).execute()
    return _collect(executor_input["outputs"])


def _is_parameter(declared: Any) -> bool:
    from kfp.dsl.types.type_utils import is_parameter_type

    return bool(is_parameter_type(declared.type))


def _check_inputs(spec: Any, inputs: Mapping[str, Any]) -> None:
    known = spec.inputs or {}
    if unknown := sorted(set(inputs) - set(known)):
        raise DefinitionError(f"{spec.name} has no input {unknown[0]!r}", allowed=f"Its inputs: {', '.join(known)}.")
    if missing := sorted(n for n, d in known.items() if n not in inputs and not d.optional):
        raise DefinitionError(f"{spec.name} needs the input {missing[0]!r}")


def _runtime(name: str, value: Any, type_: str) -> dict[str, Any]:
    values = value if isinstance(value, list) else [value]
    return {"artifacts": [_runtime_one(name, v, type_) for v in values]}


def _runtime_one(name: str, value: Any, type_: str) -> dict[str, Any]:
    path = Path(getattr(value, "path", value)).resolve()
    title, _, version = type_.partition("@")
    return {
        "name": name,
        "uri": str(path),
        "type": {"schemaTitle": title, "schemaVersion": version},
        "metadata": dict(getattr(value, "metadata", {})),
    }


def _outputs(spec: Any, root: Path) -> dict[str, Any]:
    declared = spec.outputs or {}
    parameters = [n for n, d in declared.items() if _is_parameter(d)]
    return {
        "outputFile": str(root / "executor_output.json"),
        "parameters": {n: {"outputFile": str(root / "parameters" / n)} for n in parameters},
        "artifacts": {n: _runtime(n, root / n, d.type) for n, d in declared.items() if n not in parameters},
    }


def _collect(outputs: Mapping[str, Any]) -> Result:
    path = Path(outputs["outputFile"])
    written = json.loads(path.read_text()) if path.exists() else {}
    parameters = dict(written.get("parameterValues", {}))
    for name, where in outputs["parameters"].items():
        if name not in parameters and Path(where["outputFile"]).exists():
            parameters[name] = Path(where["outputFile"]).read_text()
    artifacts = {
        name: Artifact(Path(a["artifacts"][0]["uri"]), a["artifacts"][0].get("metadata", {}))
        for name, a in {**outputs["artifacts"], **written.get("artifacts", {})}.items()
    }
    return Result(parameters, artifacts)
