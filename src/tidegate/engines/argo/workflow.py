"""A plan as Argo objects: a Workflow to run once, a WorkflowTemplate to run again, a CronWorkflow to run by the clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tidegate.cron import Cron
from tidegate.engines.argo.argument import argument
from tidegate.engines.argo.cluster import PIPELINE_LABEL, label
from tidegate.engines.argo.container import LAST, MOUNTS, RESTRICTED, confined, ours
from tidegate.engines.argo.packed import Packed, pack
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.argo.templates import ENTRYPOINT, build_templates
from tidegate.engines.pod.context import WORKSPACE
from tidegate.engines.readable import readable
from tidegate.errors import DefinitionError
from tidegate.plan.model import Plan

API = "argoproj.io/v1alpha1"
PLAN_ANNOTATION = "tidegate.dev/plan"
MANAGED = {"app.kubernetes.io/managed-by": "tidegate"}
SCHEDULE_LABEL = "tidegate.dev/schedule"
DEADLINE_SECONDS = 86_400
KEPT_SECONDS = 7 * 86_400
USER = 65532  # no user of an image, never root
END = "tidegate-end"
LONGEST_NAME, LONGEST_CRON_NAME = 63, 52
_TTL = {
    "resourceTtlOnCompletion": "secondsAfterCompletion",
    "resourceTtlOnSuccess": "secondsAfterSuccess",
    "resourceTtlOnFailure": "secondsAfterFailure",
}
_PIPELINE_SETTINGS = {"workspace", "activeDeadlineSeconds", *_TTL}
# Argo's own containers say nothing of their rights, and a namespace with Pod Security "restricted" refuses such pods
_PATCH = {
    "initContainers": [{"name": "init", "securityContext": RESTRICTED}],
    "containers": [{"name": "wait", "securityContext": RESTRICTED}],
}


def object_name(text: str, longest: int = LONGEST_NAME) -> str:
    """A name for an object of Kubernetes, made of a pipeline's name."""
    name = label(text, longest)
    if not name:
        raise DefinitionError(f"{text!r} gives no name for a Workflow", allowed="Letters and digits.", code="argo-name")
    return name


