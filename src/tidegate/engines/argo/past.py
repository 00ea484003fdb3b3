"""What a schedule ran: its Workflows, and of those that are gone what the store knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from tidegate.engines.argo.cluster import WORKFLOW, Cluster, Object
from tidegate.engines.argo.pod import STATES
from tidegate.engines.argo.workflow import SCHEDULE_LABEL
from tidegate.engines.schedule import Past
from tidegate.errors import Damaged, NotFound
from tidegate.store.runs import Runs, iso

PENDING, UNKNOWN = "PENDING", "UNKNOWN"


def history(cluster: Cluster, namespace: str, name: str, runs: Runs | None, limit: int = 20) -> list[Past]:
    """The runs of a schedule, newest first."""
    there = [_past(w) for w in _workflows(cluster, namespace, name)]
    known = {p.run_id for p in there}
    gone = [Past(i, UNKNOWN, _moment(i)) for i in (_stored(runs, name) if runs else ()) if i not in known]
    newest = sorted([*there, *gone], key=lambda p: p.started, reverse=True)[:limit]
    return [_remembered(runs, p) if runs and p.run_id not in known else p for p in newest]


def running(cluster: Cluster, namespace: str, name: str) -> tuple[str, ...]:
    """The runs of a schedule that have not ended."""
    found = _workflows(cluster, namespace, name)
    return tuple(w["metadata"]["name"] for w in found if not w.get("status", {}).get("finishedAt"))


def unseen(cluster: Cluster, namespace: str, name: str) -> bool:
    """Whether there is a run of a schedule that Argo has not looked at yet."""
    return any(not w.get("status", {}).get("phase") for w in _workflows(cluster, namespace, name))


def _workflows(cluster: Cluster, namespace: str, name: str) -> Iterator[Object]:
    return cluster.list(WORKFLOW, namespace, {SCHEDULE_LABEL: name})


def _past(workflow: Object) -> Past:
    status = workflow.get("status") or {}
    started = status.get("startedAt") or workflow["metadata"].get("creationTimestamp") or ""
    state = STATES.get(status.get("phase", ""), PENDING)
    return Past(workflow["metadata"]["name"], state, started, _between(started, status.get("finishedAt")))


def _between(started: str, finished: str | None) -> float | None:
    if not started or not finished:
        return None
    return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()


def _stored(runs: Runs, name: str) -> Iterator[str]:
    """The ids in the store that runs of this schedule have: Argo names them NAME-SECONDS."""
    ours = re.compile(rf"{re.escape(name)}-\d{{10}}")
    ids = (e.key.rstrip("/").rpartition("/")[2] for e in runs.store.list("runs", recursive=False))
    yield from (i for i in ids if ours.fullmatch(i))


def _moment(run_id: str) -> str:
    return iso(int(run_id.rpartition("-")[2]))


def _remembered(runs: Runs, past: Past) -> Past:
    try:
        outcome = runs.outcome(past.run_id)
    except (NotFound, Damaged):
        outcome = None
    return Past(past.run_id, outcome.state, past.started, outcome.seconds) if outcome else past
