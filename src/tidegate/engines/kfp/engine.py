"""The KFP engine: watch a run through the API, and say how it went from that and from what its steps recorded."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.engines.base import Arguments
from tidegate.engines.kept import as_kept
from tidegate.engines.kfp.backend import CANCELING, FINAL, Backend, BackendRun
from tidegate.engines.kfp.outputs import outputs
from tidegate.engines.kfp.tree import CACHED, StepDetail, Tree
from tidegate.engines.own import own_step
from tidegate.engines.values import Values
from tidegate.errors import ClusterError, NotFound, TidegateError, WatchLost
from tidegate.plan.events import (
    CANCELED,
    FAILED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    Notice,
    Outcome,
    Report,
    StepFinished,
    StepLog,
    StepStarted,
)
from tidegate.plan.model import Container, Dag, Plan, Task
from tidegate.store.base import Store
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs, StepRecord

DETACH = "detach"
LOOK_SECONDS = 2.0
SETTLE_TRIES = 5
STOP_SECONDS = 60.0
PATIENCE_SECONDS = 600.0
STORE_DIFFERS = "kfp-store-differs"


@dataclass(frozen=True)
class KfpEngine:
    """Watches a run on a KFP backend.

    Args:
        store: the store that pods and this process share.
        backend: the backend.
        record: the run's first record; its id is KFP's.
        link: where people look at it.
        secret: of the store, where the pods are.
        logs: pass on what steps of ours write.
        interrupted: asked when Ctrl-C is pressed: ``stop`` the run, or ``detach`` from it.
        before: when each step ended that had succeeded before the run was resumed, by path.
        clock: seconds that only grow.
        pause: waits, in seconds.
    """

    store: Store
    backend: Backend
    record: RunRecord
    link: str = ""
    secret: str = "tidegate-store"
    logs: bool = False
    interrupted: Callable[[], str] = lambda: "stop"
    before: Mapping[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def run(self, plan: Plan, arguments: Arguments, report: Report) -> Outcome:  # noqa: ARG002 - KFP has them
        """Watch the run to its end; one that is left running has the state RUNNING."""
        watch = _Watch(self, plan, report)
        if self.link:
            report(Notice(f"run {self.record.id}: {self.link}"))
        try:
            return watch.to_the_end()
        except KeyboardInterrupt:
            if self.interrupted() == DETACH:
                return Outcome(self.record.id, RUNNING, seconds=watch.seconds)
            try:
                self.backend.terminate(self.record.id)
            except ClusterError as e:
                raise watch.lost_sight(e, f"tidegate runs stop {self.record.id}") from e
            return watch.stopped()

    def ended(self, plan: Plan, run: BackendRun) -> OutcomeRecord:
        """How a run ended that nobody watched."""
        watch = _Watch(self, plan, lambda _: None)
        watch.look(run)
        found = watch.outcome(run, run.state)
        outputs = Values(found.parameters, found.artifacts).as_json()
        error = dict(found.error) if found.error else None
        return OutcomeRecord(found.state, outputs, error, max(0.0, run.finished - run.created))


@dataclass
class _Watch:
    engine: KfpEngine
    plan: Plan
    report: Report
    seen: dict[str, str] = field(default_factory=dict)
    finished: dict[str, StepFinished] = field(default_factory=dict)
    shown: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.started = self.engine.clock()
        self.runs = Runs(self.engine.store)

    @property
    def seconds(self) -> float:
        return self.engine.clock() - self.started

    def to_the_end(self) -> Outcome:
        unreachable = 0.0
        while True:
            try:
                run = self.engine.backend.run(self.engine.record.id)
                self.look(run)
                unreachable = 0.0
                if run.state in FINAL:
                    run = self._settled(run)
                    return self.outcome(run, CANCELED if run.state == CANCELED else run.state)
            except ClusterError as e:
                unreachable = unreachable or self.engine.clock()
                if e.code in ("cluster-denied", STORE_DIFFERS) or self.engine.clock() - unreachable > PATIENCE_SECONDS:
                    raise self.lost_sight(e) from e
                self.report(Notice(f"Kubeflow Pipelines does not answer, the run goes on there: {e.found}"))
            except NotFound as e:
                raise self.lost_sight(e) from e
            self.engine.pause(LOOK_SECONDS)

    def _settled(self, run: BackendRun) -> BackendRun:
        """Look again at a run that ended: its steps are told a little later than its own end."""
        for _ in range(SETTLE_TRIES):
            if RUNNING not in self.seen.values():
                break
            self.engine.pause(LOOK_SECONDS)
            run = self.engine.backend.run(run.id)
            self.look(run)
        return run

    def stopped(self) -> Outcome:
        """Wait a little for a run that was told to end."""
        run, until = BackendRun(self.engine.record.id, "", CANCELING), self.engine.clock() + STOP_SECONDS
        with contextlib.suppress(KeyboardInterrupt, ClusterError):
            while run.state not in FINAL and self.engine.clock() < until:
                self.engine.pause(LOOK_SECONDS)
                run = self.engine.backend.run(self.engine.record.id)
                self.look(run)
        if run.state not in FINAL:
            return Outcome(run.id, RUNNING, seconds=self.seconds)
        return self.outcome(run, SUCCEEDED if run.state == SUCCEEDED else CANCELED)

    def lost_sight(self, why: TidegateError, hint: str = "") -> WatchLost:
        """The end of watching a run that goes on."""
        run_id = self.engine.record.id
        return WatchLost(
            f"run {run_id} goes on and can no longer be watched: {why.found}",
            allowed=why.allowed,
            hint=hint or why.hint or f"tidegate runs show {run_id}, or: {self.engine.link}",
            code=why.code if why.code == STORE_DIFFERS else "",
        )

    def look(self, run: BackendRun) -> None:
        """Report what is different from the last look."""
        for step in Tree(run.details).steps(self.plan):
            before, self.seen[step.path] = self.seen.get(step.path, ""), step.state
            if step.state and before in ("", SKIPPED) and step.state != SKIPPED:
                self.report(StepStarted(step.path))
            if self.engine.logs and self._is_ours(step.task):
                self._show_log(step.path)
            if step.state in (SUCCEEDED, FAILED, CACHED) and before != step.state:
                self._finish(self._ended(step))

    def _finish(self, step: StepFinished) -> None:
        self.finished[step.step] = step
        self.report(step)

    def _is_ours(self, task: Task) -> bool:
        executor = self.plan.executors[str(task.component.body)]
        return isinstance(executor, Container) and own_step(executor) is not None

    def _ended(self, step: StepDetail) -> StepFinished:
        record = self.runs.find_step(self.engine.record.id, step.path) if self._is_ours(step.task) else None
        if record:
            state = FAILED if step.state == FAILED else record.state
            return self._of_record(record, state, self._error(step) if state == FAILED else None)
        if step.state == SUCCEEDED and self._is_ours(step.task):
            raise ClusterError(
                f"the step {step.path} succeeded, and {self.engine.store.uri} has no record of it",
                allowed="Pods and this command use one store.",
                hint="Compare the Secret of the store with TIDEGATE_STORE here.",
                code=STORE_DIFFERS,
            )
        state = SUCCEEDED if step.state == CACHED else step.state
        error = self._error(step) if state == FAILED else None
        return self._told(StepFinished(step.path, state, step.state == CACHED, step.seconds, error), step.ended)

    def _of_record(self, record: StepRecord, state: str, error: Mapping[str, Any] | None) -> StepFinished:
        note = record.note or (f"{record.attempts} attempts" if record.attempts > 1 else "")
        found = StepFinished(record.path, state, record.cached, record.seconds, record.error or error, note)
        return self._told(found, record.ended)

    def _told(self, step: StepFinished, ended: float) -> StepFinished:
        """The step, told apart where it was not this try of the run that did it."""
        kept = step.state == SUCCEEDED and self.engine.before.get(step.step) == ended
        return as_kept(step) if kept else step

    def _error(self, step: StepDetail) -> Mapping[str, Any]:
        found = step.error or "Kubeflow Pipelines says that it failed, and not why"
        error = {"code": "kfp-step-failed", "message": found, "hint": self.engine.link, "step": step.path}
        if not self._is_ours(step.task):
            return error
        message = (
            f"it left no record in {self.engine.store.uri}: its pod did not start, or cannot use the store; {found}"
        )
        allowed = f"A pod that starts, with the Secret {self.engine.secret} of the store: {self.engine.link}"
        hint = f"kubectl create secret generic {self.engine.secret} -n NAMESPACE --from-env-file=FILE (docs/kfp.md)"
        return {**error, "message": message, "allowed": allowed, "hint": hint}

    def _show_log(self, path: str) -> None:
        """Pass on what a step of ours has written since; its pod puts it into the store as it goes."""
        text = self.runs.find_log(self.engine.record.id, path)
        new = text[self.shown.get(path, 0) :]
        whole = new[: new.rfind(b"\n") + 1]
        self.shown[path] = self.shown.get(path, 0) + len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            self.report(StepLog(path, line))

    def outcome(self, run: BackendRun, state: str) -> Outcome:
        """How the run ended; steps that were not reported yet are reported."""
        records = {r.path: r for r in self.runs.steps(self.engine.record.id)}
        for path, record in records.items():
            if path not in self.finished and record.state in (SUCCEEDED, FAILED):
                self._finish(self._of_record(record, record.state, None))
        for path in static_steps(self.plan):
            if path not in self.finished:
                ended = CANCELED if self.seen.get(path) == RUNNING else SKIPPED
                self._finish(StepFinished(path, ended, note="it did not run" if ended == SKIPPED else ""))
        found = outputs(self.plan, records)
        if state == SUCCEEDED and found.unknown:
            self.report(Notice(f"known to Kubeflow Pipelines only: {', '.join(found.unknown)}"))
        values = found.values
        steps = tuple(self.finished.values())
        error = self._run_error(run, state, steps)
        return Outcome(self.engine.record.id, state, values.parameters, values.artifacts, steps, error, self.seconds)

    def _run_error(self, run: BackendRun, state: str, steps: tuple[StepFinished, ...]) -> Mapping[str, Any] | None:
        if state == SUCCEEDED:
            return None
        if state == CANCELED:
            return {"code": "cancelled", "message": "the run was cancelled"}
        failed = next(({**s.error, "step": s.step} for s in steps if s.state == FAILED and s.error), None)
        said = run.error or "Kubeflow Pipelines says that the run failed"
        return failed or {"code": "kfp-failed", "message": said, "hint": self.engine.link}


def static_steps(plan: Plan) -> Iterator[str]:
    """Yield the paths of steps that are no part of a loop, in the order of the definition."""
    if isinstance(plan.root.body, Dag):
        yield from _below(plan.root.body, "")


def _below(dag: Dag, path: str) -> Iterator[str]:
    for task in dag.tasks.values():
        if not isinstance(task.component.body, Dag):
            yield path + task.name
        elif not task.loop:
            yield from _below(task.component.body, f"{path}{task.name}/")
