"""The Argo objects that a pipeline compiles to, checked, by the form that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.cron import Cron, parse, zone
from tidegate.engines.argo.argument import argument
from tidegate.engines.argo.check import check
from tidegate.engines.argo.packed import Packed
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.argo.workflow import (
    LONGEST_CRON_NAME,
    cron_workflow,
    object_name,
    workflow,
    workflow_template,
)

ONCE, TEMPLATE, CRON = "argo", "argo-template", "argo-cron"


def objects(
    form: str,
    packed: Packed,
    settings: ArgoSettings,
    parameters: Mapping[str, Any],
    cron: Cron | None = None,
    name: str = "",
) -> list[dict[str, Any]]:
    """Return the objects of a pipeline.

    Args:
        form: ``argo``, a Workflow that gets a fresh name each time it is created; ``argo-template``, a
            WorkflowTemplate; ``argo-cron``, that and a CronWorkflow.
        packed: the definition.
        settings: names in the cluster.
        parameters: run parameters, of a Workflow or of a schedule.
        cron: when a schedule runs.
        name: of the objects; the pipeline's by default.

    Raises:
        DefinitionError: something that cannot be said to Argo.
        UsageError: the expression of cron or the time zone is none.
    """
    plan = packed.plan
    if cron:
        parse(cron.schedule)
        zone(cron.timezone)
    texts = {n: argument(v) for n, v in parameters.items()}
    name = object_name(name or plan.name, LONGEST_CRON_NAME)
    if form == ONCE:
        made = [_generated(workflow(name, packed, settings, texts))]
    else:
        made = [workflow_template(name, packed, settings)]
        made += [cron_workflow(name, plan, cron, settings, texts)] if form == CRON and cron else []
    for body in made:
        check(body)
    return made


def _generated(body: dict[str, Any]) -> dict[str, Any]:
    metadata = {k: v for k, v in body["metadata"].items() if k != "name"}
    return {**body, "metadata": {"generateName": f"{body['metadata']['name']}-", **metadata}}
