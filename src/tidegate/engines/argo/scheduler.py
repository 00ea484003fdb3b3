"""Schedules on Argo in the words of every engine."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tidegate.engines.argo import past, schedule
from tidegate.engines.argo.cluster import Cluster
from tidegate.engines.argo.given import given
from tidegate.engines.argo.packed import Packed
from tidegate.engines.argo.schedule import Row
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.argo.site import first_record
from tidegate.engines.argo.start import check_control
from tidegate.engines.schedule import Applied, Order, Past, Standing
from tidegate.errors import Trouble, UsageError
from tidegate.plan.model import Plan
from tidegate.project import user_name
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs
from tidegate.store.runs import Runs


@dataclass(frozen=True)
class ArgoScheduler:
    """The schedules of a namespace.

    Attributes:
        cluster: where they are.
        settings: names there.
        store: the store of their runs; None where only the cluster is asked.
    """

    cluster: Cluster
    settings: ArgoSettings
    store: Store | None

    @property
    def place(self) -> str:
        """The namespace."""
        return self.settings.namespace

    def rehearse(self, order: Order) -> Applied:
        """Check an order as far as that goes without a cluster; nothing is sent."""
        return schedule.rehearse(self._order(order))

    def compare(self, order: Order) -> Applied:
        """What ``apply`` would do; nothing is sent."""
        return schedule.compare(self._order(order), self.cluster)

    def apply(self, order: Order) -> Applied:
        """Make a schedule what is wanted, whether it is there or not."""
        assert self.store
        return schedule.apply(self._order(order), self.cluster, self.store)

    def _order(self, order: Order) -> schedule.Order:
        if order.cron.every:
            raise UsageError(
                "a CronWorkflow runs at times, not every so many seconds",
                allowed="Five fields of cron.",
                hint="--cron '*/15 * * * *'",
                code="schedule-interval",
            )
        check_control(order.plan, order.parameters)
        packed = Packed(order.definition.spec, order.definition.platforms or {}, order.record.origin)
        return schedule.Order(
            order.name, packed, self.settings, order.parameters, order.cron, order.settle, order.source
        )

    def unwritten(self, source: str, written: Collection[str]) -> Sequence[str]:
        """The schedules of a project's file that are not written in it any more."""
        return schedule.unwritten(self.cluster, self.place, source, written)

    def every(self, now: datetime, plan: Plan | None = None) -> Sequence[Standing]:
        """What there is, compared with a plan where one is given."""
        rows = schedule.rows(self.cluster, self.place, self._runs(), now)
        return [_standing(row, schedule.differs(row.schedule, plan) if plan else None) for row in rows]

    def history(self, name: str, limit: int) -> Sequence[Past]:
        """The runs of a schedule, newest first."""
        found = past.history(self.cluster, self.place, name, self._runs(), limit)
        if not found:
            schedule.find(self.cluster, self.place, name)
        return found

    def suspend(self, name: str, suspended: bool) -> Standing:
        """Suspend or resume a schedule; return it as it was."""
        before = schedule.suspend(self.cluster, self.place, name, suspended)
        return _standing(Row(before, None, None), None)

    def plan(self, name: str) -> Plan:
        """What a schedule runs."""
        return schedule.find(self.cluster, self.place, name).packed.plan

    def start(self, name: str, parameters: Mapping[str, Any]) -> str:
        """Start a run of a schedule now, with these parameters over its own; return its id."""
        assert self.store
        found, run_id = schedule.find(self.cluster, self.place, name), schedule.run_name(name, time.time())
        plan = found.packed.plan
        check_control(plan, parameters)
        blobs = Blobs(self.store, run_id)
        texts = given(parameters, blobs)
        schedule.start(self.cluster, found, texts, run_id)
        with suppress(Trouble):  # its first pod writes the same, but for who typed this
            record = first_record(run_id, found.packed, {**found.parameters, **texts}, blobs, user_name())
            Runs(self.store).keep_plan(plan.digest, found.packed.spec)
            Runs(self.store).create(record)
        return run_id

    def remove(self, name: str) -> Sequence[str]:
        """Remove a schedule, not its runs; return those that have not ended."""
        return schedule.remove(self.cluster, self.place, name, self.store)

    def _runs(self) -> Runs | None:
        return Runs(self.store) if self.store else None


def _standing(row: Row, drift: bool | None) -> Standing:
    found = row.schedule
    return Standing(
        found.name, found.pipeline, found.expression, found.zone, found.suspended, found.trouble, row.next, row.last,
        drift,
    )  # fmt: skip
