"""Schedules in the words of every engine: what is wanted, what applying it did, what there is, what ran."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from tidegate.cron import Cron
from tidegate.errors import NotFound, UsageError
from tidegate.ir.load import Definition
from tidegate.plan.model import Plan
from tidegate.store.runs import RunRecord

LONGEST = 52  # Argo adds a moment to it, and names of pods are labels
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_UNFIT = re.compile(r"[^a-z0-9-]+")


@dataclass(frozen=True)
class Order:
    """A schedule as it is wanted.

    Attributes:
        name: of the schedule.
        definition: what it runs.
        plan: the same, as a plan.
        record: where the definition came from: commit, user and so on.
        parameters: run parameters, checked.
        cron: when and how; its ``suspended`` counts only for a new schedule, or together with ``settle``.
        settle: suspend or resume one that is there too.
        source: the project whose file it is written in; empty for one that somebody typed, which leaves it as it was.
    """

    name: str
    definition: Definition
    plan: Plan
    record: RunRecord
    parameters: Mapping[str, Any]
    cron: Cron
    settle: bool = False
    source: str = ""


@dataclass(frozen=True)
class Applied:
    """What applying a schedule did.

    Attributes:
        name: of the schedule.
        namespace: where it is.
        action: ``created``, ``updated``, ``unchanged`` or, where no cluster was asked, ``checked``.
        changes: what is different from before.
        cron: when and how it runs now.
        parameters: the texts of its parameters.
    """

    name: str
    namespace: str
    action: str
    cron: Cron
    parameters: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Past:
    """One run of a schedule; ``seconds`` is None while it goes on, and where nobody knows."""

    run_id: str
    state: str
    started: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Standing:
    """A schedule as it stands.

    Attributes:
        name: of the schedule.
        pipeline: the pipeline's name.
        expression: when it runs.
        zone: the time zone's name.
        suspended: whether it does not run by itself.
        trouble: what the engine says is wrong with it.
        next: when it runs next, in its own zone; None where it does not, or where nobody can tell.
        last: its last run.
        drift: whether it runs another definition than one that was asked about; None where it is of another pipeline.
    """

    name: str
    pipeline: str
    expression: str
    zone: str
    suspended: bool
    trouble: str = ""
    next: datetime | None = None
    last: Past | None = None
    drift: bool | None = None


class Scheduler(Protocol):
    """Schedules on one engine. Every verb raises ``ClusterError`` where the engine cannot be reached or refuses."""

    @property
    def place(self) -> str:
        """Where they are."""

    def rehearse(self, order: Order) -> Applied:
        """Check an order as far as that goes without a cluster; nothing is sent."""

    def compare(self, order: Order) -> Applied:
        """What ``apply`` would do; nothing is sent."""

    def apply(self, order: Order) -> Applied:
        """Make a schedule what is wanted, whether it is there or not."""

    def unwritten(self, source: str, written: Collection[str]) -> Sequence[str]:
        """The schedules of a project's file that are not written in it any more."""

    def every(self, now: datetime, plan: Plan | None = None) -> Sequence[Standing]:
        """What there is, compared with a plan where one is given."""

    def history(self, name: str, limit: int) -> Sequence[Past]:
        """The runs of a schedule, newest first; raise ``NotFound`` where there is no such schedule."""

    def suspend(self, name: str, suspended: bool) -> Standing:
        """Suspend or resume a schedule; return it as it was."""

    def plan(self, name: str) -> Plan:
        """What a schedule runs."""

    def start(self, name: str, parameters: Mapping[str, Any]) -> str:
        """Start a run of a schedule now, with these parameters over its own; return its id."""

    def remove(self, name: str) -> Sequence[str]:
        """Remove a schedule, not its runs; return those that have not ended."""


def schedule_name(name: str, pipeline: str) -> str:
    """The name of a schedule: as it was given, else made of the pipeline's.

    Raises:
        UsageError: it names no object of Kubernetes (code ``schedule-name``).
    """
    made = name or _fitting(pipeline)
    if len(made) > LONGEST or not _NAME.fullmatch(made):
        raise UsageError(
            f"a schedule cannot be called {made or pipeline!r}",
            allowed=f"a-z, 0-9 and '-', {LONGEST} characters at most.",
            hint=f"--name {_fitting(made) or _fitting(pipeline) or 'NAME'}",
            code="schedule-name",
        )
    return made


def _fitting(text: str) -> str:
    """A name made of a text, empty where nothing of it can stand in one."""
    return _UNFIT.sub("-", text.lower()).strip("-")[:LONGEST].strip("-")


def no_schedule(name: str, place: str, known: Sequence[str], flag: str = "") -> NotFound:
    """The error for a schedule that is not there.

    Args:
        name: that was asked for.
        place: where it was looked for.
        known: what is there.
        flag: names the engine on the command line, where it is not the usual one.
    """
    return NotFound(
        f"there is no schedule {name!r} in {place}",
        allowed=f"One of: {', '.join(known)}." if known else "One that is there; none is yet.",
        hint=f"tidegate schedule {'ls' if known else 'apply FILE --cron EXPR'}{flag}",
        code="schedule-not-found",
    )
