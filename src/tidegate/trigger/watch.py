"""A watcher of data: look → wait until it is quiet → claim → run → mark.

Data whose bytes have not all arrived where a run would bring them from (a commit that was pushed before its DVC data) is
no new data yet: it is waited for, first as for data that changes, then with what is missing as the reason.

Whatever makes a watcher look (its own poll, a notification, a restart) is a hint and no more: what is there is resolved
to pins each time. So events may be lost, late, doubled or out of order. Data is *quiet* when whoever writes it has said
that it is whole, or when all looks for ``quiet`` seconds found the same. For a pipeline, its parameters and such data one
outcome is kept (``claim.py``), by any number of watchers, and while their clocks run at most one of them runs it.

All waiting, looking and running is handed in, so that tests move the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tidegate.data import ref
from tidegate.data.base import Pin
from tidegate.errors import TidegateError, Trouble
from tidegate.plan.events import FAILED, SUCCEEDED
from tidegate.store.base import Store
from tidegate.trigger.claim import Claims, Done, Lease, run_id_of, work_of
from tidegate.trigger.history import ENDED, STARTED, WAITING, Happening, History
from tidegate.trigger.retrain import Refusal, Retrain

KNOWN = 1000  # pins whose identity a watcher remembers
UNSETTLED, NOT_NEW, HELD, LOST, RAN = "unsettled", "not-new", "held", "lease-lost", "ran"


@dataclass(frozen=True)
class Watch:
    """What is watched, what runs, and at what pace.

    Attributes:
        name: of the trigger.
        pipeline: the pipeline's name.
        digest: of its plan.
        data: references by the parameter that is given their pin.
        parameters: the other run parameters.
        poll: seconds between looks.
        quiet: seconds for which data must not have changed.
        lease: seconds after which a holder that gives no sign is taken for dead.
        retrain: how often runs may start.
    """

    name: str
    pipeline: str
    digest: str
    data: Mapping[str, str]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    poll: float = 60.0
    quiet: float = 30.0
    lease: float = 60.0
    retrain: Retrain = field(default_factory=Retrain)


@dataclass(frozen=True)
class Order:
    """A run to be started: its id, all its parameters, and the lease that has to be kept while it goes on."""

    run_id: str
    parameters: Mapping[str, Any]
    lease: Lease


@dataclass(frozen=True)
class Turn:
    """What came of one look.

    Attributes:
        reason: a code: ``ran``, or why nothing did.
        detail: the same for people.
        again: seconds after which it is worth looking again.
        done: the outcome that is kept for the data that is there.
        error: what went wrong.
    """

    reason: str
    detail: str
    again: float
    done: Done | None = None
    error: TidegateError | None = None


@dataclass(frozen=True)
class Sight:
    """What data was there, and since when nothing else was, by the watcher's own clock."""

    identities: Mapping[str, str]
    since: float


def seen(before: Sight | None, pins: Mapping[str, Pin], now: float) -> Sight:
    """Return what is there now: since before, where it is what was there then."""
    identities = {name: pin.identity for name, pin in pins.items()}
    return before if before and before.identities == identities else Sight(identities, now)


def unquiet(sight: Sight, pins: Mapping[str, Pin], now: float, quiet: float) -> float:
    """Seconds for which the data must stay as it is before it counts as whole, 0 where it does."""
    if all(pin.complete for pin in pins.values()):
        return 0.0
    return max(0.0, sight.since + quiet - now)


