"""The local engine's loop: ready steps to worker threads, their ends back into the graph, records into the store."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.engines.base import Arguments, check_arguments
from tidegate.engines.graph import Graph, Ready
from tidegate.engines.kept import as_kept
from tidegate.engines.local.command import check_commands
from tidegate.engines.local.host import Host
from tidegate.engines.local.kubernetes import check_settings
from tidegate.engines.local.process import Launcher
from tidegate.engines.local.scratch import scratch_folder
from tidegate.engines.local.worker import Done, Site, perform
from tidegate.engines.values import Values
from tidegate.plan.events import CANCELED, FAILED, SUCCEEDED, Outcome, Report, StepFinished, StepStarted
from tidegate.plan.model import Plan
from tidegate.project import state_folder
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs
from tidegate.store.cache import Cache
from tidegate.store.runs import Runs, StepRecord, iso


@dataclass(frozen=True)
class LocalEngine:
    """Runs a plan on this machine.

    Args:
        store: where artifacts, cache and records live.
        host: the project's folder, from which components are imported, and what stands for cluster objects.
        run_id: the run's id in the store.
        jobs: steps at a time; the number of cores by default.
        use_cache: False runs every step, whatever the cache holds.
        finished: steps of this same run that succeeded before it was interrupted, by path; they stay finished.
        created: when the run was, in ISO 8601: what its placeholder says, however often it is gone on with.
    """

    store: Store
    host: Host
    run_id: str
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    use_cache: bool = True
    finished: Mapping[str, StepRecord] = field(default_factory=dict)
    created: str = field(default_factory=lambda: iso(time.time()))

    def run(self, plan: Plan, arguments: Arguments, report: Report) -> Outcome:
        """Run the plan; Ctrl-C (KeyboardInterrupt) kills every step and ends the run as CANCELED."""
        check_host(plan, self.host)
        arguments = check_arguments(plan, arguments)
        with scratch_folder(self.run_id) as scratch:
            return self._run(plan, arguments, report, scratch)

    def _run(self, plan: Plan, arguments: Arguments, report: Report, scratch: Path) -> Outcome:
        context = self._context(plan)
        launcher = Launcher()
        site = Site(
            self.run_id, Blobs(self.store, self.run_id), Cache(self.store), Runs(self.store), launcher, self.host, scratch,
            report, threading.Event(), context, plan.name, self.use_cache, self.finished,
        )  # fmt: skip
        if plan.settings.get("workspace"):
            Path(context["workspace_path"]).mkdir(parents=True, exist_ok=True)
        try:
            return _Loop(plan, Graph(plan, arguments, context), site, self.jobs).run()
        finally:
            launcher.close()

    def _context(self, plan: Plan) -> dict[str, str]:
        return {
            "pipeline_job_name": f"{plan.name}-{self.run_id}",
            "pipeline_job_resource_name": f"{plan.name}-{self.run_id}",
            "pipeline_job_uuid": self.run_id,
            "pipeline_job_create_time_utc": self.created,
            "pipeline_job_schedule_time_utc": self.created,
            "pipeline_root": f"{self.store.uri}/runs/{self.run_id}",
            "workspace_path": str(state_folder(self.host.root) / "workspaces" / self.run_id),
        }


def check_host(plan: Plan, host: Host) -> None:
    """Refuse, before anything starts, a plan that this machine cannot run.

    Raises:
        DefinitionError: a command, secret or config map that it does not have.
    """
    check_commands(plan, host)
    check_settings(plan, host)


class _Loop:
    def __init__(self, plan: Plan, graph: Graph, site: Site, jobs: int) -> None:
        self.plan, self.graph, self.site, self.jobs = plan, graph, site, jobs
        self.ends: queue.SimpleQueue[tuple[Ready, Done]] = queue.SimpleQueue()
        self.steps: list[StepFinished] = []
        self.error: Mapping[str, Any] | None = None
        self.started = time.monotonic()
        self.deadline = float(plan.settings.get("activeDeadlineSeconds", 0))

    def _left(self) -> float | None:
        return max(0.0, self.started + self.deadline - time.monotonic()) if self.deadline else None

    def run(self) -> Outcome:
        with ThreadPoolExecutor(self.jobs, thread_name_prefix="tidegate-step") as pool:
            try:
                self.graph.start()
                self._drain(pool)
                while not self.graph.done:
                    ready, done = self.ends.get(timeout=self._left())
                    self._finish(ready, done)
                    self._drain(pool)
            except queue.Empty:
                self.site.cancel.set()
                _shut_down(pool)
                self._cancelled()
                found = f"the run took longer than its activeDeadlineSeconds, {self.deadline:g} s"
                self.error = {"code": "run-timeout", "message": found}
                return self._outcome(FAILED, Values())
            except KeyboardInterrupt:
                self.site.cancel.set()
                _shut_down(pool)
                self._cancelled()
                return self._outcome(CANCELED, Values())
            except BaseException:
                self.site.cancel.set()
                raise
        return self._outcome(self.graph.state, self.graph.outputs)

    def _drain(self, pool: ThreadPoolExecutor) -> None:
        """Hand over what is ready; note what ended without running."""
        for ended in self.graph.ended:
            finished = StepFinished(ended.path, ended.state, error=ended.error, note=ended.note)
            self._note(finished, Done(ended.state, error=ended.error), None)
        self.graph.ended.clear()
        for ready in self.graph.ready:
            pool.submit(self._perform, ready)
        self.graph.ready.clear()

    def _perform(self, ready: Ready) -> None:
        try:
            self.site.running.add(ready.id)
            self.site.report(StepStarted(ready.path))
            assert isinstance(ready.task.component.body, str)
            done = perform(self.site, ready, self.plan.executors[ready.task.component.body])
        except BaseException as e:  # a bug of ours must end the run, not hang it
            done = Done(FAILED, error={"code": "internal", "message": f"{type(e).__name__}: {e}"})
        self.site.running.discard(ready.id)
        self.ends.put((ready, done))

    def _finish(self, ready: Ready, done: Done) -> None:
        self.graph.finish(ready, SUCCEEDED if done.state == SUCCEEDED else FAILED, done.outputs, done.error)
        self._note(_event(ready, done), done, ready)

    def _note(self, finished: StepFinished, done: Done, ready: Ready | None) -> None:
        if not done.kept:
            self.site.runs.step(self.site.run_id, _record(finished, done, ready))
        self.steps.append(finished)
        if finished.error and not self.error:
            self.error = {**finished.error, "step": finished.step}
        self.site.report(finished)

    def _cancelled(self) -> None:
        while not self.ends.empty():
            ready, done = self.ends.get()
            self._note(_event(ready, done), done, ready)

    def _outcome(self, state: str, outputs: Values) -> Outcome:
        seconds = time.monotonic() - self.started
        error = self.error if state == FAILED else None
        if state == CANCELED:
            error = {"code": "cancelled", "message": "the run was cancelled"}
        return Outcome(
            self.site.run_id, state, outputs.parameters, outputs.artifacts, tuple(self.steps), error, seconds
        )


def _shut_down(pool: ThreadPoolExecutor) -> None:
    """Wait for the steps that are being killed, which takes seconds at most, however often Ctrl-C is pressed."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return pool.shutdown(wait=True, cancel_futures=True)


def _event(ready: Ready, done: Done) -> StepFinished:
    note = f"{done.attempts} attempts" if done.attempts > 1 else ""
    finished = StepFinished(ready.path, done.state, done.cached, done.seconds, done.error, note)
    return as_kept(finished) if done.kept else finished


def _record(finished: StepFinished, done: Done, ready: Ready | None) -> StepRecord:
    return StepRecord(
        path=finished.step,
        state=finished.state,
        cached=done.cached,
        seconds=done.seconds,
        key=done.key,
        parts=dict(done.parts),
        inputs=(ready.inputs if ready else Values()).as_json(),
        outputs=done.outputs.as_json(),
        error=dict(done.error) if done.error else None,
        log=done.log,
        attempts=done.attempts,
        note=finished.note,
    )
