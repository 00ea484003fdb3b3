"""Start a run for a watcher, and keep its lease while the run goes on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from tidegate import api
from tidegate.errors import Conflict, Trouble
from tidegate.plan.events import Event, Notice
from tidegate.prepared import Prepared
from tidegate.trigger.claim import Lease
from tidegate.trigger.watch import Order

BEATS = 6  # a lease
GOING_SECONDS = 5.0
END_SECONDS = 5.0


@dataclass(frozen=True)
class Starter:
    """Runs a pipeline on an engine.

    Args:
        prepared: the pipeline.
        options: how to run it.
        report: called with every event of a run.
        pause: waits, in seconds.
    """

    prepared: Prepared
    options: api.Options
    report: Callable[[Event], None]
    pause: Callable[[float], None] = time.sleep

    def __call__(self, order: Order) -> str:
        """Run what is ordered, or go on with it; return the run's state.

        Raises:
            KeyboardInterrupt: the run was interrupted, or its lease was lost.
            UsageError: the pipeline cannot run.
            Trouble: the store or the cluster cannot be used.
        """
        with held(order.lease):
            return self._run(order).state

    def _run(self, order: Order) -> api.Run:
        """Run; a holder that was given up may not have ended its run yet, which is waited for."""
        options, told = replace(self.options, run_id=order.run_id), False
        while True:
            try:
                return api.run(self.prepared, order.parameters, options, self.report)
            except Conflict as e:
                if e.code != "run-going":
                    raise
            if not told:
                self.report(Notice(f"run {order.run_id} still goes on elsewhere; waiting for its end"))
            told = True
            self.pause(GOING_SECONDS)


@contextmanager
def held(lease: Lease, interrupt: Callable[[], None] | None = None) -> Iterator[None]:
    """Keep a lease while the block runs; interrupt the main thread as soon as the lease is lost."""
    ended, lock = threading.Event(), threading.Lock()
    beats = threading.Thread(target=_beat, args=(lease, ended), daemon=True)
    guard = threading.Thread(target=_guard, args=(lease, ended, lock, interrupt or _interrupt), daemon=True)
    beats.start()
    guard.start()
    try:
        yield
    finally:
        with lock:  # after this nothing is interrupted any more
            ended.set()
        guard.join()
        beats.join(END_SECONDS)


def _beat(lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(lease.claims.lease / BEATS):
        with suppress(Trouble):  # the guard looks at the time
            if not lease.beat():
                return


def _guard(lease: Lease, ended: threading.Event, lock: threading.Lock, interrupt: Callable[[], None]) -> None:
    while not ended.wait(max(0.01, min(lease.left, lease.claims.lease / BEATS))):
        if lease.is_held():
            continue
        with lock:
            if not ended.is_set():
                interrupt()
        return


def _interrupt() -> None:
    """Send the main thread what ends it as Ctrl-C does; a shell lets what runs in the background ignore SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if callable(signal.getsignal(number)):
            signal.pthread_kill(threading.main_thread().ident or 0, number)
            return