def workflow(
    name: str, packed: Packed, settings: ArgoSettings, arguments: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A Workflow that runs once under this very name."""
    spec = workflow_spec(packed, settings, arguments or {})
    return {"apiVersion": API, "kind": "Workflow", "metadata": _metadata(name, packed.plan, settings), "spec": spec}


def workflow_template(name: str, packed: Packed, settings: ArgoSettings) -> dict[str, Any]:
    """A WorkflowTemplate: ``argo submit --from workflowtemplate/NAME -p …`` runs it."""
    spec = workflow_spec(packed, settings, {})
    return {
        "apiVersion": API,
        "kind": "WorkflowTemplate",
        "metadata": _metadata(name, packed.plan, settings),
        "spec": spec,
    }


def cron_workflow(
    name: str, plan: Plan, cron: Cron, settings: ArgoSettings, arguments: Mapping[str, str]
) -> dict[str, Any]:
    """A thin CronWorkflow around the WorkflowTemplate of the same name."""
    run: dict[str, Any] = {"workflowTemplateRef": {"name": name}}
    if arguments:
        run["arguments"] = {"parameters": [{"name": n, "value": v} for n, v in arguments.items()]}
    spec = {
        "schedules": [cron.schedule],
        "timezone": cron.timezone,
        "concurrencyPolicy": cron.concurrency,
        "startingDeadlineSeconds": cron.catch_up,
        "suspend": cron.suspended,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "workflowMetadata": {"labels": {**_labels(plan), SCHEDULE_LABEL: name}},
        "workflowSpec": run,
    }
    return {"apiVersion": API, "kind": "CronWorkflow", "metadata": _metadata(name, plan, settings), "spec": spec}


def _metadata(name: str, plan: Plan, settings: ArgoSettings) -> dict[str, Any]:
    return {"name": name, "namespace": settings.namespace, "labels": _labels(plan)}


def _labels(plan: Plan) -> dict[str, str]:
    return {**MANAGED, PIPELINE_LABEL: object_name(plan.name)}


def check_launcher(settings: ArgoSettings) -> None:
    """Refuse settings without an image for the launcher.

    Raises:
        DefinitionError: they name none (code ``argo-image``).
    """
    if not settings.image:
        raise DefinitionError(
            "no image holds the launcher",
            allowed="An image with tidegate in it, by digest.",
            hint="tidegate images build base --push REGISTRY, or image = … in [tool.tidegate.argo]",
            code="argo-image",
        )


def workflow_spec(packed: Packed, settings: ArgoSettings, arguments: Mapping[str, str]) -> dict[str, Any]:
    """The specification that all three have in common.

    Raises:
        DefinitionError: something that cannot be said to Argo, or too much of it.
    """
    plan = packed.plan
    check_launcher(settings)
    if unknown := sorted(set(plan.settings) - _PIPELINE_SETTINGS):
        raise DefinitionError(
            f"the pipeline setting {unknown[0]!r} is not known",
            allowed=", ".join(sorted(_PIPELINE_SETTINGS)),
            code="argo-setting",
        )
    with readable():
        deadline, ttl = int(plan.settings.get("activeDeadlineSeconds") or DEADLINE_SECONDS), _ttl(plan.settings)
    spec: dict[str, Any] = {
        "entrypoint": ENTRYPOINT,
        "onExit": END,
        "activeDeadlineSeconds": deadline,
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "executor": {"serviceAccountName": settings.executor_account},
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "podMetadata": {"annotations": {PLAN_ANNOTATION: pack(packed)}, "labels": _labels(plan)},
        "podSpecPatch": json.dumps(_PATCH, sort_keys=True),
        "podGC": {"strategy": "OnWorkflowSuccess", "deleteDelayDuration": "600s"},
        "ttlStrategy": ttl,
        "volumes": _volumes(),
    }  # fmt: skip
    if parameters := [_parameter(n, plan, arguments) for n in plan.root.interface.parameters]:
        spec["arguments"] = {"parameters": parameters}
    templates = build_templates(plan, settings)
    if workspace := plan.settings.get("workspace"):
        with readable():
            spec["volumeClaimTemplates"] = [_claim(workspace)]
        for main in (t["container"] for t in templates if "container" in t):
            main.setdefault("volumeMounts", [*MOUNTS]).append({"name": "workspace", "mountPath": WORKSPACE})
    return {**spec, "templates": [*templates, _end(settings, arguments=bool(parameters))]}


def _parameter(name: str, plan: Plan, arguments: Mapping[str, str]) -> dict[str, Any]:
    declared = plan.root.interface.parameters[name]
    if name in arguments:
        return {"name": name, "value": arguments[name]}
    if declared.default is not None or declared.optional:
        return {"name": name, "value": argument(declared.default)}
    return {"name": name}


def _ttl(settings: Mapping[str, Any]) -> dict[str, int]:
    said = {argo: int(settings[kfp]) for kfp, argo in _TTL.items() if settings.get(kfp)}
    return {"secondsAfterCompletion": KEPT_SECONDS, **said}


def _volumes() -> list[dict[str, Any]]:
    plan = {"path": "plan", "fieldRef": {"fieldPath": f"metadata.annotations['{PLAN_ANNOTATION}']"}}
    return [
        {"name": "tidegate", "emptyDir": {}},
        {"name": "tidegate-plan", "downwardAPI": {"items": [plan]}},
        {"name": "tmp", "emptyDir": {}},
    ]


def _claim(workspace: Mapping[str, Any]) -> dict[str, Any]:
    patch = workspace.get("kubernetes", {}).get("pvcSpecPatch", {})
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": workspace["size"]}}}
    return {"metadata": {"name": "workspace"}, "spec": {**spec, **patch}}


def _end(settings: ArgoSettings, *, arguments: bool) -> dict[str, Any]:
    env = {"TIDEGATE_RUN_ID": "{{workflow.name}}", "TIDEGATE_PHASE": "{{workflow.status}}"}
    if arguments:
        env["TIDEGATE_ARGUMENTS"] = "{{workflow.parameters}}"
    container = confined(ours(settings, settings.image, [{"name": n, "value": v} for n, v in env.items()], LAST))
    return {"name": END, "container": container}
