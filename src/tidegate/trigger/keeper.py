"""Keeps one process a schedule alive: each waits for its moment, runs it, and ends, so that the next reads code anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

AGAIN_SECONDS = 60.0  # before a schedule whose process failed is tried again
LOOK_SECONDS = 1.0


class Process(Protocol):
    """What is asked of a process; ``subprocess.Popen`` is one."""

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""

    def terminate(self) -> None:
        """Tell it to end."""

    def wait(self) -> int:
        """Wait for its end."""


@dataclass
class Keeper:
    """The processes of a machine's schedules.

    Args:
        spawn: starts the process of a schedule.
        clock: seconds that only grow.
    """

    spawn: Callable[[str], Process]
    clock: Callable[[], float] = time.monotonic
    running: dict[str, Process] = field(default_factory=dict)
    failed: dict[str, float] = field(default_factory=dict)

    def look(self, names: Collection[str]) -> None:
        """Start what is to run and does not; one that is no longer to run ends by itself."""
        for name, process in list(self.running.items()):
            if (code := process.poll()) is not None:
                del self.running[name]
                if code:
                    self.failed[name] = self.clock()
        for name in names:
            waits = self.clock() - self.failed.get(name, -AGAIN_SECONDS) < AGAIN_SECONDS
            if name not in self.running and not waits:
                self.running[name] = self.spawn(name)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """End all of them, and wait for it, when the block ends."""
        try:
            yield
        finally:
            for process in self.running.values():
                process.terminate()
            for process in self.running.values():
                process.wait()
