"""Schedules on a cluster, from what somebody typed or from ``schedules.toml``: all is checked before anything is sent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tidegate import api
from tidegate.engines.argo import schedule as engine
from tidegate.engines.argo.cluster import Cluster, label
from tidegate.engines.argo.given import given
from tidegate.engines.argo.kube import open_cluster
from tidegate.engines.argo.schedule import Applied, Order, Schedule, next_moments, rehearse, run_name, schedule_name
from tidegate.engines.argo.site import first_record
from tidegate.engines.argo.start import argo_settings, check_control
from tidegate.engines.argo.workflow import Cron
from tidegate.engines.base import check_given
from tidegate.engines.pod.shared import check_store
from tidegate.errors import Trouble, UsageError
from tidegate.project import Project, user_name
from tidegate.registry import policy
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs
from tidegate.store.open import open_store
from tidegate.store.runs import Runs
from tidegate.timetable import Entry


@dataclass(frozen=True)
class ScheduleOptions:
    """How to make a schedule.

    Attributes:
        name: of the schedule; the pipeline's by default.
        store: the store's address; the project's own by default.
        settle: suspend or resume, as ``cron`` says, a schedule that is there too.
        mutable_images: let it run images by tag, which may change under a run.
        dry_run: check everything, send nothing.
        source: the project whose file it is written in; empty where somebody typed it.
    """

    name: str = ""
    store: str | None = None
    settle: bool = False
    mutable_images: bool = False
    dry_run: bool = False
    source: str = ""


def schedule(prepared: api.Prepared, parameters: Mapping[str, Any], cron: Cron, options: ScheduleOptions) -> Applied:
    """Make a schedule on a cluster what it is to be, whether it is there or not; everything is checked first.

    Args:
        prepared: the pipeline.
        parameters: run parameters as JSON values; those that are not given keep their defaults.
        cron: when and how it runs.
        options: its name, its store, and what is let through.

    Raises:
        UsageError: the definition, a parameter, the expression, the zone or the name is wrong; nothing was sent.
        Trouble: the store or the cluster cannot be used.
    """
    order = _order(prepared, parameters, cron, options)
    if options.dry_run:
        return rehearse(order)
    store = open_store(options.store or prepared.project.store_uri)
    return engine.apply(order, open_cluster(order.settings.context), store)


def _order(prepared: api.Prepared, parameters: Mapping[str, Any], cron: Cron, options: ScheduleOptions) -> Order:

    name = schedule_name(options.name, prepared.plan.name)
    next_moments(cron, datetime.now(UTC))
    uri = options.store or prepared.project.store_uri
    arguments = api.check_run(
        prepared, parameters, api.Options(uri, engine=api.ARGO, mutable_images=options.mutable_images)
    )
    check_control(prepared.plan, arguments.parameters)
    packed = api.packed_definition(prepared, api.new_record(prepared, arguments, api.ARGO))
    given = {**prepared.definition.parameters, **parameters}
    sent = {n: v for n, v in arguments.parameters.items() if given.get(n) is not None}
    return Order(name, packed, argo_settings(prepared.project), sent, cron, options.settle, options.source)


@dataclass(frozen=True)
class Timetable:
    """The schedules of a project's file beside those of the cluster: what would change, and the changing of it.

    Attributes:
        orders: what is written, checked.
        cluster: where it is to be.
        namespace: of it.
        store: the store of the runs.
        unwritten: schedules that came from this file and are not in it any more.
    """

    orders: Sequence[Order]
    cluster: Cluster
    namespace: str
    store: Store
    unwritten: Sequence[str]

    def compare(self) -> list[Applied]:
        """What is different, a schedule each; nothing is sent."""

        return [engine.compare(order, self.cluster) for order in self.orders]

    def apply(self, order: Order) -> Applied:
        """Make one schedule what is written."""

        return engine.apply(order, self.cluster, self.store)

    def remove(self, name: str) -> Sequence[str]:
        """Remove one that is not written any more; return its runs that have not ended."""

        return engine.remove(self.cluster, self.namespace, name, self.store)


def timetable(project: Project, entries: Sequence[Entry], options: ScheduleOptions) -> Timetable:
    """Check every schedule of a project's file before the first is touched.

    Args:
        project: whose file it is.
        entries: what is written in it.
        options: the store, and what is let through.

    Raises:
        UsageError: one of them is wrong; its message names it, and nothing was sent.
        Trouble: the store or the cluster cannot be used.
    """
    settings, source = argo_settings(project), label(project.name) or "project"
    orders = [_written(entry, replace(options, source=source)) for entry in entries]
    cluster = open_cluster(settings.context)
    gone = engine.unwritten(cluster, settings.namespace, source, {e.name for e in entries})
    store = open_store(options.store or project.store_uri)
    return Timetable(orders, cluster, settings.namespace, store, gone)


def _written(entry: Entry, options: ScheduleOptions) -> Order:

    kind, settle = entry.concurrency.capitalize(), entry.suspended is not None
    cron = Cron(entry.cron, entry.timezone, kind, entry.catch_up, bool(entry.suspended))
    try:
        return _order(
            api.prepare(entry.pipeline), entry.parameters, cron, replace(options, name=entry.name, settle=settle)
        )
    except UsageError as e:
        raise type(e)(f"[{entry.name}]: {e.found}", allowed=e.allowed, hint=e.hint, code=e.code) from e


def start_scheduled(found: Schedule, parameters: Mapping[str, Any], cluster: Cluster, uri: str) -> str:
    """Start a run of a schedule now; return its id.

    Args:
        found: the schedule as it stands.
        parameters: run parameters as JSON values, over those of the schedule.
        cluster: where it is.
        uri: the store's address.

    Raises:
        ParameterError: one is unknown, of a wrong type, or looser than the gate's policy; nothing was started.
    """
    plan, run_id = found.packed.plan, run_name(found.name, time.time())
    for gate in api.policies(plan):
        policy.check_parameters(gate, parameters)
    values = check_given(plan, parameters)
    check_control(plan, values)
    check_store(uri)
    store = open_store(uri)
    texts = given(values, Blobs(store, run_id))
    engine.start(cluster, found, texts, run_id)
    with suppress(Trouble):  # its first pod writes the same, but for who typed this
        record = first_record(run_id, found.packed, {**found.parameters, **texts}, Blobs(store, run_id), user_name())
        Runs(store).keep_plan(plan.digest, found.packed.spec)
        Runs(store).create(record)
    return run_id
