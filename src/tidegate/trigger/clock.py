"""Runs by the clock, without a cluster: each moment of a schedule is claimed, run and marked, once by any number of these.

Of moments that came while nobody was there, or while the run before went on, the latest starts if it is at most
``catch_up`` seconds late; earlier ones are missed, and that is written. What a moment's run was killed in is gone on
with, however late. ``triggers/<name>/clock`` says how far a schedule is: the last moment that is over, and the one that
is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tidegate.cron import Expression, moments
from tidegate.errors import Damaged, NotFound, Trouble, UsageError
from tidegate.plan.events import FAILED, SUCCEEDED
from tidegate.store.base import Store
from tidegate.trigger.claim import Claims, Lease, run_id_of, work_of
from tidegate.trigger.history import ENDED, STARTED, WAITING, Happening, History
from tidegate.trigger.watch import Order

LONGEST_WAIT = 30.0  # a clock that is put forward, a lid that is opened


@dataclass(frozen=True)
class Bell:
    """When a schedule runs: its name, its moments in its zone, and how many seconds late one may still start."""

    name: str
    expression: Expression
    where: ZoneInfo
    catch_up: float


@dataclass(frozen=True)
class Due:
    """The moment that has come and may still start, and the first one that may not any more."""

    moment: datetime | None = None
    missed: datetime | None = None


def due(bell: Bell, after: datetime, now: datetime) -> Due:
    """Return what came after one moment and up to another."""
    late = now - timedelta(seconds=bell.catch_up)
    latest = None
    for moment in moments(bell.expression, bell.where, max(after, late - timedelta(seconds=1))):
        if moment > now:
            break
        latest = moment if moment >= late else latest
    first = next(moments(bell.expression, bell.where, after), None)
    return Due(latest, first if first and first < min(late, latest or now) else None)


def upcoming(bell: Bell, now: datetime) -> datetime | None:
    """The next moment, None where none comes."""
    return next(moments(bell.expression, bell.where, now), None)


@dataclass(frozen=True)
class Position:
    """How far a schedule is: the last moment that is over, and the one whose run has begun and not ended."""

    over: str
    open: str = ""


class Clock:
    """One schedule on one machine.

    Args:
        bell: when it runs.
        store: where claims, marks, history and position are.
        start: runs the pipeline and returns the state in which the run ended.
        parameters: of its runs.
        lease: seconds after which a holder that gives no sign is taken for dead.
        clock: seconds that only grow, of this machine.
        now: seconds since the epoch.
        who: this machine's name, for people.
    """

    def __init__(
        self,
        bell: Bell,
        store: Store,
        start: Callable[[Order], str],
        *,
        parameters: Mapping[str, Any] | None = None,
        lease: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        who: str = "",
    ) -> None:
        self.bell, self.store, self.start, self.parameters = bell, store, start, parameters or {}
        self.now, self.who, self.lease = now, who, lease
        self.claims = Claims(store, lease, clock, who)
        self.history = History(store, bell.name)

    def turn(self) -> float:
        """Run the moment that has come, if one has; return the seconds after which it is worth looking again.

        Raises:
            Trouble: the store cannot be used; nothing is lost by trying again.
            KeyboardInterrupt: the run was interrupted; whoever comes next goes on with it.
        """
        now = datetime.fromtimestamp(self.now(), UTC)
        position = self._position(now)
        found = due(self.bell, datetime.fromisoformat(position.over), now)
        if found.missed and not position.open:
            self._miss(found.missed, now)
        moment = position.open or (found.moment.isoformat() if found.moment else "")
        if not moment:
            return self._until_next(now)
        return self._claim(moment, position)

    def _until_next(self, now: datetime) -> float:
        moment = upcoming(self.bell, now)
        return min(LONGEST_WAIT, (moment - now).total_seconds()) if moment else LONGEST_WAIT

    def _claim(self, moment: str, position: Position) -> float:
        work = work_of(self.bell.name, {}, {"moment": moment})
        if self.claims.look(work).done:
            self._move(Position(moment))
            return 0.0
        lease = self.claims.take(work)
        if not lease:
            return min(LONGEST_WAIT, self.lease / 4)
        self._move(Position(position.over, moment))
        self._run(lease, moment)
        return 0.0

    def _run(self, lease: Lease, moment: str) -> None:
        run_id = run_id_of(self.bell.name, lease.work)
        try:
            self._write(STARTED, "clock", f"its time came: {moment}", run_id)
            state, why = self._started(Order(run_id, self.parameters, lease))
        except (KeyboardInterrupt, Trouble):
            with suppress(Trouble):  # then the lease runs out by itself
                lease.release()
            raise
        if lease.mark(run_id, state, {"moment": moment}):
            self._write(ENDED, state, why or f"run {run_id} {state}", run_id)
            self._move(Position(moment))

    def _started(self, order: Order) -> tuple[str, str]:
        """Run; a definition that cannot run ends this moment, not the schedule."""
        try:
            state = self.start(order)
        except UsageError as e:
            return FAILED, f"{e.code}: {e.found}"
        if state not in (SUCCEEDED, FAILED):
            raise KeyboardInterrupt  # it was told to end, and says so by its state
        return state, ""

    def _miss(self, first: datetime, now: datetime) -> None:
        said = f"the run of {first.isoformat()} was missed: more than {self.bell.catch_up:g} s late"
        self._write(WAITING, "missed", said)
        self._move(Position((now - timedelta(seconds=self.bell.catch_up)).isoformat()))

    def _position(self, now: datetime) -> Position:
        try:
            return Position(**json.loads(self.store.get(self._key)))
        except NotFound:
            self._move(Position(now.isoformat()))
            return Position(now.isoformat())
        except (ValueError, TypeError) as e:
            raise Damaged(f"{self._key} cannot be read: {e}", hint="Remove it: the schedule begins anew.") from e

    @property
    def _key(self) -> str:
        return f"triggers/{self.bell.name}/clock"

    def _move(self, position: Position) -> None:
        self.store.put(self._key, json.dumps(position.__dict__).encode())

    def _write(self, kind: str, reason: str, detail: str, run_id: str = "") -> None:
        self.history.write(Happening(kind, reason, detail, run_id, self.who, 0, self.now()))
