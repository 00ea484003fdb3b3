"""What a Workflow's status says of its steps, as Argo keeps it."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tidegate.engines.argo import stuck
from tidegate.engines.argo.cluster import Object
from tidegate.engines.argo.pod import STATES
from tidegate.plan.events import RUNNING

OTHER, TERMINATED, KILLED = "pod-failed", "step-terminated", "pod-killed"
STEP_TIMEOUT, RUN_TIMEOUT = "step-timeout", "run-timeout"
_ROUNDED_SECONDS = 2  # Argo gives a pod what the run has left in whole seconds, and keeps times in such
_CAUSES = {
    "Step exceeded its deadline": RUN_TIMEOUT,  # the Workflow's: a pod's own is worded otherwise
    "exceeded quota": "pod-quota",
    "is forbidden": "pod-refused",
    "CreateContainer": "pod-config",
    "EmptyDir volume": "pod-lost",
    "low on resource": "pod-lost",
    "OOMKilled": "step-memory",
    "DeadlineExceeded": STEP_TIMEOUT,
    "deadline": STEP_TIMEOUT,
    "ErrImage": "argo-image",
    "ImagePull": "argo-image",
    "InvalidImage": "argo-image",
    "pod deleted": "pod-lost",
    "(exit code 143)": "step-terminated",
    "Evicted": "pod-lost",
    "(exit code 137)": "pod-killed",
}
_TOLD = {
    TERMINATED: "; it was told to end: its pod was deleted, or the run was stopped",
    KILLED: "; it was killed: its pod was deleted and did not end in time, or its node lacked memory or went away",
}


@dataclass(frozen=True)
class Node:
    """One pod of a run, or all tries of one."""

    id: str
    step: str
    phase: str
    template: str
    message: str = ""
    tries: bool = False
    finished: str = ""

    @property
    def pod(self) -> str:
        """The pod's name, as Argo makes it of the Workflow's, the template's and the node's."""
        workflow, _, number = self.id.rpartition("-")
        return f"{workflow}-{self.template}-{number}"

    @property
    def state(self) -> str:
        """The step's state; empty before it starts."""
        return STATES.get(self.phase, "")

    @property
    def stuck(self) -> str:
        """Why the pod cannot start before somebody mends something; empty while it can."""
        return self.message if self.phase == "Pending" and stuck.waits(self.message) else ""


def raw_nodes(workflow: Object) -> Mapping[str, Any]:
    """The nodes of a Workflow by id, also where Argo compressed them."""
    status = workflow.get("status", {})
    if packed := status.get("compressedNodes"):
        found: Mapping[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed)))
        return found
    nodes: Mapping[str, Any] = status.get("nodes") or {}
    return nodes


def steps(workflow: Object) -> dict[str, Node]:
    """The steps of a Workflow by path: of a step that is tried again all tries together, in a dag that is the last."""
    found: dict[str, Node] = {}
    for node in _steps(workflow):
        known = found.get(node.step)
        if not known or node.tries or not known.tries:
            found[node.step] = node
    return found


def running(workflow: Object) -> Iterator[Node]:
    """The pods that run now, each try of a step by itself."""
    return (n for n in _steps(workflow) if n.state == RUNNING and not n.tries)


def path_of(workflow: Object, node: str) -> str:
    """The path of the step whose pod, or one of its pods, a node is; empty where there is none."""
    return next((n.step for n in _steps(workflow) if n.id == node), "")


def _steps(workflow: Object) -> Iterator[Node]:
    for id_, node in sorted(raw_nodes(workflow).items(), key=lambda found: found[1].get("startedAt") or ""):
        given = {p["name"]: p.get("value") for p in node.get("inputs", {}).get("parameters", ())}
        if "step" in given and node.get("type") in ("Pod", "Retry"):
            yield Node(
                id_, str(given["step"]), node.get("phase", ""), node.get("templateName", ""), node.get("message", ""),
                node["type"] == "Retry", node.get("finishedAt") or "",
            )  # fmt: skip


def root_phase(workflow: Object) -> str:
    """The phase of the run without its end's pod; of the whole where Argo refused to begin."""
    status = workflow.get("status", {})
    root = raw_nodes(workflow).get(workflow["metadata"]["name"], {})
    phase: str = root.get("phase") or ""
    over = status.get("phase") in ("Failed", "Error") or status.get("finishedAt")
    return phase if phase in ("Succeeded", "Failed", "Error") else str(status.get("phase", "")) if over else ""


def overran(workflow: Object, node: Node) -> bool:
    """Whether the whole run's time was over when a pod ended: Argo makes it the pod's own, the kubelet may be first."""
    started, seconds = workflow.get("status", {}).get("startedAt"), deadline(workflow)
    if not (started and seconds and node.finished):
        return False
    took = datetime.fromisoformat(node.finished) - datetime.fromisoformat(started)
    return took.total_seconds() >= seconds - _ROUNDED_SECONDS


def deadline(workflow: Object) -> int:
    """The seconds that a run may take; 0 where nothing is said."""
    return int(workflow.get("spec", {}).get("activeDeadlineSeconds") or 0)


def lost(node: Node, namespace: str) -> dict[str, Any]:
    """Why a step that recorded nothing failed, in Argo's words and with a code of ours."""
    return cause(node, node.message or f"its pod ended {node.phase}", namespace)


def cause(node: Node, text: str, namespace: str) -> dict[str, Any]:
    """Why a step failed, with a code of ours by what Argo or Kubernetes says of it."""
    code = next((code for found, code in _CAUSES.items() if found in text), OTHER)
    text += _TOLD.get(code, "")
    hint = f"kubectl -n {namespace} describe pod {node.pod}"
    if code == "argo-image":
        hint = f"Look at the image's name and tag, and at the right to pull it; {hint}"
    return {"code": code, "message": f"pod {node.pod}: {text}", "hint": hint}


def by_signal(recorded: Mapping[str, Any] | None) -> bool:
    """Whether a step knows no more than that a signal ended its command: where a deadline passed, Argo sent it."""
    return bool(recorded) and (recorded or {}).get("code") == "step-died"


def ended_early(node: Mapping[str, Any] | None, recorded: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Why a step was told to end: Argo's reason where it gives more than the exit code, else the step's own words."""
    return node if node and (node["code"] not in (OTHER, TERMINATED, KILLED) or not recorded) else recorded
