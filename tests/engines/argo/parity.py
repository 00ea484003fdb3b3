"""What two engines must agree on: a run by value, whatever its names and times, and the inputs of each of its steps."""

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tidegate import api
from tidegate.engines.argo.pod import Pod
from tidegate.engines.argo.site import Site
from tidegate.engines.pod.context import WORKSPACE
from tidegate.engines.values import Values
from tidegate.errors import StepFailed
from tidegate.plan.events import FAILED, SKIPPED, SUCCEEDED
from tidegate.plan.model import Plan
from tidegate.store.runs import Runs, StepRecord

WORDS = {SUCCEEDED: "Succeeded", FAILED: "Failed", SKIPPED: "Skipped"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?")


def by_value(run: api.Run) -> dict[str, Any]:
    """A run without its own names and times: state, steps, outputs, digests, the code of its error."""
    outcome = run.outcome
    ran = {s.step: s.state for s in outcome.steps}  # a record may be of an earlier try of the dag around
    records = {r.path: r for r in Runs(run.store).steps(run.id) if _began(r) and ran.get(r.path) == r.state}
    found = {
        "state": run.state,
        "parameters": outcome.parameters,
        "artifacts": {n: [_artifact(a.as_json()) for a in found] for n, found in outcome.artifacts.items()},
        "steps": {s.step: s.state for s in outcome.steps},
        "error": {k: v for k, v in (outcome.error or {}).items() if k in ("code", "step")},
        "errors": {p: r.error["code"] for p, r in sorted(records.items()) if r.error},
        "inputs": {p: _values(r.inputs) for p, r in sorted(records.items())},
        "outputs": {p: _values(r.outputs) for p, r in sorted(records.items()) if r.state == SUCCEEDED},
    }
    text = json.dumps(found, sort_keys=True).replace(run.store.uri, "STORE").replace(run.id, "RUN")
    alike: dict[str, Any] = json.loads(TIME.sub("TIME", text))
    return alike


def differences(a: Any, b: Any, at: str = "") -> Iterator[str]:
    """Say where two JSON values differ; NaN is NaN here."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            yield from differences(a.get(key, "nothing"), b.get(key, "nothing"), f"{at}/{key}")
    elif json.dumps(a) != json.dumps(b):
        yield f"{at}: {json.dumps(a)[:300]} and {json.dumps(b)[:300]}"


def _began(record: StepRecord) -> bool:
    """Whether there was a pod: what was skipped, or had a condition without a truth value, is the controller's to say."""
    return record.state != SKIPPED and (record.error or {}).get("code") != "condition-error"


def _artifact(artifact: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in artifact.items() if k != "uri"}


def _values(body: Mapping[str, Any]) -> dict[str, Any]:
    artifacts = {n: [_artifact(a) for a in found] for n, found in body.get("artifacts", {}).items()}
    return {"parameters": body.get("parameters", {}), "artifacts": artifacts}


def check_traced(plan: Plan, run: api.Run) -> None:
    """Every step's pod, had there been one, would have found the inputs that the local engine gave it."""
    for record in filter(_began, Runs(run.store).steps(run.id)):
        found, wanted = _traced(plan, run, record), _recorded(record)
        assert found == wanted, f"{record.path}: {found[:300]} and {wanted[:300]}"


def _traced(plan: Plan, run: api.Run, record: StepRecord) -> str:
    site = Site(Pod(run.id, record.path, statuses=_statuses(record)), run.store)
    vars(site)["plan"] = plan
    try:
        return json.dumps(site.ready().inputs.as_json(), sort_keys=True)
    except StepFailed as e:
        return e.code


def _recorded(record: StepRecord) -> str:
    nothing = record.error and record.inputs == Values().as_json() and record.error["code"] == "input-missing"
    if record.error and nothing:
        return str(record.error["code"])
    return re.sub(r'"[^"]*/workspaces/[^"/]*', f'"{WORKSPACE}', json.dumps(record.inputs, sort_keys=True))


def _statuses(record: StepRecord) -> dict[str, str]:
    """How Argo would have put the ends of tasks that a step was told."""
    given = [v for v in record.inputs.get("parameters", {}).values() if isinstance(v, dict)]
    return {v["pipelineTaskName"]: WORDS[v["state"]] for v in given if "pipelineTaskName" in v and v["state"] in WORDS}


@contextlib.contextmanager
def undone(folder: Path, beside: Path) -> Iterator[None]:
    """Take back what happens to the files in a folder, so that a second run begins as the first did."""
    beside = Path(tempfile.mkdtemp(dir=beside)) / "was"
    shutil.copytree(folder, beside, symlinks=True)
    try:
        yield
    finally:
        for there in folder.iterdir():
            shutil.rmtree(there) if there.is_dir() and not there.is_symlink() else there.unlink()
        shutil.copytree(beside, folder, symlinks=True, dirs_exist_ok=True)
