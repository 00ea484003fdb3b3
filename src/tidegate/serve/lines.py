"""The log: one JSON object a line, of every error, every slow request and a sample of the rest, and of events.

Lines are written by a thread from a bounded queue: a reader that does not read, or a full disk, costs lines, which are
counted, and never a request.
"""

from __future__ import annotations

import json
import math
import os
import queue
import random
import threading
import time
from collections.abc import Callable
from typing import Any

QUEUE = 10_000


class Lines:
    """A log.

    Args:
        fd: where lines go.
        now: seconds since the epoch.
    """

    def __init__(self, fd: int = 2, now: Callable[[], float] = time.time) -> None:
        self.dropped = 0
        self._fd, self._now = fd, now
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUE)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, event: str, **said: Any) -> None:
        """Log an event; never waits."""
        try:
            self._queue.put_nowait({"time": _iso(self._now()), "event": event, **said})
        except queue.Full:
            self.dropped += 1

    def close(self, seconds: float = 2.0) -> None:
        """Write what is left, as far as that goes in ``seconds``."""
        try:
            self._queue.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            lines, last = [first], False
            while not self._queue.empty() and len(lines) < 1000:
                more = self._queue.get()
                if more is None:
                    last = True
                    break
                lines.append(more)
            self._put("".join(json.dumps(line, default=str) + "\n" for line in lines).encode(), len(lines))
            if last:
                return

    def _put(self, data: bytes, lines: int) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:
                self.dropped += lines
                return


class Sample:
    """Which of many things are in a random sample, at the price of one subtraction a batch.

    Args:
        share: of all, 0 to 1.
        seed: of the choice.
    """

    def __init__(self, share: float, seed: int | None = None) -> None:
        self._share, self._random = share, random.Random(seed)
        self._until = self._gap()

    def take(self, n: int) -> list[int]:
        """Which of the next ``n`` are in the sample, by index."""
        if n < self._until:
            self._until -= n
            return []
        found, at = [], 0
        while at + self._until <= n:
            at += self._until
            found.append(at - 1)
            self._until = self._gap()
        self._until -= n - at
        return found

    def _gap(self) -> int:
        """How far the next one is: geometric."""
        if self._share >= 1:
            return 1
        if self._share <= 0:
            return 1 << 62
        return int(math.log(1 - self._random.random()) / math.log(1 - self._share)) + 1


def _iso(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
