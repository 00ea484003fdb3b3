"""Names of a run in a cluster, for placeholders."""

from __future__ import annotations

from tidegate.plan.model import Plan
from tidegate.store.runs import RunRecord

WORKSPACE = "/kfp-workspace"


def run_context(plan: Plan, record: RunRecord, store: str) -> dict[str, str]:
    """What placeholders may ask about a run; ``store`` is the store's address."""
    return {
        "pipeline_job_name": f"{plan.name}-{record.id}",
        "pipeline_job_resource_name": f"{plan.name}-{record.id}",
        "pipeline_job_uuid": record.id,
        "pipeline_job_create_time_utc": record.created,
        "pipeline_job_schedule_time_utc": record.created,
        "pipeline_root": f"{store}/runs/{record.id}",
        "workspace_path": WORKSPACE if plan.settings.get("workspace") else "",
    }
