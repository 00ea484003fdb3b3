"""A KFP backend in memory: the whole protocol. Nothing runs in it: whoever plays KFP says how a run goes (``tell``)."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tidegate.engines.kfp.backend import FINAL, BackendRun, Detail, Recurring, Start, Version
from tidegate.errors import ClusterError, Conflict, NotFound


class MemoryBackend:
    """Dictionaries as a ``Backend``; safe for threads.

    Args:
        server: the server's version.
        clock: seconds since the epoch.
    """

    def __init__(self, server: str = "2.14.3", clock: Callable[[], float] = time.time) -> None:
        self.host = "memory:kfp"
        self.packages: dict[str, str] = {}  # by version id
        self.starts: dict[str, Start] = {}  # by run id
        self.retried: list[str] = []
        self._server, self._clock = server, clock
        self._experiments: dict[str, str] = {}
        self._versions: dict[str, list[Version]] = {}
        self._runs: dict[str, BackendRun] = {}
        self._recurring: dict[str, Recurring] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    def tell(self, run_id: str, state: str, details: Sequence[Detail] = (), *, error: str = "") -> None:
        """Say how a run goes."""
        with self._lock:
            finished = self._clock() if state in FINAL else 0.0
            self._runs[run_id] = replace(
                self._runs[run_id], state=state, details=tuple(details), finished=finished, error=error
            )

    def fire(self, recurring_id: str) -> BackendRun:
        """Start a run of a recurring run, as its time comes; one that is disabled starts none."""
        found = self._recurring[recurring_id]
        if not found.enabled:
            raise ClusterError(f"the recurring run {recurring_id} is disabled", code="kfp-refused")
        wanted = Start(found.name, found.experiment, found.version, found.parameters, found.service_account)
        run = replace(self.start(wanted), schedule=recurring_id)
        self._runs[run.id] = run
        return run

    def experiment(self, name: str) -> str:
        """See ``Backend``."""
        with self._lock:
            return self._experiments.setdefault(name, f"experiment-{len(self._experiments) + 1}")

    def find_experiment(self, name: str) -> str | None:
        """See ``Backend``."""
        return self._experiments.get(name)

    def version(self) -> str:
        """See ``Backend``."""
        return self._server

    def find_version(self, pipeline: str, prefix: str) -> Version | None:
        """See ``Backend``."""
        found = reversed(self._versions.get(pipeline, []))
        return next((v for v in found if v.name.startswith(prefix)), None)

    def upload(self, pipeline: str, name: str, package: str, description: str = "") -> Version:  # noqa: ARG002
        """See ``Backend``."""
        with self._lock:
            there = self._versions.setdefault(pipeline, [])
            if any(v.name == name for v in there):
                raise Conflict(f"the pipeline {pipeline} has a version {name}")
            made = Version(f"pipeline-{pipeline}", f"version-{next(self._numbers)}", name)
            there.append(made)
            self.packages[made.id] = package
            return made

    def start(self, start: Start) -> BackendRun:
        """See ``Backend``."""
        with self._lock:
            number = next(self._numbers)
            run = BackendRun(
                f"00000000-0000-4000-8000-{number:012}", start.name, "PENDING", self._clock(),
                parameters=dict(start.parameters),
            )  # fmt: skip
            self._runs[run.id], self.starts[run.id] = run, start
            return run

    def find_run(self, experiment: str, name: str) -> BackendRun | None:
        """See ``Backend``."""
        found = [r for i, r in self._runs.items() if r.name == name and self.starts[i].experiment == experiment]
        return found[-1] if found else None

    def run(self, run_id: str) -> BackendRun:
        """See ``Backend``."""
        if run_id not in self._runs:
            raise NotFound(f"Kubeflow Pipelines does not know it: run {run_id}", code="kfp-not-found")
        return self._runs[run_id]

    def terminate(self, run_id: str) -> None:
        """See ``Backend``."""
        self.tell(run_id, "FAILED", self.run(run_id).details)  # as the real one ends it

    def retry(self, run_id: str) -> None:
        """See ``Backend``."""
        self.retried.append(self.run(run_id).id)
        self.tell(run_id, "RUNNING")

    def runs(self, schedule: str, limit: int) -> Iterator[BackendRun]:
        """See ``Backend``."""
        found = [r for r in self._runs.values() if r.schedule == schedule]
        yield from sorted(found, key=lambda r: r.created, reverse=True)[:limit]

    def recurring(self, experiment: str) -> Iterator[Recurring]:
        """See ``Backend``."""
        yield from [r for r in self._recurring.values() if r.experiment == experiment]

    def recur(self, wanted: Recurring) -> Recurring:
        """See ``Backend``."""
        with self._lock:
            made = replace(wanted, id=f"recurring-{next(self._numbers)}", created=self._clock())
            self._recurring[made.id] = made
            return made

    def enable(self, recurring_id: str, enabled: bool) -> None:
        """See ``Backend``."""
        if recurring_id not in self._recurring:
            raise NotFound(f"Kubeflow Pipelines does not know it: {recurring_id}", code="kfp-not-found")
        self._recurring[recurring_id] = replace(self._recurring[recurring_id], enabled=enabled)

    def remove(self, recurring_id: str) -> None:
        """See ``Backend``."""
        self._recurring.pop(recurring_id, None)