class Watcher:
    """One watcher, of any number.

    Args:
        watch: what, and at what pace.
        store: where claims, marks and the history are.
        start: runs a pipeline and returns the state in which the run ended.
        resolve: finds what a reference names.
        identify: says what is the same where the bytes of pins are; asked once for a pin, when it is quiet.
        clock: seconds that only grow, of this machine.
        now: seconds since the epoch, for people and for limits a day.
        who: this watcher's name, for people.
    """

    def __init__(
        self,
        watch: Watch,
        store: Store,
        start: Callable[[Order], str],
        *,
        resolve: Callable[[str], Pin] = ref.resolve,
        identify: Callable[[Pin], str] = lambda pin: pin.identity,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        who: str = "",
    ) -> None:
        self.watch, self.store, self.start, self.resolve = watch, store, start, resolve
        self.identify, self.clock, self.now, self.who = identify, clock, now, who
        self.claims = Claims(store, watch.lease, clock, who)
        self.history = History(store, watch.name)
        self._sight: Sight | None = None
        self._identities: dict[str, str] = {}
        self._done: dict[str, Done] = {}
        self._said: str | None = None
        self._looks = 0

    def turn(self) -> Turn:
        """Look once, and run what is new; the reason is written where it is another than before.

        Raises:
            UsageError: the pipeline cannot run at all.
            KeyboardInterrupt: the run was interrupted; what it did is kept, and the next watcher goes on with it.
        """
        try:
            turn = self._turn()
            self._note(turn)
        except Trouble as e:
            turn = self._failed(e)
            with suppress(Trouble):  # the store itself may be the trouble
                self._note(turn)
        return turn

    def _turn(self) -> Turn:
        try:
            pins = {name: self.resolve(reference) for name, reference in self.watch.data.items()}
            now = self.clock()
            self._sight = seen(self._sight, pins, now)
            if left := unquiet(self._sight, pins, now, self.watch.quiet):
                detail = f"the data changed less than {self.watch.quiet:g} s ago"
                return Turn(UNSETTLED, detail, min(left, self.watch.poll))
            identities = {name: self._identity(pin) for name, pin in pins.items()}
        except TidegateError as e:
            return self._failed(e)
        work = work_of(self.watch.digest, self.watch.parameters, identities)
        if work in self._done:
            return self._not_new(self._done[work])
        return self._claim(work, pins)

    def _identity(self, pin: Pin) -> str:
        if str(pin) not in self._identities:
            self._identities = {str(pin): self.identify(pin), **dict(islice(self._identities.items(), KNOWN))}
        return self._identities[str(pin)]

    def _claim(self, work: str, pins: Mapping[str, Pin]) -> Turn:
        view = self.claims.look(work)
        if view.done:
            return self._not_new(self._keep(work, view.done))
        if not view.epoch and (turn := self._not_yet(work, pins)):
            return turn
        lease = self.claims.take(work)
        if not lease:
            detail = f"it is claimed by {self.claims.holder(work) or 'another watcher'}"
            return Turn(HELD, detail, min(self.watch.poll, self.watch.lease))
        return self._run(lease, {name: str(pin) for name, pin in pins.items()})

    def _not_yet(self, work: str, pins: Mapping[str, Pin]) -> Turn | None:
        """Why new data does not have its run at this moment; the place in the day is taken last."""
        retrain, now = self.watch.retrain, self.now()
        last = self.history.last_start() if retrain.gap else None
        return (
            self._too_soon()
            or self._limit(retrain.refusal(now, last))
            or self._arriving(pins)
            or self._limit(retrain.place(self.store, self.watch.name, work, now))
        )

    def _arriving(self, pins: Mapping[str, Pin]) -> Turn | None:
        """Wait for bytes that are on their way; after ``quiet`` seconds that is said to be wrong."""
        why = next((found for pin in pins.values() if (found := pin.absent())), None)
        if not why or not self._sight:
            return None
        left = self._sight.since + self.watch.quiet - self.clock()
        return Turn(UNSETTLED, why.found, min(left, self.watch.poll)) if left > 0 else self._failed(why)

    def _too_soon(self) -> Turn | None:
        """Wait for what may follow, as commits do: asked for new data only, what had its run has no need to settle."""
        debounce = self.watch.retrain.debounce
        left = self._sight.since + debounce - self.clock() if self._sight else 0.0
        if left <= 0:
            return None
        return Turn(UNSETTLED, f"newer data came less than {debounce:g} s ago", min(left, self.watch.poll))

    def _limit(self, why: Refusal | None) -> Turn | None:
        return Turn(why.code, why.detail, min(why.again, self.watch.poll)) if why else None

    def _run(self, lease: Lease, pins: Mapping[str, str]) -> Turn:
        run_id = run_id_of(self.watch.pipeline, lease.work)
        again = "" if lease.epoch == 1 else f", for the {lease.epoch}. time"
        try:
            self._write(STARTED, "new-data", f"new data: {', '.join(pins.values())}{again}", run_id)
            state = self.start(Order(run_id, {**self.watch.parameters, **pins}, lease))
            if state not in (SUCCEEDED, FAILED):
                raise KeyboardInterrupt  # it was told to end, and says so by its state
        except KeyboardInterrupt:
            if lease.lost:
                return self._lost(run_id)
            self._release(lease)
            raise
        except TidegateError:
            self._release(lease)
            raise
        return self._mark(lease, run_id, state, pins)

    def _mark(self, lease: Lease, run_id: str, state: str, pins: Mapping[str, str]) -> Turn:
        done = lease.mark(run_id, state, pins)
        if not done or done.epoch != lease.epoch:
            return self._lost(run_id)
        self._write(ENDED, state, f"run {run_id} {state}", run_id)
        return Turn(RAN, f"run {run_id} {done.state}", self.watch.poll, self._keep(lease.work, done))

    def _release(self, lease: Lease) -> None:
        with suppress(Trouble):  # then the lease runs out by itself
            lease.release()

    def _lost(self, run_id: str) -> Turn:
        return Turn(LOST, f"another watcher has taken over run {run_id}", self.watch.poll)

    def _keep(self, work: str, done: Done) -> Done:
        self.claims.forget(work)
        self._done[work] = done
        return done

    def _not_new(self, done: Done) -> Turn:
        return Turn(NOT_NEW, f"this data has had its run: {done.run_id} {done.state}", self.watch.poll, done)

    def _failed(self, error: TidegateError) -> Turn:
        return Turn(error.code, error.found, self.watch.poll, error=error)

    def _note(self, turn: Turn) -> None:
        """Count a look; write why nothing started where that is another reason than before."""
        self._looks += 1
        if self._said is None:
            self._said = next((h.reason + h.run_id for h in self.history.newest()), "")
        run_id = turn.done.run_id if turn.done else ""
        if turn.reason != RAN and turn.reason + run_id != self._said:
            self._write(WAITING, turn.reason, turn.detail, run_id)

    def _write(self, kind: str, reason: str, detail: str, run_id: str) -> None:
        self.history.write(Happening(kind, reason, detail, run_id, self.who, self._looks, self.now()))
        self._said, self._looks = reason + run_id, 0
