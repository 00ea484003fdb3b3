"""Schedules on a cluster: a WorkflowTemplate with the pipeline and a thin CronWorkflow of the same name.

One name is one schedule, changed in place. What does not carry our label is somebody else's and is never touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from tidegate.cron import Cron, next_moments
from tidegate.engines.argo.argument import referenced
from tidegate.engines.argo.check import check
from tidegate.engines.argo.cluster import (
    CRON_WORKFLOW,
    PIPELINE_LABEL,
    WORKFLOW,
    WORKFLOW_TEMPLATE,
    Cluster,
    Kind,
    Object,
)
from tidegate.engines.argo.given import given
from tidegate.engines.argo.packed import Packed, unpack
from tidegate.engines.argo.past import history, running, unseen
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.argo.workflow import (
    API,
    MANAGED,
    PLAN_ANNOTATION,
    SCHEDULE_LABEL,
    cron_workflow,
    object_name,
    workflow_template,
)
from tidegate.engines.schedule import Applied, Past, no_schedule
from tidegate.errors import Damaged, NotFound, UsageError
from tidegate.plan.model import Plan
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs
from tidegate.store.memory import MemoryStore
from tidegate.store.runs import Runs
from tidegate.store.schedules import ScheduleRecord, Schedules

SOURCE_LABEL = "tidegate.dev/source"
CRON_LABEL = "workflows.argoproj.io/cron-workflow"  # Argo's own: what carries it counts as a run of the schedule
SETTLE_TRIES = 40
_KINDS = (CRON_WORKFLOW, WORKFLOW_TEMPLATE)
_TROUBLE = ("SpecError", "SubmissionError")


@dataclass(frozen=True)
class Order:
    """A schedule as it is wanted.

    Attributes:
        name: of the schedule.
        packed: the definition with where it came from.
        settings: names in the cluster.
        parameters: run parameters, checked.
        cron: when and how; its ``suspended`` counts only for a new schedule, or together with ``settle``.
        settle: suspend or resume one that is there too.
        source: the project whose file it is written in; empty for one that somebody typed, which leaves it as it was.
    """

    name: str
    packed: Packed
    settings: ArgoSettings
    parameters: Mapping[str, Any]
    cron: Cron
    settle: bool = False
    source: str = ""


@dataclass(frozen=True)
class Schedule:
    """A schedule as it stands in a cluster.

    Attributes:
        name: its name, and that of its two objects.
        cron: the CronWorkflow.
        template: the WorkflowTemplate, None where somebody removed it.
    """

    name: str
    cron: Object
    template: Object | None = None

    @property
    def spec(self) -> Mapping[str, Any]:
        """The CronWorkflow's specification."""
        found: Mapping[str, Any] = self.cron["spec"]
        return found

    @property
    def pipeline(self) -> str:
        """The pipeline's name as a label has it."""
        return str(self.cron["metadata"]["labels"].get(PIPELINE_LABEL, ""))

    @property
    def source(self) -> str:
        """The project whose file it is written in, empty where somebody typed it."""
        return str(self.cron["metadata"]["labels"].get(SOURCE_LABEL, ""))

    @property
    def expression(self) -> str:
        """When it runs; several expressions, which somebody else wrote, beside one another."""
        return " | ".join(self.spec.get("schedules", ()))

    @property
    def zone(self) -> str:
        """The time zone's name."""
        return str(self.spec.get("timezone") or "UTC")

    @property
    def suspended(self) -> bool:
        """Whether it does not run by itself."""
        return bool(self.spec.get("suspend"))

    @property
    def parameters(self) -> dict[str, str]:
        """The texts of its parameters."""
        given = self.spec["workflowSpec"].get("arguments") or {}
        return {p["name"]: str(p.get("value", "null")) for p in given.get("parameters") or ()}

    @property
    def trouble(self) -> str:
        """What Argo says is wrong with it, empty where nothing is."""
        found = self.cron.get("status", {}).get("conditions") or ()
        return next((str(c.get("message", "")) for c in found if c.get("type") in _TROUBLE), "")

    @property
    def last(self) -> str:
        """When Argo started it last, empty where it never did."""
        return str(self.cron.get("status", {}).get("lastScheduledTime") or "")

    @cached_property
    def packed(self) -> Packed:
        """The definition that its runs carry.

        Raises:
            NotFound: the WorkflowTemplate is gone (code ``schedule-broken``).
        """
        if not self.template:
            raise NotFound(
                f"the WorkflowTemplate {self.name} is not there",
                hint=f"tidegate schedule apply FILE --name {self.name} --cron '{self.expression}'",
                code="schedule-broken",
            )
        return unpack(self.template["spec"]["podMetadata"]["annotations"][PLAN_ANNOTATION])


@dataclass(frozen=True)
class Row:
    """A schedule with its next moment, in its own zone, and its last run; None where there is none."""

    schedule: Schedule
    next: datetime | None
    last: Past | None


