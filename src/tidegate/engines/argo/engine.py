"""The Argo engine: submit a Workflow under the run's own name, watch it, and say how it ended from what it recorded."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tidegate.engines.argo import nodes
from tidegate.engines.argo.cluster import NODE_ANNOTATION, POD, RUN_LABEL, WORKFLOW, WORKFLOW_LABEL, Cluster, Object
from tidegate.engines.argo.container import BESIDE
from tidegate.engines.argo.follow import Follower, from_argo
from tidegate.engines.argo.outcome import Ended, outcome
from tidegate.engines.argo.pod import STATES
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.argo.stuck import hopeless, waiting
from tidegate.engines.base import Arguments
from tidegate.engines.kept import as_kept, is_kept
from tidegate.engines.pod.context import run_context
from tidegate.errors import ClusterError, Conflict, NotFound, TidegateError, WatchLost
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
    StepStarted,
)
from tidegate.plan.model import Plan
from tidegate.store.base import Store
from tidegate.store.runs import RunRecord, Runs, StepRecord

STOP, DETACH = "stop", "detach"
STUCK_SECONDS = 60.0
LAST_WORDS = 4
_LAST = re.compile(r"Error: exit status \d+")  # Argo's last line behind a command that failed
PATIENCE_SECONDS = 600.0
WATCH_SECONDS = 30
STOP_SECONDS = 30.0
BETWEEN_SECONDS = 0.2
STORE_DIFFERS = "argo-store-differs"
FINAL = ("cluster-denied", STORE_DIFFERS)  # what waiting does not mend


@dataclass(frozen=True)
class ArgoEngine:
    """Runs a plan on a cluster with Argo Workflows.

    Args:
        store: the store that pods and this process share.
        cluster: the cluster.
        settings: names in it.
        record: the run's first record.
        workflow: the Workflow to submit; None to watch one that is there.
        logs: pass on what steps write while they run.
        interrupted: asked when Ctrl-C is pressed: ``stop`` the run, or ``detach`` from it.
        finished: steps of this same run that had succeeded before it was resumed, by path.
        clock: seconds that only grow.
        pause: waits, in seconds.
    """

    store: Store
    cluster: Cluster
    settings: ArgoSettings
    record: RunRecord
    workflow: Object | None
    logs: bool = False
    interrupted: Callable[[], str] = lambda: STOP
    finished: Mapping[str, StepRecord] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def run(self, plan: Plan, arguments: Arguments, report: Report) -> Outcome:
        """Run the plan; a run that is left running has the state RUNNING."""
        watch = _Watch(self, plan, arguments, report)
        try:
            if self.workflow:
                self._submit()
            return self._watched(watch)
        except KeyboardInterrupt:
            if self.interrupted() == DETACH:
                return Outcome(self.record.id, RUNNING, seconds=watch.seconds)
            with contextlib.suppress(NotFound):  # it was not there yet
                stop(self.cluster, self.settings.namespace, self.record.id)
            watch.wait_for_pods()
            return watch.outcome(CANCELED)

    def _watched(self, watch: _Watch) -> Outcome:
        """Watch to the end; whatever goes wrong here ends the watching, not the run."""
        try:
            return watch.to_the_end()
        except WatchLost:
            raise
        except Exception as e:
            raise watch.lost_sight(e) from e

    def _submit(self) -> None:
        """Submit once: after an answer that was lost, a Workflow of this name is ours."""
        assert self.workflow
        try:
            self.cluster.create(self.workflow)
        except Conflict:
            if not self._is_ours():
                raise
        except ClusterError as e:
            if e.code == "cluster-denied" or not self._appeared():
                raise

    def _is_ours(self) -> bool:
        found = self.cluster.find(WORKFLOW, self.record.id, self.settings.namespace)
        return bool(found) and (found or {})["metadata"].get("labels", {}).get(RUN_LABEL) == self.record.id

    def _appeared(self) -> bool:
        self.pause(1.0)
        return self._is_ours()


def stop(cluster: Cluster, namespace: str, run_id: str) -> None:
    """End a run now: its pods are told to end, nothing new starts."""
    cluster.patch(WORKFLOW, run_id, namespace, {"spec": {"shutdown": "Terminate"}})


@dataclass
class _Watch:
    engine: ArgoEngine
    plan: Plan
    arguments: Arguments
    report: Report
    started: float = 0.0
    seen: dict[str, str] = field(default_factory=dict)
    records: dict[str, StepRecord] = field(default_factory=dict)
    stuck: dict[str, tuple[float, str]] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    lost: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    cannot_start: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    latest: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.started = self.engine.clock()
        self.runs = Runs(self.engine.store)

    @property
    def namespace(self) -> str:
        return self.engine.settings.namespace

    @property
    def seconds(self) -> float:
        return self.engine.clock() - self.started

    def to_the_end(self) -> Outcome:
        with Follower(self.engine.cluster, self.namespace, self.report) as follower:
            unreachable = 0.0
            while True:
                try:
                    if phase := self._watch(follower if self.engine.logs else None):
                        return self.outcome(STATES.get(phase, FAILED))
                    unreachable = 0.0
                except ClusterError as e:
                    unreachable = unreachable or self.engine.clock()
                    if e.code in FINAL or self.engine.clock() - unreachable > PATIENCE_SECONDS:
                        raise self.lost_sight(e) from e
                    self.report(Notice(f"the cluster does not answer, the run goes on there: {e.found}"))
                    self.engine.pause(5.0)

    def lost_sight(self, error: Exception) -> WatchLost:
        """The end of watching a run that goes on."""
        why = error if isinstance(error, TidegateError) else ClusterError(f"{type(error).__name__}: {error}")
        run_id, differs = self.engine.record.id, why.code == STORE_DIFFERS
        look = f"tidegate runs show {run_id}"
        return WatchLost(
            f"run {run_id} goes on and can no longer be watched: {why.found}",
            allowed=why.allowed,
            hint=f"{why.hint} {look}" if differs else f"{look}, or: kubectl -n {self.namespace} get workflow {run_id}",
            code=STORE_DIFFERS if differs else "",
        )

    def _watch(self, follower: Follower | None) -> str:
        labels = {RUN_LABEL: self.engine.record.id}
        for change in self.engine.cluster.watch(
            WORKFLOW, self.engine.settings.namespace, labels, seconds=WATCH_SECONDS
        ):
            if change.type == "DELETED":
                return self._deleted()
            self._look(change.object, follower)
            if phase := nodes.root_phase(change.object):
                return phase
        self._look_at_pods()
        self._end_what_is_stuck()
        return self._vanished()

    def _vanished(self) -> str:
        """A Workflow that went between two watches is seen by none of them."""
        if self.engine.cluster.find(WORKFLOW, self.engine.record.id, self.engine.settings.namespace):
            self.engine.pause(BETWEEN_SECONDS)
            return ""
        return self._deleted()

    def _deleted(self) -> str:
        self.error = {"code": "argo-deleted", "message": "somebody deleted the Workflow while it ran"}
        return "Error"

    def _look(self, workflow: Object, follower: Follower | None) -> None:
        self.latest = workflow
        for path, node in nodes.steps(workflow).items():
            before, self.seen[path] = self.seen.get(path, ""), node.state
            if node.state == RUNNING and before != RUNNING:
                self.report(StepStarted(path))
            if node.state in (SUCCEEDED, FAILED) and before != node.state:
                self._finished(node, before)
            self._note_stuck(path, self._stuck(path, node))
        if follower:
            for pod in nodes.running(workflow):
                follower.follow(pod.step, pod.pod)

    def _finished(self, node: nodes.Node, before: str) -> None:
        if not before:
            self.report(StepStarted(node.step))
        record = self._record(node)
        if not record:
            return self.report(StepFinished(node.step, FAILED, error=self._lost(node.step)))
        state = FAILED if node.state == FAILED else record.state
        told = record.state == CANCELED or nodes.by_signal(record.error)
        error: Mapping[str, Any] | None = record.error or (self._lost(node.step) if state == FAILED else None)
        error = nodes.ended_early(self._lost(node.step), record.error) if told else error
        note = f"{record.attempts} attempts" if record.attempts > 1 else ""
        step = StepFinished(node.step, state, record.cached, record.seconds, error, note)
        kept = state == SUCCEEDED and is_kept(record, self.engine.finished)
        return self.report(as_kept(step) if kept else step)

    def _record(self, node: nodes.Node) -> StepRecord | None:
        """The record that a step's pod left before it ended; a pod that failed may have left none."""
        record = self.runs.find_step(self.engine.record.id, node.step)
        if not record and node.state == SUCCEEDED:
            raise ClusterError(
                f"the step {node.step} succeeded, and {self.engine.store.uri} has no record of it",
                allowed="Pods and this command use one store.",
                hint=f"Compare the Secret {self.engine.settings.store_secret} with TIDEGATE_STORE here.",
                code=STORE_DIFFERS,
            )
        if record:
            self.records[node.step] = record
        return record

    def _look_at_pods(self) -> None:
        """Argo does not tell of every container that cannot start."""
        engine, labels = self.engine, {WORKFLOW_LABEL: self.engine.record.id}
        found = waiting(engine.cluster.list(POD, engine.settings.namespace, labels))
        self.waiting = {nodes.path_of(self.latest, node): reason for node, reason in found}
        for path, node in nodes.steps(self.latest).items():
            self._note_stuck(path, self._stuck(path, node))

    def _stuck(self, path: str, node: nodes.Node) -> str:
        ended = node.state in (SUCCEEDED, FAILED)
        return "" if ended else node.stuck or self.waiting.get(path, "")

    def _note_stuck(self, path: str, reason: str) -> None:
        if not reason:
            self.stuck.pop(path, None)
        elif path not in self.stuck:
            self.stuck[path] = self.engine.clock(), reason
            self.report(Notice(f"{path} has not started yet: {reason}"))

    def _end_what_is_stuck(self) -> None:
        """A pod whose image or Secret is missing waits for ever: after a minute the run ends."""
        now = self.engine.clock()
        late = [(p, why) for p, (since, why) in self.stuck.items() if now - since > STUCK_SECONDS and hopeless(why)]
        for path, why in late[:1] if not self.error else []:
            node = nodes.steps(self.latest)[path]
            stop(self.engine.cluster, self.namespace, self.engine.record.id)
            self.error = self.cannot_start[path] = {**nodes.cause(node, why, self.namespace), "step": path}

    def wait_for_pods(self) -> None:
        """Give pods that were told to end the time to record it, or until somebody is impatient."""
        engine, until = self.engine, self.engine.clock() + STOP_SECONDS
        with contextlib.suppress(KeyboardInterrupt, ClusterError):
            while engine.clock() < until:
                found = engine.cluster.find(WORKFLOW, engine.record.id, engine.settings.namespace)
                self.latest = found or self.latest
                if not found or (nodes.root_phase(found) and not self._going()):
                    return
                engine.pause(0.5)

    def _going(self) -> bool:
        """Whether the pod of a step goes on: what it was doing it records when it ends."""
        engine = self.engine
        pods = engine.cluster.list(POD, engine.settings.namespace, {WORKFLOW_LABEL: engine.record.id})
        running = [p["metadata"] for p in pods if p.get("status", {}).get("phase") == "Running"]
        return any(nodes.path_of(self.latest, m.get("annotations", {}).get(NODE_ANNOTATION, "")) for m in running)

    def outcome(self, state: str) -> Outcome:
        """How the run ended; what was not reported yet is reported."""
        record = self.engine.record
        self.records |= {r.path: r for r in self.runs.steps(record.id)}
        found = outcome(
            self.plan,
            self.arguments,
            run_context(self.plan, record, self.engine.store.uri),
            self.records,
            Ended(state, self.seconds, self._lost, self._whole_error(), self.engine.finished),
        )
        for step in found.steps:
            if self.seen.get(step.step, "") not in (SUCCEEDED, FAILED) and step.state in (SKIPPED, FAILED):
                self.report(step)
        return replace(found, error=self.error) if self.error and found.state == FAILED else found

    def _lost(self, path: str) -> Mapping[str, Any] | None:
        if path in self.cannot_start:
            return self.cannot_start[path]
        node = nodes.steps(self.latest).get(path) if self.latest else None
        if not node or node.state != FAILED:
            return None
        if path not in self.lost:
            self.lost[path] = self._why(node)
        return self.lost[path]

    def _why(self, node: nodes.Node) -> Mapping[str, Any]:
        """Why a step that recorded nothing failed: Argo's words, and the last ones of the container that failed."""
        error = nodes.lost(node, self.namespace)
        late = error["code"] == nodes.STEP_TIMEOUT and nodes.overran(self.latest, node)
        if late or error["code"] == nodes.RUN_TIMEOUT:
            found = f"the run took longer than its {nodes.deadline(self.latest)} s; {error['message']}"
            return {**error, "code": nodes.RUN_TIMEOUT, "message": found}
        container = re.match(r"([\w-]+): Error \(exit code", node.message)
        said = container and (self._last_words(node, container[1]) or self._last_words(node, BESIDE))
        return {**error, "tail": said} if said else error

    def _last_words(self, node: nodes.Node, container: str) -> list[str]:
        with contextlib.suppress(ClusterError, NotFound):
            log = b"".join(self.engine.cluster.log(node.pod, self.namespace, container))
            lines = log.decode("utf-8", "replace").splitlines()
            said = [line for line in lines if line.strip() and not from_argo(line) and not _LAST.fullmatch(line)]
            return said[-LAST_WORDS:]
        return []

    def _whole_error(self) -> Mapping[str, Any] | None:
        message = self.latest.get("status", {}).get("message", "") if self.latest else ""
        return self.error or ({"code": "argo-failed", "message": message} if message else None)
