"""Hints: whatever wakes a watcher before its next look. A hint says "look now" and nothing else.

Nothing that a hint carries is read: what is there is resolved by the watcher. So a hint may be lost, late, doubled or a
lie; the worst that comes of it is a look that finds nothing. Any number of them between two looks are one, and looks
that hints ask for are at least ``APART`` seconds apart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from tidegate.errors import TidegateError, Trouble

APART = 1.0
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # after trouble with a source


class Hints:
    """One flag that any number of sources raise, and the watcher that waits for it.

    Args:
        clock: seconds that only grow.
        pause: waits, in seconds, whatever comes.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.clock, self.pause = clock, pause
        self._given, self._next = threading.Event(), 0.0

    def give(self) -> None:
        """Wake the watcher; while it looks or runs this is kept for when it is done."""
        self._given.set()

    def wait(self, seconds: float) -> bool:
        """Wait for a hint, seconds at most; say whether one came."""
        end = self.clock() + seconds
        hinted = self._given.wait(seconds)
        if hinted and (early := min(self._next, end) - self.clock()) > 0:
            self.pause(early)
        self._given.clear()  # before the look: what comes from now on asks for another
        self._next = self.clock() + APART
        return hinted


class Source(Protocol):
    """Where notifications are asked for."""

    def check(self) -> None:
        """Find out whether it can be asked at all.

        Raises:
            UsageError: it never will be, as it is written.
            Trouble: it cannot at this moment.
        """

    def receive(self, give: Callable[[], None]) -> None:
        """Wait for notifications for a while and give a hint for what came; raise as ``check``."""


@contextmanager
def followed(source: Source, hints: Hints, say: Callable[[str], None]) -> Iterator[None]:
    """Ask a source again and again while the block runs, in a thread that ends with it or with the process.

    Trouble is said once and waited for: without its hints a watcher looks as often as it polls.

    Raises:
        UsageError: the source cannot be asked as it is written.
    """
    ended, known = threading.Event(), ""
    try:
        source.check()
    except Trouble as e:
        known = _tell(say, e)
    threading.Thread(target=_follow, args=(source, hints, say, ended, known), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _follow(source: Source, hints: Hints, say: Callable[[str], None], ended: threading.Event, known: str) -> None:
    wait = FIRST_WAIT
    while not ended.is_set():
        try:
            source.receive(hints.give)
            known, wait = "", FIRST_WAIT
        except TidegateError as e:
            known, wait = _tell(say, e, known), min(2 * wait, LONGEST_WAIT)
        ended.wait(wait)


def _tell(say: Callable[[str], None], error: TidegateError, known: str = "") -> str:
    """Say what is wrong where it is not known yet, and return it."""
    if error.found != known:
        say(" ".join(filter(None, [f"no hints for now: {error.found}.", error.hint])))
    return error.found
