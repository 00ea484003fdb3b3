"""The prediction log: a sample of scored rows in Parquet files, so that labels that come later can be joined to them.

A thread collects rows and writes a file when it has ``ROWS`` of them or the oldest has waited ``SECONDS``. A file is
written under another name, synced and then renamed: what ends in ``.parquet`` is whole. Nothing here can make a request
wait or fail: a full queue or a full disk costs rows, which are counted, and is said in the log, once a minute at most.

Columns: ``time`` (UTC), ``request_id``, ``row`` (within its request), ``model``, ``version``, ``digest``, the model's
inputs as ``input.NAME``, ``label``, ``probability.CLASS``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigError

ROWS, SECONDS, QUEUE = 10_000, 60.0, 1_000


@dataclass(frozen=True)
class Scored:
    """A scored request, to be kept: columns of ``[n]`` values each."""

    time: float
    request_id: str
    model: str
    version: int
    digest: str
    inputs: Mapping[str, Any]
    label: list[Any]
    probabilities: Mapping[str, list[float]]


class Keeper:
    """A prediction log.

    Args:
        folder: where files go; made when it is not there.
        say: told what went wrong.
        rows: of one file, about.
        seconds: the most that a row waits.

    Raises:
        ConfigError: the folder cannot be written to, or pyarrow is not there (code ``prediction-log``).
    """

    def __init__(self, folder: Path, say: Callable[[str], None], rows: int = ROWS, seconds: float = SECONDS) -> None:
        self.kept = self.dropped = 0
        self._folder, self._say, self._rows, self._seconds = folder, say, rows, seconds
        self._said, self._number = -60.0, 0
        self._queue: queue.Queue[Scored | None] = queue.Queue(QUEUE)
        check_folder(folder)
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def add(self, scored: Scored) -> None:
        """Keep a request's rows; never waits."""
        try:
            self._queue.put_nowait(scored)
        except queue.Full:
            self.dropped += len(scored.label)

    def close(self, seconds: float = 10.0) -> None:
        """Write what is left, as far as that goes in ``seconds``."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=seconds)
        self._thread.join(seconds)

    def _run(self) -> None:
        waiting: list[Scored] = []
        rows, since = 0, 0.0
        while True:
            try:
                left = max(since + self._seconds - time.monotonic(), 0.01) if waiting else None
                scored = self._queue.get(timeout=left)
                if scored is not None:
                    since = since if waiting else time.monotonic()
                    waiting.append(scored)
                    rows += len(scored.label)
            except queue.Empty:
                scored = waiting[0]
            due = bool(waiting) and (rows >= self._rows or time.monotonic() - since >= self._seconds)
            if due or (scored is None and waiting):
                self._write(waiting)
                waiting, rows = [], 0
            if scored is None:
                return

    def _write(self, waiting: list[Scored]) -> None:
        """One file for each version among them: another version may have other columns."""
        for digest in dict.fromkeys(s.digest for s in waiting):
            own = [s for s in waiting if s.digest == digest]
            n = sum(len(s.label) for s in own)
            try:
                self._file(own)
                self.kept += n
            except Exception as e:  # pyarrow's errors, the disk's, memory: none may stop the thread
                self.dropped += n
                if time.monotonic() - self._said >= 60:
                    self._said = time.monotonic()
                    self._say(f"{n} rows of predictions are lost: {str(e)[:200]}")

    def _file(self, own: list[Scored]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._number += 1
        first = own[0]
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(first.time))
        name = f"{first.model}-{first.version}-{stamp}-{os.getpid()}-{self._number}.parquet"
        temporary = self._folder / f".{name}.part"
        try:
            with temporary.open("wb") as f:
                pq.write_table(pa.table(_columns(own, pa)), f, compression="zstd")
                f.flush()
                os.fsync(f.fileno())
            temporary.rename(self._folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fd = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def check_folder(folder: Path) -> None:
    """Make the folder of a prediction log, and see that it can be written.

    Raises:
        ConfigError: it cannot, or pyarrow is not there (code ``prediction-log``).
    """
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise ConfigError(
            "a prediction log needs pyarrow, which is not installed",
            hint="pip install 'tidegate[data]'",
            code="prediction-log",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise ConfigError(
            f"the prediction log {folder} cannot be written: {e.strerror}",
            allowed="A folder of this user.",
            hint="--prediction-log DIR",
            code="prediction-log",
        ) from e


def _columns(own: list[Scored], pa: Any) -> dict[str, Any]:
    """Arrow columns of the rows of one version."""
    counts = [len(s.label) for s in own]

    def each(value: Callable[[Scored], Any]) -> list[Any]:
        return [value(s) for s, n in zip(own, counts, strict=True) for _ in range(n)]

    moments = pa.array([int(t * 1e6) for t in each(lambda s: s.time)], pa.timestamp("us", tz="UTC"))
    columns = {
        "time": moments,
        "request_id": each(lambda s: s.request_id),
        "row": [i for n in counts for i in range(n)],
        "model": each(lambda s: s.model),
        "version": each(lambda s: s.version),
        "digest": each(lambda s: s.digest),
    }
    for name in own[0].inputs:
        columns[f"input.{name}"] = [v for s in own for v in s.inputs[name]]
    columns["label"] = [v for s in own for v in s.label]
    for c in own[0].probabilities:
        columns[f"probability.{c}"] = [v for s in own for v in s.probabilities[c]]
    return columns
