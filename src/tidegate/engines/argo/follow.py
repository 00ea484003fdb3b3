"""What running steps write, passed on while they run: one thread a pod."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from itertools import islice
from types import TracebackType

from tidegate.engines.argo.cluster import Cluster
from tidegate.errors import ClusterError, NotFound
from tidegate.plan.events import Report, StepLog

MAIN = "main"
AT_ONCE = 32
DRAIN_SECONDS = 2.0
PAUSES = (0.0, 1.0, 2.0, 4.0)  # seconds before a log is asked for, and asked for again when it broke off
_ARGOS = re.compile(r"(time=\S+ )?level=.* argo=true")


def from_argo(line: str) -> bool:
    """Whether a line of a step's log is what Argo's executor writes around the command."""
    return bool(_ARGOS.match(line))


class Follower:
    """Follows the pods of one run.

    Args:
        cluster: where they are.
        namespace: their namespace.
        report: is given every line.
    """

    def __init__(self, cluster: Cluster, namespace: str, report: Report) -> None:
        self._cluster, self._namespace, self._report = cluster, namespace, report
        self._threads: dict[str, threading.Thread] = {}
        self._over = threading.Event()

    def __enter__(self) -> Follower:
        """Follow nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give what has just ended a moment to be passed on."""
        self._over.set()
        end = time.monotonic() + DRAIN_SECONDS
        for thread in self._threads.values():
            thread.join(max(0.0, end - time.monotonic()))

    def follow(self, path: str, pod: str) -> None:
        """Pass on what the pod of a step writes, from its beginning."""
        running = sum(t.is_alive() for t in self._threads.values())
        if pod not in self._threads and running < AT_ONCE:
            self._threads[pod] = threading.Thread(target=self._pass_on, args=(path, pod), daemon=True)
            self._threads[pod].start()

    def _pass_on(self, path: str, pod: str) -> None:
        said = 0
        for pause in PAUSES:
            if pause and self._over.wait(pause):
                return
            with contextlib.suppress(ClusterError, NotFound):
                for line in islice(self._lines(pod), said, None):
                    said += 1
                    self._say(path, line)
                return

    def _lines(self, pod: str) -> Iterator[bytes]:
        rest = b""
        for piece in self._cluster.log(pod, self._namespace, MAIN, follow=True):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def _say(self, path: str, line: bytes) -> None:
        text = line.decode(errors="replace")
        if not from_argo(text):
            self._report(StepLog(path, text))
