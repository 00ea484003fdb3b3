"""Schedules, from what somebody typed or from ``schedules.toml``: all is checked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tidegate import api
from tidegate.cron import Cron, next_moments
from tidegate.engines.argo.cluster import label
from tidegate.engines.base import check_given
from tidegate.engines.pod.shared import check_store
from tidegate.engines.schedule import Applied, Order, Scheduler, schedule_name
from tidegate.errors import UsageError
from tidegate.prepared import Prepared, policies, prepare
from tidegate.project import Project
from tidegate.registry import policy
from tidegate.store.base import Store
from tidegate.store.open import open_store
from tidegate.timetable import Entry


@dataclass(frozen=True)
class ScheduleOptions:
    """How to make a schedule.

    Attributes:
        name: of the schedule; the pipeline's by default.
        engine: ``argo`` or ``kfp``.
        store: the store's address; the project's own by default.
        settle: suspend or resume, as ``cron`` says, a schedule that is there too.
        mutable_images: let it run images by tag, which may change under a run.
        dry_run: check everything, send nothing.
        source: the project whose file it is written in; empty where somebody typed it.
    """

    name: str = ""
    engine: str = api.ARGO
    store: str | None = None
    settle: bool = False
    mutable_images: bool = False
    dry_run: bool = False
    source: str = ""


def scheduler(engine: str, project: Project, store: Store | None) -> Scheduler:
    """The schedules of an engine; it is reached.

    Raises:
        ClusterError: it cannot be.
    """
    if engine == api.KFP:
        from tidegate.engines.kfp.client import reach as reach_kfp
        from tidegate.engines.kfp.schedule import KfpScheduler

        return KfpScheduler(*reach_kfp(project), store)
    from tidegate.engines.argo.scheduler import ArgoScheduler
    from tidegate.engines.argo.start import reach as reach_argo

    return ArgoScheduler(*reach_argo(project), store)


def _unreached(engine: str, project: Project) -> Scheduler:
    """The schedules of an engine, for checks that ask nobody."""
    if engine == api.KFP:
        from tidegate.engines.kfp.memory import MemoryBackend
        from tidegate.engines.kfp.schedule import KfpScheduler
        from tidegate.engines.kfp.settings import read_settings

        return KfpScheduler(MemoryBackend(), read_settings(project), None)
    from tidegate.engines.argo.memory import MemoryCluster
    from tidegate.engines.argo.scheduler import ArgoScheduler
    from tidegate.engines.argo.start import argo_settings

    return ArgoScheduler(MemoryCluster(), argo_settings(project), None)


def schedule(prepared: Prepared, parameters: Mapping[str, Any], cron: Cron, options: ScheduleOptions) -> Applied:
    """Make a schedule what it is to be, whether it is there or not; everything is checked first.

    Args:
        prepared: the pipeline.
        parameters: run parameters as JSON values; those that are not given keep their defaults.
        cron: when and how it runs.
        options: its name, its engine, its store, and what is let through.

    Raises:
        UsageError: the definition, a parameter, the expression, the zone or the name is wrong; nothing was sent.
        Trouble: the store or the engine cannot be used.
    """
    order = _order(prepared, parameters, cron, options)
    checked = _unreached(options.engine, prepared.project).rehearse(order)
    if options.dry_run:
        return checked
    store = open_store(options.store or prepared.project.store_uri)
    return scheduler(options.engine, prepared.project, store).apply(order)


def _order(prepared: Prepared, parameters: Mapping[str, Any], cron: Cron, options: ScheduleOptions) -> Order:
    name = schedule_name(options.name, prepared.plan.name)
    next_moments(cron, datetime.now(UTC))
    uri = options.store or prepared.project.store_uri
    how = api.Options(uri, engine=options.engine, mutable_images=options.mutable_images)
    arguments = api.check_run(prepared, parameters, how)
    record = api.new_record(prepared, arguments, options.engine)
    given = {**prepared.definition.parameters, **parameters}
    sent = {n: v for n, v in arguments.parameters.items() if given.get(n) is not None}
    return Order(name, prepared.definition, prepared.plan, record, sent, cron, options.settle, options.source)


@dataclass(frozen=True)
class Timetable:
    """The schedules of a project's file beside those of the engine: what would change, and the changing of it.

    Attributes:
        orders: what is written, checked.
        scheduler: where it is to be.
        unwritten: schedules that came from this file and are not in it any more.
    """

    orders: Sequence[Order]
    scheduler: Scheduler
    unwritten: Sequence[str]

    def compare(self) -> list[Applied]:
        """What is different, a schedule each; nothing is sent."""
        return [self.scheduler.compare(order) for order in self.orders]


def timetable(project: Project, entries: Sequence[Entry], options: ScheduleOptions) -> Timetable:
    """Check every schedule of a project's file before the first is touched.

    Args:
        project: whose file it is.
        entries: what is written in it.
        options: the engine, the store, and what is let through.

    Raises:
        UsageError: one of them is wrong; its message names it, and nothing was sent.
        Trouble: the store or the engine cannot be used.
    """
    source = label(project.name) or "project"
    orders = [_written(entry, project, replace(options, source=source)) for entry in entries]
    there = scheduler(options.engine, project, open_store(options.store or project.store_uri))
    return Timetable(orders, there, there.unwritten(source, {e.name for e in entries}))


def _written(entry: Entry, project: Project, options: ScheduleOptions) -> Order:
    kind, settle = entry.concurrency.capitalize(), entry.suspended is not None
    cron = Cron(entry.cron, entry.timezone, kind, entry.catch_up, bool(entry.suspended))
    how = replace(options, name=entry.name, settle=settle)
    try:
        order = _order(prepare(entry.pipeline), entry.parameters, cron, how)
        _unreached(options.engine, project).rehearse(order)
    except UsageError as e:
        raise type(e)(f"[{entry.name}]: {e.found}", allowed=e.allowed, hint=e.hint, code=e.code) from e
    return order


def start_scheduled(there: Scheduler, name: str, parameters: Mapping[str, Any], uri: str) -> str:
    """Start a run of a schedule now; return its id.

    Args:
        there: where it is.
        name: of the schedule.
        parameters: run parameters as JSON values, over those of the schedule.
        uri: the store's address.

    Raises:
        ParameterError: one is unknown, of a wrong type, or looser than the gate's policy; nothing was started.
    """
    plan = there.plan(name)
    for gate in policies(plan):
        policy.check_parameters(gate, parameters)
    values = check_given(plan, parameters)
    check_store(uri)
    return there.start(name, values)
