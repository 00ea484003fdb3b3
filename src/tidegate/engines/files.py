"""The files of one step: kfp's executor input going in, its executor output coming out.

A step has a scratch folder of its own::

    inputs/<name>/<i>/<artifact name>   a private copy of each input artifact, checked while it was copied
    outputs/<name>                      where output artifacts are written
    outputs/executor_output.json        what kfp's executor leaves
    parameters/<name>                   OutputPath parameters
    outputs/error.json                  what a step that failed leaves

Beside the folder, ``<id>.log`` takes what the step writes, attempt after attempt.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidegate.author.command import ERROR_FILE
from tidegate.engines.raised import raised
from tidegate.engines.values import Values
from tidegate.errors import ParameterError, StepFailed
from tidegate.plan.model import Interface
from tidegate.plan.value import BOOLEAN, Artifact, coerce
from tidegate.store.blobs import Blobs

OUTPUT_FILE = "outputs/executor_output.json"
_NO_SPACE = 1 << 16
_LOG_END = 1 << 16


def executor_input(interface: Interface, inputs: Values, folder: Path, blobs: Blobs) -> dict[str, Any]:
    """Copy the input artifacts into the step's folder and write down where everything is, as kfp's ExecutorInput."""
    for part in ("inputs", "outputs", "parameters"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return {
        "inputs": {
            "parameterValues": dict(inputs.parameters),
            "artifacts": {
                name: {"artifacts": [_given(a, folder / "inputs" / name / str(i), blobs) for i, a in enumerate(found)]}
                for name, found in inputs.artifacts.items()
            },
        },
        "outputs": {
            "outputFile": str(folder / OUTPUT_FILE),
            "parameters": {n: {"outputFile": str(folder / "parameters" / n)} for n in interface.output_parameters},
            "artifacts": {
                name: {"artifacts": [_runtime(name, str(folder / "outputs" / name), slot.type, {})]}
                for name, slot in interface.output_artifacts.items()
            },
        },
    }


def _given(artifact: Artifact, folder: Path, blobs: Blobs) -> dict[str, Any]:
    uri = artifact.uri
    if artifact.digest:
        folder.mkdir(parents=True)
        path = folder / (Path(artifact.name).name or "artifact")
        blobs.fetch(artifact.digest, path, kind=artifact.kind)
        uri = str(path)
    return _runtime(artifact.name, uri, artifact.type, artifact.metadata)


def _runtime(name: str, uri: str, type_: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    title, _, version = type_.partition("@")
    kind = {"schemaTitle": title, "schemaVersion": version}
    return {"name": name, "uri": uri, "type": kind, "metadata": dict(metadata)}


def collect(interface: Interface, provisioned: Mapping[str, Any], blobs: Blobs, within: Path | None = None) -> Values:
    """Read what a step that ended well left: output parameters by declared type, artifacts into the store.

    Args:
        interface: what the step declares.
        provisioned: where it was told to leave it.
        blobs: where the bytes go.
        within: the only folder that is read, where the step has not the rights of whoever reads: a link or a path
            that leads out of it is refused.

    Raises:
        StepFailed: an output parameter is missing or of another type than declared, what the step left cannot be
            read (code ``output-unreadable``), or a path leads out of the folder (``output-outside``).
    """
    try:
        return _collect(interface, provisioned, blobs, within)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        found = f"what the step left cannot be read: {type(e).__name__}: {e}"
        raise StepFailed(found, code="output-unreadable") from e


def _collect(interface: Interface, provisioned: Mapping[str, Any], blobs: Blobs, within: Path | None) -> Values:
    outputs = provisioned["outputs"]
    file = _inside(Path(outputs["outputFile"]), within)
    written = json.loads(file.read_text()) if file.exists() else {}
    parameters = {
        name: _parameter(name, declared.type, written.get("parameterValues", {}), outputs["parameters"][name], within)
        for name, declared in interface.output_parameters.items()
    }
    artifacts = {
        name: [
            _made(name, slot.type, a, outputs["artifacts"][name]["artifacts"][0], blobs, within)
            for a in _written(written, name, outputs)[: None if slot.is_list else 1]
        ]
        for name, slot in interface.output_artifacts.items()
    }
    return Values(parameters, artifacts)


def _inside(path: Path, within: Path | None) -> Path:
    if within and not path.resolve().is_relative_to(within.resolve()):
        raise StepFailed(
            f"what the step left at {path} leads out of its folder",
            allowed=f"Files below {within}, and no links to others.",
            code="output-outside",
        )
    return path


def _parameter(
    name: str, type_: str, written: Mapping[str, Any], provisioned: Mapping[str, str], within: Path | None
) -> Any:
    path = _inside(Path(provisioned["outputFile"]), within)
    if name in written:
        value = written[name]
    elif path.exists():
        value = _from_text(path.read_bytes().decode(), type_)
    else:
        raise StepFailed(f"the output parameter {name!r} was not written", code="output-missing")
    try:
        return coerce(value, type_, f"the output parameter {name!r}")
    except ParameterError as e:
        raise StepFailed(e.found, allowed=e.allowed, code="output-type") from e


def _from_text(text: str, type_: str) -> Any:
    # booleans as KFP's launcher reads them from a file (Go's strconv.ParseBool)
    words = {**dict.fromkeys(("1", "t", "true"), True), **dict.fromkeys(("0", "f", "false"), False)}
    return words.get(text.strip().lower(), text) if type_ == BOOLEAN else text


def _written(written: Mapping[str, Any], name: str, outputs: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Mapping[str, Any] = written.get("artifacts", {}).get(name) or outputs["artifacts"][name]
    artifacts: Sequence[Mapping[str, Any]] = found["artifacts"]
    return artifacts


def _made(
    name: str, type_: str, said: Mapping[str, Any], given: Mapping[str, Any], blobs: Blobs, within: Path | None
) -> Artifact:
    uri, metadata = said.get("uri") or given["uri"], {**given["metadata"], **said.get("metadata", {})}
    path = Path(said.get("custom_path") or uri)
    if not path.exists():
        # metrics live in metadata; an address elsewhere (s3://…) that the user's code set is kept as it is
        return Artifact(name, "" if uri == given["uri"] else uri, type_, metadata=metadata)
    content = blobs.add(_inside(path, within))
    return Artifact(name, blobs.uri(content.digest), type_, content.digest, content.kind, content.size, metadata)


def failure(folder: Path, log: Path, code: int) -> dict[str, Any]:
    """Say why a step failed: what its Python code left, else how its process ended and the end of its log."""
    with contextlib.suppress(OSError, ValueError, KeyError, StepFailed):  # none, or half of one on a full disk
        said: dict[str, Any] = json.loads(_inside(folder / "outputs" / ERROR_FILE, folder).read_text())
        if inner := said.get("tidegate"):
            return {**inner}
        return {"code": "step-failed", "message": f"{said['type']}: {said['message']}", "frames": said["frames"]}
    text = log.read_bytes()[-_LOG_END:].decode(errors="replace").strip()
    if code == 1 and (found := raised(text)):
        return _with_room({"code": "step-failed", "message": found.said, "frames": [*found.frames]}, folder)
    how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
    died, tail = "step-died" if code < 0 else "step-failed", text[-2000:].splitlines()[-5:]
    return _with_room({"code": died, "message": f"the step {how}", "tail": tail}, folder)


def _with_room(error: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Say where there is no space left: it may well be why."""
    if shutil.disk_usage(folder).free >= _NO_SPACE:
        return error
    found = f"{error['message']}; there is no space left in {folder}"
    return {**error, "message": found, "hint": "Free space there, or set TMPDIR to another folder."}
