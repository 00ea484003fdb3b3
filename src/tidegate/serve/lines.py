"""The log: one JSON object a line, of errors, every slow request and a sample of the rest, and of events.

Whoever logs appends to a bounded list and goes on; a thread looks at it a few times a second, makes lines and writes
them. It is not woken for each line: that was measured to cost more than all else that is done for a request, since the
interpreter's lock goes to and fro. A reader that does not read, or a full disk, costs lines, which are counted, and never
a request. Errors are what strangers can cause as often as they like: of each code some a second are logged, and the rest
are counted, too.
"""

from __future__ import annotations

import json
import math
import os
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

QUEUE = 10_000
EVERY = 0.2  # seconds
ERRORS = 20  # of one code, in a second
PIECE = 4096  # bytes; PIPE_BUF of Linux


class Lines:
    """A log.

    Args:
        fd: where lines go.
        now: seconds since the epoch.
    """

    def __init__(self, fd: int = 2, now: Callable[[], float] = time.time) -> None:
        self.dropped = 0
        self._fd, self._now = fd, now
        self._waiting: deque[tuple[float, str, dict[str, Any]]] = deque()
        self._second, self._errors = 0, Counter[int]()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, event: str, **said: Any) -> None:
        """Log an event; never waits."""
        if len(self._waiting) >= QUEUE:
            self.dropped += 1
        else:
            self._waiting.append((self._now(), event, said))

    def bounded(self, event: str, *, code: int, **said: Any) -> None:
        """Log an event of which there may be any number."""
        second = int(self._now())
        if second != self._second:
            self._second, self._errors = second, Counter()
        self._errors[code] += 1
        if self._errors[code] > ERRORS:
            self.dropped += 1
        else:
            self.write(event, code=code, **said)

    def close(self, seconds: float = 2.0) -> None:
        """Write what is left, as far as that goes in ``seconds``."""
        self._end.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._end.wait(EVERY)
            while batch := [self._waiting.popleft() for _ in range(min(len(self._waiting), 1000))]:
                for piece in _pieces([_line(*said) for said in batch]):
                    self._put(b"".join(piece), len(piece))

    def _put(self, data: bytes, lines: int) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:
                self.dropped += lines
                return


def _line(moment: float, event: str, said: dict[str, Any]) -> bytes:
    return json.dumps({"time": _iso(moment), "event": event, **said}, default=str).encode() + b"\n"


def _pieces(lines: list[bytes]) -> Iterator[list[bytes]]:
    """Lines in pieces that a pipe takes whole, so that those of several workers do not run into each other."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > PIECE:
            yield piece
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    yield piece


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
