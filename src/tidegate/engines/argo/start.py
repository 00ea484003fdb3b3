"""Start, or go on with, a run on Argo: everything that is checked and made before the cluster is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.author.images import read_lock
from tidegate.engines.argo import kube
from tidegate.engines.argo.check import check
from tidegate.engines.argo.cluster import POD, RUN_LABEL, WORKFLOW, WORKFLOW_LABEL, Cluster
from tidegate.engines.argo.control import MAX_INLINE, VALUE, control
from tidegate.engines.argo.engine import STOP, ArgoEngine
from tidegate.engines.argo.given import given
from tidegate.engines.argo.needs import parameters_read
from tidegate.engines.argo.nodes import root_phase
from tidegate.engines.argo.packed import Packed
from tidegate.engines.argo.settings import ArgoSettings, read_settings
from tidegate.engines.argo.workflow import workflow
from tidegate.engines.base import Arguments
from tidegate.errors import Conflict, ParameterError, StepFailed
from tidegate.plan.model import Plan
from tidegate.project import Project
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs
from tidegate.store.patient import PatientStore
from tidegate.store.runs import RunRecord, StepRecord

LAUNCHER_FAMILY = "base"
ROOM_SECONDS = 90
SETTLE_SECONDS = 4.0  # Argo's controller sees later than we that a pod is gone, and takes it for the next of its name


@dataclass(frozen=True)
class Submission:
    """How to run on Argo.

    Attributes:
        logs: pass on what steps write while they run.
        again: the run was started before; its Workflow, if it is still there, has ended and is replaced.
        interrupted: asked when Ctrl-C is pressed.
        finished: what an earlier try of the run had finished, by path.
    """

    logs: bool = False
    again: bool = False
    interrupted: Callable[[], str] = lambda: STOP
    finished: Mapping[str, StepRecord] = field(default_factory=dict)


def argo_settings(project: Project) -> ArgoSettings:
    """The settings of a project, with the launcher's image from ``images.lock`` where they name none."""
    settings = read_settings(project)
    family = read_lock(project.root).families.get(LAUNCHER_FAMILY)
    return settings if settings.image or not family else ArgoSettings(**{**settings.__dict__, "image": family.image})


def reach(project: Project) -> tuple[kube.KubeCluster, ArgoSettings]:
    """Reach the cluster of a project; return it with the project's settings.

    Raises:
        ConfigError: no kubeconfig, no such context, or the ``argo`` extra is missing.
    """
    settings = argo_settings(project)
    return kube.open_cluster(settings.context), settings


def missing_launcher(project: Project) -> str:
    """The family whose image has to hold the launcher, empty where there is an image for it."""
    return "" if argo_settings(project).image else LAUNCHER_FAMILY


def check_control(plan: Plan, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that Argo decides by and that are too long to travel.

    Raises:
        ParameterError: one is (code ``argo-control-too-large``).
    """
    for name, need in parameters_read(plan).items():
        try:
            if need == VALUE and name in parameters:
                control(parameters[name], need, f"the parameter {name!r}")
        except StepFailed as e:
            raise ParameterError(e.found, allowed=f"Up to {MAX_INLINE} bytes.", hint=e.hint, code=e.code) from None


def argo_engine(
    packed: Packed, plan: Plan, arguments: Arguments, record: RunRecord, store: Store, cluster: Cluster,
    settings: ArgoSettings, how: Submission,
) -> ArgoEngine:  # fmt: skip
    """Return the engine with the Workflow that it will submit."""
    check_control(plan, arguments.parameters)
    texts = given(arguments.parameters, Blobs(store, record.id), parameters_read(plan))
    body = workflow(record.id, packed, settings, texts)
    body["metadata"]["labels"][RUN_LABEL] = record.id
    check(body)
    if how.again:
        _make_room(cluster, settings.namespace, record.id)
    return ArgoEngine(PatientStore(store), cluster, settings, record, body, how.logs, how.interrupted, how.finished)


def _make_room(cluster: Cluster, namespace: str, run_id: str, pause: Callable[[float], None] = time.sleep) -> None:
    """Remove the Workflow of a run that ended, so that its name is free; one that is about to end is waited for.

    Its pods have to be gone too: those of a Workflow of the same name are called the same.

    Raises:
        Conflict: it goes on (code ``run-going``), or something keeps it from being removed (``run-kept``).
    """
    for seconds in range(ROOM_SECONDS):
        found = cluster.find(WORKFLOW, run_id, namespace)
        if not found and not any(cluster.list(POD, namespace, {WORKFLOW_LABEL: run_id})):
            return pause(SETTLE_SECONDS if seconds else 0)
        if found and found.get("status", {}).get("finishedAt"):
            cluster.delete(WORKFLOW, run_id, namespace)
        elif found and not root_phase(found):
            raise Conflict(
                f"run {run_id} goes on",
                allowed="A run that ended.",
                hint=f"kubectl -n {namespace} get workflow {run_id} --watch",
                code="run-going",
            )
        pause(1.0)
    raise Conflict(
        f"the Workflow of run {run_id}, or a pod of it, is still there",
        allowed="One that ends, and that nothing keeps from being removed.",
        hint=f"kubectl -n {namespace} get workflow,pods -l {WORKFLOW_LABEL}={run_id}",
        code="run-kept",
    )
