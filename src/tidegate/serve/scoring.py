"""When what is scored: the requests of one tick of the event loop as one batch, large ones and text in a thread.

A tick: the first request asks the loop to be called back when it has read all that is there to read; by then others have
come, and one call of the model answers them all. There is no window to wait for, so a request that comes alone is
scored alone, at once. A tick's batch is bounded: at ``TICK`` rows it is scored before more is read.

A table of more than ``TICK`` rows, and every text (a transformer takes milliseconds), is scored in one thread beside the
loop, so that probes and small requests are answered meanwhile. What waits for that thread is bounded in time: a request
that would wait longer than ``most_seconds`` by what a row has taken of late is refused (503, Retry-After).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tidegate.serve.codec import Asked, Codec
from tidegate.serve.connection import busy
from tidegate.serve.counts import Counts
from tidegate.serve.load import Loaded

TICK = 64  # rows
TEXTS, TABLE = 16, 65_536  # rows of one call in the thread


class Model:
    """A version that is served: what scores, reads, writes and counts for it.

    Args:
        loaded: the version.
        counts: its counts.
    """

    def __init__(self, loaded: Loaded, counts: Counts) -> None:
        self.loaded, self.counts = loaded, counts
        self.version = str(loaded.version.version)
        self.codec = Codec(loaded.scorer.signature, loaded.name, self.version)
        self.slow = loaded.scorer.signature.tokenizer is not None


class Waiting:
    """A request on its way through the model."""

    __slots__ = ("alone", "asked", "caller", "model", "start")

    def __init__(self, model: Model, asked: Asked, caller: Any, start: float) -> None:
        self.model, self.asked, self.caller, self.start = model, asked, caller, start
        self.alone = False  # it was in a batch that failed


# what came of a batch: its requests, columns, labels, probabilities; or why there are none
Done = Callable[[list[Waiting], Any, Any, Any], None]
Failed = Callable[[list[Waiting], BaseException], None]


class Scoring:
    """The queue of one worker.

    Args:
        done: told of each batch that was scored.
        failed: told of requests that the model could not score.
        most_seconds: that a request may wait for the thread.
    """

    def __init__(self, done: Done, failed: Failed, most_seconds: float = 1.0) -> None:
        self._done, self._failed, self._most_seconds = done, failed, most_seconds
        self._tick: list[Waiting] = []
        self._rows = 0
        self._queue: list[Waiting] = []
        self._queued = 0  # rows that wait for the thread or are in it
        self._running = False
        self._row_seconds = 1e-6
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._loop: Any = None

    def add(self, waiting: Waiting) -> None:
        """Score a request soon.

        Raises:
            HttpError: it would have to wait too long (503).
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        rows = waiting.asked.rows
        if waiting.model.slow or rows > TICK:
            self._beside(waiting)
            return
        tick = self._tick
        if not tick:
            loop.call_soon(self._flush)
        tick.append(waiting)
        self._rows += rows
        if self._rows >= TICK:
            self._flush()

    @property
    def waits(self) -> float:
        """About how many seconds a request that comes now would wait for the thread."""
        return self._queued * self._row_seconds

    def _flush(self) -> None:
        batch, self._tick, self._rows = self._tick, [], 0
        if batch:
            if batch[0].model is not batch[-1].model:  # swapped between two requests of one tick
                for w in batch:
                    self._score([w])
            else:
                self._score(batch)

    def _score(self, batch: list[Waiting]) -> None:
        try:
            found = _scored(batch)
        except Exception as e:  # onnxruntime's own exceptions share no base
            self._alone(batch, e)
        else:
            self._done(batch, *found)

    def _alone(self, batch: list[Waiting], error: Exception) -> None:
        """One request must not fail the others of its tick."""
        if len(batch) == 1:
            return self._failed(batch, error)
        for w in batch:
            self._score([w])
        return None

    def _beside(self, waiting: Waiting) -> None:
        if self._queued and self.waits > self._most_seconds:
            raise busy(f"requests wait for {self.waits:.1f} s already", int(self.waits) + 1)
        self._queue.append(waiting)
        self._queued += waiting.asked.rows
        if not self._running:
            self._start()

    def _start(self) -> None:
        batch = _take(self._queue)
        self._running = True
        began = time.perf_counter()
        future = self._loop.run_in_executor(self._pool, _scored, batch)
        future.add_done_callback(lambda f: self._ended(batch, f, began))

    def _ended(self, batch: list[Waiting], future: asyncio.Future[Any], began: float) -> None:
        rows = sum(w.asked.rows for w in batch)
        self._running = False
        self._queued -= rows
        self._row_seconds += 0.3 * ((time.perf_counter() - began) / rows - self._row_seconds)
        error = future.exception()
        if error is None:
            self._done(batch, *future.result())
        elif len(batch) == 1:
            self._failed(batch, error)
        else:
            for w in batch:
                w.alone = True
            self._queue[:0] = batch
            self._queued += rows
        if self._queue:
            self._start()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _scored(batch: Sequence[Waiting]) -> tuple[Any, Any, Any]:
    model = batch[0].model
    columns = model.codec.gather([w.asked for w in batch])
    label, probabilities = model.loaded.scorer.run(columns)
    return columns, label, probabilities


def _take(queue: list[Waiting]) -> list[Waiting]:
    """The next requests of one version that go into one call."""
    model, rows, n = queue[0].model, 0, 0
    most = TEXTS if model.slow else TABLE
    for w in queue:
        if n and (w.model is not model or w.alone or queue[0].alone or rows + w.asked.rows > most):
            break
        rows += w.asked.rows
        n += 1
    batch = queue[:n]
    del queue[:n]
    return batch