def bodies(order: Order, texts: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The WorkflowTemplate and the CronWorkflow of a schedule, checked."""
    template = workflow_template(order.name, order.packed, order.settings)
    cron = cron_workflow(order.name, order.packed.plan, order.cron, order.settings, texts)
    template["metadata"]["labels"][SCHEDULE_LABEL] = order.name
    for body in (template, cron) if order.source else ():
        body["metadata"]["labels"][SOURCE_LABEL] = order.source
    check(template)
    check(cron)
    return template, cron


def apply(order: Order, cluster: Cluster, store: Store) -> Applied:
    """Make a schedule what is wanted, whether it is there or not.

    Raises:
        UsageError: the name belongs to something else.
        DefinitionError: something that cannot be said to Argo.
    """
    namespace, name = order.settings.namespace, order.name
    before = look(cluster, namespace, name)
    schedules = Schedules(store)
    schedules.check_name(namespace, name)
    order = _settled(order, before)
    texts = given(order.parameters, Blobs(store, f"schedule-{name}"))
    template, cron = bodies(order, texts)
    _keep(cluster, namespace, name, schedules)
    schedules.put(_record(order, texts))
    cluster.apply(template)
    cluster.apply(cron)
    return _applied(order, before, Schedule(name, cron, template))


def compare(order: Order, cluster: Cluster) -> Applied:
    """What ``apply`` would do; nothing is sent.

    Raises:
        UsageError: the name belongs to something else.
        DefinitionError: something that cannot be said to Argo.
    """
    before = look(cluster, order.settings.namespace, order.name)
    order = _settled(order, before)
    template, cron = bodies(order, given(order.parameters, Blobs(MemoryStore("comparison"))))
    return _applied(order, before, Schedule(order.name, cron, template))


def _settled(order: Order, before: Schedule | None) -> Order:
    """The order with what it leaves as it was."""
    if not before:
        return order
    cron = order.cron if order.settle else replace(order.cron, suspended=before.suspended)
    return replace(order, cron=cron, source=order.source or before.source)


def _applied(order: Order, before: Schedule | None, after: Schedule) -> Applied:
    changes = _changes(before, after) if before else ()
    action = "created" if not before else "updated" if changes else "unchanged"
    return Applied(order.name, order.settings.namespace, action, order.cron, after.parameters, changes)


def unwritten(cluster: Cluster, namespace: str, source: str, written: Collection[str]) -> list[str]:
    """The schedules of a project's file that are not written in it any more."""
    return [s.name for s in every(cluster, namespace) if s.source == source and s.name not in written]


def rehearse(order: Order) -> Applied:
    """Check a schedule as far as that goes without a cluster; nothing is sent."""
    texts = given(order.parameters, Blobs(MemoryStore("rehearsal")))
    bodies(order, texts)
    return Applied(order.name, order.settings.namespace, "checked", order.cron, texts)


def _record(order: Order, texts: Mapping[str, str]) -> ScheduleRecord:
    blobs = {n: digest for n, text in texts.items() if (digest := referenced(text))}
    user = str(order.packed.origin.get("user", ""))
    return ScheduleRecord(order.name, order.settings.namespace, order.packed.plan.name, user, blobs)


def _keep(cluster: Cluster, namespace: str, name: str, schedules: Schedules) -> None:
    """Lease what a record names to the runs that have not ended: their pods may not have read it yet."""
    record = schedules.find(namespace, name)
    for digest in record.parameters.values() if record else ():
        for run in running(cluster, namespace, name):
            with suppress(NotFound, Damaged):  # nothing is left to keep
                Blobs(schedules.store, run).check(digest)


def _changes(before: Schedule, after: Schedule) -> tuple[str, ...]:
    found = {
        "the pipeline": before.pipeline != after.pipeline,
        "the definition": not before.template or before.packed.plan.digest != after.packed.plan.digest,
        "when it runs": (before.expression, before.zone) != (after.expression, after.zone),
        "overlap": before.spec.get("concurrencyPolicy") != after.spec["concurrencyPolicy"],
        "catch-up": before.spec.get("startingDeadlineSeconds") != after.spec["startingDeadlineSeconds"],
        "suspension": before.suspended != after.suspended,
        "whose it is": before.source != after.source,
    }
    old, new = before.parameters, after.parameters
    parameters = [f"parameter {n}" for n in sorted({*old, *new}) if old.get(n) != new.get(n)]
    return (*(what for what, changed in found.items() if changed), *parameters)


def look(cluster: Cluster, namespace: str, name: str) -> Schedule | None:
    """Return a schedule, None where there is none.

    Raises:
        UsageError: something that is not ours has this name (code ``schedule-foreign``).
    """
    cron, template = (_ours(cluster.find(kind, name, namespace), kind, name) for kind in _KINDS)
    return Schedule(name, cron, template) if cron else None


def _ours(body: Object | None, kind: Kind, name: str) -> Object | None:
    if body and not MANAGED.items() <= (body["metadata"].get("labels") or {}).items():
        raise UsageError(
            f"there is a {kind.name} {name} that tidegate did not make",
            allowed="A name that nothing else has; what is not ours stays as it is.",
            hint="--name of another schedule",
            code="schedule-foreign",
        )
    return body


def find(cluster: Cluster, namespace: str, name: str) -> Schedule:
    """Return a schedule.

    Raises:
        NotFound: there is none (code ``schedule-not-found``).
        UsageError: something that is not ours has this name.
    """
    found = look(cluster, namespace, name)
    if found:
        return found
    raise no_schedule(name, f"the namespace {namespace}", [s.name for s in every(cluster, namespace)])


def every(cluster: Cluster, namespace: str) -> Iterator[Schedule]:
    """Yield the schedules of a namespace in the order of their names."""
    templates = {t["metadata"]["name"]: t for t in cluster.list(WORKFLOW_TEMPLATE, namespace, MANAGED)}
    crons = {c["metadata"]["name"]: c for c in cluster.list(CRON_WORKFLOW, namespace, MANAGED)}
    yield from (Schedule(name, crons[name], templates.get(name)) for name in sorted(crons))


def suspend(cluster: Cluster, namespace: str, name: str, suspended: bool) -> Schedule:
    """Suspend or resume a schedule; return it as it was."""
    found = find(cluster, namespace, name)
    cluster.patch(CRON_WORKFLOW, name, namespace, {"spec": {"suspend": suspended}})
    return found


def start(cluster: Cluster, schedule: Schedule, texts: Mapping[str, str], run_id: str) -> None:
    """Start a run of a schedule now, with texts of parameters over its own; for overlap it counts as one of its runs."""
    meta = schedule.cron["metadata"]
    labels = {**schedule.spec["workflowMetadata"]["labels"], CRON_LABEL: schedule.name}
    owner = {
        "apiVersion": API,
        "kind": CRON_WORKFLOW.name,
        "name": schedule.name,
        "uid": meta["uid"],
        "controller": True,
    }
    parameters = [{"name": n, "value": v} for n, v in {**schedule.parameters, **texts}.items()]
    cluster.create(
        {
            "apiVersion": API,
            "kind": WORKFLOW.name,
            "metadata": {
                "name": run_id, "namespace": meta["namespace"], "labels": labels, "ownerReferences": [owner],
            },
            "spec": {
                "workflowTemplateRef": {"name": schedule.name},
                **({"arguments": {"parameters": parameters}} if parameters else {}),
            },
        }
    )  # fmt: skip


def run_name(schedule: str, now: float) -> str:
    """The id of a run that is started now: as Argo names runs, never that of one which a schedule starts."""
    return f"{schedule}-{int(now) + (int(now) % 60 == 0)}"


def remove(
    cluster: Cluster, namespace: str, name: str, store: Store | None, pause: Callable[[float], None] = time.sleep
) -> tuple[str, ...]:
    """Remove a schedule, not its runs; return those that have not ended.

    Raises:
        NotFound: there is none.
        UsageError: something that is not ours has this name.
    """
    kinds = [kind for kind in _KINDS if _ours(cluster.find(kind, name, namespace), kind, name)]
    schedules = Schedules(store) if store else None
    if not kinds and not (schedules and schedules.find(namespace, name)):
        find(cluster, namespace, name)
    if schedules:
        _keep(cluster, namespace, name, schedules)
    for kind in kinds:
        _wait(cluster, namespace, name, pause)
        cluster.delete(kind, name, namespace, alone=True)
    if schedules:
        schedules.remove(namespace, name)
    return running(cluster, namespace, name)


def differs(schedule: Schedule, plan: Plan) -> bool | None:
    """Whether a schedule runs another definition than this one; None where it is of another pipeline."""
    if schedule.pipeline != object_name(plan.name):
        return None
    return not schedule.template or schedule.packed.plan.digest != plan.digest


def _wait(cluster: Cluster, namespace: str, name: str, pause: Callable[[float], None]) -> None:
    """Wait a little for runs that Argo has not looked at: until then they have no copy of their template."""
    for _ in range(SETTLE_TRIES):
        if not unseen(cluster, namespace, name):
            return
        pause(0.5)


def rows(cluster: Cluster, namespace: str, runs: Runs | None, now: datetime) -> list[Row]:
    """The schedules of a namespace."""
    found = every(cluster, namespace)
    return [Row(s, _next(s, now), next(iter(history(cluster, namespace, s.name, runs, 1)), None)) for s in found]


def _next(schedule: Schedule, now: datetime) -> datetime | None:
    """When it runs next; None where it is suspended, or has expressions that only Argo can read."""
    if schedule.suspended:
        return None
    try:
        found = [next_moments(Cron(e, schedule.zone), now, 1) for e in schedule.spec.get("schedules", ())]
    except UsageError:
        return None
    return min((m for some in found for m in some), default=None)
