"""What a pod of a run is told by its environment, and where its files are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.plan.events import FAILED, RUNNING, SUCCEEDED

STATES = {"Succeeded": SUCCEEDED, "Failed": FAILED, "Error": FAILED, "Running": RUNNING}  # by Argo's words
FOLDER = "/tidegate"
PLAN = "/tidegate-plan/plan"
SHIM = "/opt/tidegate/shim"


@dataclass(frozen=True)
class Pod:
    """One pod of a run.

    Attributes:
        run_id: the run, which is the Workflow's name.
        step: the step's path.
        folder: the volume that the pod's containers share.
        plan: the file with the packed definition.
        arguments: the run's parameters as Argo lists them.
        control: what Argo wants to know of the outputs: file -> (``parameter`` or ``artifact``, output, need).
        statuses: how tasks ended that the step asks about, by name, in Argo's words.
        attempt: 0 for the first try.
        created: when the Workflow was created, ISO 8601; what a step recorded before was recorded by the run that
            this one goes on with.
        phase: how the Workflow ended, for the pod that ends it.
        shim: the shim in the launcher's image.
    """

    run_id: str
    step: str = ""
    folder: Path = Path(FOLDER)
    plan: Path = Path(PLAN)
    arguments: Mapping[str, str] = field(default_factory=dict)
    control: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    statuses: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0
    created: str = ""
    phase: str = ""
    shim: Path = Path(SHIM)


def read_pod(env: Mapping[str, str] = os.environ) -> Pod:
    """Read what this pod was told."""
    return Pod(
        env["TIDEGATE_RUN_ID"],
        env.get("TIDEGATE_STEP", ""),
        Path(env.get("TIDEGATE_FOLDER") or FOLDER),
        Path(env.get("TIDEGATE_PLAN") or PLAN),
        {p["name"]: p.get("value", "null") for p in json.loads(env.get("TIDEGATE_ARGUMENTS") or "[]")},
        {file: tuple(said) for file, said in _json(env, "TIDEGATE_CONTROL").items()},
        _json(env, "TIDEGATE_STATUSES"),
        int(env.get("TIDEGATE_ATTEMPT") or 0),
        env.get("TIDEGATE_CREATED", ""),
        env.get("TIDEGATE_PHASE", ""),
    )


def _json(env: Mapping[str, str], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(env.get(name) or "{}")
    return found
