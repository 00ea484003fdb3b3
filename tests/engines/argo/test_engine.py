"""The engine against a cluster that is played: what it submits, what it makes of what it sees, and of what goes wrong."""

import base64
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.engines.test_random_plans import Writer
from tidegate.engines.argo.cluster import (
    NODE_ANNOTATION,
    POD,
    RUN_LABEL,
    WORKFLOW,
    WORKFLOW_LABEL,
    Change,
    Cluster,
    Kind,
    Object,
)
from tidegate.engines.argo.engine import DETACH, ArgoEngine
from tidegate.engines.argo.memory import MemoryCluster
from tidegate.engines.argo.packed import Packed
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.argo.start import Submission, argo_engine
from tidegate.engines.base import Arguments
from tidegate.errors import ClusterError, Conflict, StoreError, TidegateError, WatchLost
from tidegate.ir.check import check
from tidegate.plan.events import CANCELED, FAILED, RUNNING, SKIPPED, SUCCEEDED, Notice, Outcome, StepFinished, StepLog
from tidegate.store.memory import MemoryStore
from tidegate.store.runs import RunRecord, Runs, StepRecord

RUN, SETTINGS = "run-1", ArgoSettings(image="localhost:5000/tidegate")
Scene = Callable[[], Iterator[Change]]


def spec() -> dict[str, Any]:
    """Two steps: ``b`` adds to what ``a`` made."""
    writer = Writer(0)
    made = {"taskOutputParameter": {"producerTask": "a", "outputParameterKey": "Output"}}
    constant = {"runtimeValue": {"constant": 1}}
    tasks = {
        name: {"componentRef": {"name": "add"}, "taskInfo": {"name": name}, "inputs": {"parameters": {"a": source}}}
        for name, source in (("a", constant), ("b", made))
    }
    tasks["b"]["dependentTasks"] = ["a"]
    output = {"Output": {"valueFromParameter": {"producerSubtask": "b", "outputParameterKey": "Output"}}}
    root = {
        "outputDefinitions": {"parameters": {"Output": {"parameterType": "NUMBER_INTEGER"}}},
        "dag": {"tasks": tasks, "outputs": {"parameters": output}},
    }
    return check({**writer.spec(), "root": root, "components": {"add": writer.leaf("add")}})


class Played(MemoryCluster):
    """A cluster whose watches are scenes, in order; ``create`` may lose its answer."""

    def __init__(self, *scenes: Scene) -> None:
        super().__init__()
        self.scenes, self.lost, self.made = [*scenes], list[TidegateError](), 0

    def create(self, body: Object) -> Object:
        self.made += body["kind"] == "Workflow"
        found = super().create(body)
        if self.lost:
            raise self.lost.pop()
        return found

    def watch(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None, *, seconds: float = 60
    ) -> Iterator[Change]:
        assert (kind, labels) == (WORKFLOW, {RUN_LABEL: RUN})
        yield from self.scenes.pop(0)()


@dataclass
class Play:
    """One run and all that is around it."""

    cluster: Played
    interrupted: Callable[[], str] = lambda: "stop"
    logs: bool = False
    store: MemoryStore = field(default_factory=MemoryStore)
    events: list[Any] = field(default_factory=list)
    now: float = 0.0

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def step(self, path: str, state: str = SUCCEEDED, **outputs: Any) -> None:
        Runs(self.store).step(RUN, StepRecord(path, state, outputs={"parameters": outputs}))

    def run(self, *, again: bool = False, finished: Mapping[str, StepRecord] | None = None) -> Outcome:
        packed = Packed(spec(), {})
        plan = packed.plan
        record = RunRecord(RUN, plan.name, plan.digest, engine="argo")
        cluster: Cluster = self.cluster
        how = Submission(again=again, finished=finished or {})
        made = argo_engine(packed, plan, Arguments(), record, self.store, cluster, SETTINGS, how)
        engine = ArgoEngine(
            self.store,
            cluster,
            SETTINGS,
            record,
            made.workflow,
            self.logs,
            self.interrupted,
            made.finished,
            lambda: self.now,
            self.pause,
        )
        return engine.run(plan, Arguments(), self.events.append)

    def said(self, kind: type) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind)]


def pod(step: str, phase: str, message: str = "") -> dict[str, Any]:
    inputs = {"parameters": [{"name": "step", "value": step}]}
    return {"type": "Pod", "phase": phase, "message": message, "templateName": "add", "inputs": inputs}


def state(phase: str = "Running", /, packed: bool = False, message: str = "", **pods: dict[str, Any]) -> Scene:
    """A scene in which the Workflow is seen once."""
    nodes = {RUN: {"type": "DAG", "phase": phase}} | {f"{RUN}-{n}": body for n, body in pods.items()}
    status: dict[str, Any] = {"phase": "Running", "message": message, "nodes": nodes}
    if packed:
        status["nodes"] = {}
        status["compressedNodes"] = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    body = {"metadata": {"name": RUN}, "status": status}
    return lambda: iter([Change("MODIFIED", body)])


def breaks(error: BaseException) -> Scene:
    def scene() -> Iterator[Change]:
        raise error
        yield

    return scene


AWAY = ClusterError("no route", code="cluster-unreachable")
GOOD = state("Succeeded", a=pod("a", "Succeeded"), b=pod("b", "Succeeded"))


def good(*scenes: Scene) -> Play:
    """A play in which both steps leave their records."""
    play = Play(Played(*scenes))
    play.step("a", Output=1)
    play.step("b", Output=2)
    return play


@pytest.mark.parametrize("packed", [False, True])
def test_a_run_ends_with_the_outputs_that_its_steps_recorded(packed: bool) -> None:
    ends = state("Succeeded", packed, a=pod("a", "Succeeded"), b=pod("b", "Succeeded"))
    play = good(state(a=pod("a", "Running")), ends)
    outcome = play.run()
    assert (outcome.state, outcome.parameters, outcome.error) == (SUCCEEDED, {"Output": 2}, None)
    assert [(e.step, e.state) for e in play.said(StepFinished)] == [("a", SUCCEEDED), ("b", SUCCEEDED)]
    assert play.cluster.made == 1


def test_an_answer_that_was_lost_is_no_second_submission() -> None:
    play = good(GOOD)
    play.cluster.lost = [AWAY]
    assert play.run().state == SUCCEEDED
    assert play.cluster.made == 1


@pytest.mark.parametrize("ours", [True, False])
def test_a_workflow_of_this_name_is_taken_for_ours_only_if_it_is(ours: bool) -> None:
    play = good(GOOD)
    meta = {"name": RUN, "namespace": SETTINGS.namespace, "labels": {RUN_LABEL: RUN} if ours else {}}
    play.cluster.create({"apiVersion": WORKFLOW.api, "kind": "Workflow", "metadata": meta})
    if ours:
        assert play.run().state == SUCCEEDED
    else:
        with pytest.raises(Conflict):
            play.run()


def test_a_cluster_that_does_not_let_us_says_so_at_once() -> None:
    play = good()
    play.cluster.lost = [ClusterError("forbidden", code="cluster-denied")]
    with pytest.raises(ClusterError, match="forbidden"):
        play.run()
    with pytest.raises(ClusterError, match="forbidden"):
        good(breaks(ClusterError("forbidden", code="cluster-denied"))).run()


def test_a_cluster_that_is_away_for_a_while_ends_nothing() -> None:
    play = good(breaks(AWAY), breaks(AWAY), GOOD)
    assert play.run().state == SUCCEEDED
    assert len(play.said(Notice)) == 2


def test_a_cluster_that_stays_away_leaves_the_run_to_it() -> None:
    play = good(*[breaks(AWAY)] * 1000)
    with pytest.raises(ClusterError, match="no route"):
        play.run()
    assert 600 < play.now < 620


def test_a_pod_whose_image_is_missing_ends_the_run_after_a_minute() -> None:
    stuck = pod("a", "Pending", "ImagePullBackOff: no such image")
    play = Play(Played())

    def waits() -> Iterator[Change]:
        play.now += 25
        yield from state(a=stuck)()

    play.cluster.scenes = [waits] * 4 + [state("Failed", a={**stuck, "phase": "Failed"})]
    outcome = play.run()
    assert outcome.state == FAILED
    assert outcome.error
    assert "no such image" in outcome.error["message"]
    assert outcome.error["step"] == "a"
    assert [e.text for e in play.said(Notice)] == ["a has not started yet: ImagePullBackOff: no such image"]
    found = play.cluster.find(WORKFLOW, RUN, SETTINGS.namespace)
    assert found
    assert found["spec"]["shutdown"] == "Terminate"


def test_a_workflow_that_somebody_deleted_is_a_run_that_failed() -> None:
    play = Play(Played(state(a=pod("a", "Running")), lambda: iter([Change("DELETED", {"metadata": {"name": RUN}})])))
    outcome = play.run()
    assert (outcome.state, outcome.error and outcome.error["code"]) == (FAILED, "argo-deleted")


def test_ctrl_c_stops_the_run_or_leaves_it_as_is_wished() -> None:
    stopped = Play(Played(breaks(KeyboardInterrupt())))
    assert stopped.run().state == CANCELED
    left = Play(Played(breaks(KeyboardInterrupt())), interrupted=lambda: DETACH)
    assert left.run().state == RUNNING
    found = [p.cluster.find(WORKFLOW, RUN, SETTINGS.namespace) for p in (stopped, left)]
    assert [f and f["spec"].get("shutdown") for f in found] == ["Terminate", None]


def test_after_a_stop_a_pod_that_goes_on_has_the_time_to_record_its_end() -> None:
    play = Play(Played(breaks(KeyboardInterrupt())))
    for name, node in (("p", "node-a"), ("end", "node-exit")):  # the one that ends the run is not waited for
        meta = {"name": name, "namespace": SETTINGS.namespace, "labels": {WORKFLOW_LABEL: RUN}}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "annotations": {NODE_ANNOTATION: node}}}
        play.cluster.create({**body, "status": {"phase": "Running"}})

    def pause(seconds: float) -> None:
        play.now += seconds
        play.cluster.patch(
            WORKFLOW, RUN, SETTINGS.namespace, {"status": {"phase": "Failed", "nodes": {"node-a": pod("a", "Running")}}}
        )
        if play.now > 5:
            play.step("a", CANCELED)
            play.cluster.patch(POD, "p", SETTINGS.namespace, {"status": {"phase": "Failed"}})

    play.pause = pause  # type: ignore[method-assign]
    outcome = play.run()
    assert (outcome.state, outcome.steps[0].state) == (CANCELED, CANCELED)
    assert 5 < play.now < 7


def test_a_step_that_succeeded_without_a_record_is_in_another_store() -> None:
    with pytest.raises(ClusterError) as refused:
        Play(Played(state(a=pod("a", "Succeeded")))).run()
    assert refused.value.code == "argo-store-differs"


def test_a_step_whose_pod_was_evicted_after_its_record_failed_and_says_why() -> None:
    evicted = pod("a", "Failed", 'Usage of EmptyDir volume "scratch" exceeds the limit "5Mi".')
    play = Play(Played(state("Failed", a=evicted)))
    play.step("a", Output=1)
    outcome = play.run()
    assert outcome.state == FAILED
    assert outcome.error
    assert (outcome.error["code"], outcome.error["step"]) == ("pod-lost", "a")


def test_a_pod_that_was_lost_says_why_and_what_came_after_is_skipped() -> None:
    play = Play(Played(state("Failed", a=pod("a", "Failed", "OOMKilled (exit code 137)"))))
    outcome = play.run()
    assert outcome.error
    assert (outcome.state, outcome.error["code"], outcome.error["step"]) == (FAILED, "step-memory", "a")
    assert [(e.step, e.state) for e in play.said(StepFinished)] == [("a", FAILED), ("b", SKIPPED)]


def test_what_argo_refuses_before_it_begins_is_the_runs_error() -> None:
    status = {"phase": "Failed", "message": "invalid spec: no", "finishedAt": "now"}
    play = Play(Played(lambda: iter([Change("MODIFIED", {"metadata": {"name": RUN}, "status": status})])))
    outcome = play.run()
    assert (outcome.state, outcome.error and outcome.error["message"]) == (FAILED, "invalid spec: no")


def test_a_resumed_run_replaces_its_workflow_only_after_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.engines.argo.start.SETTLE_SECONDS", 0.0)  # no controller sees it later than we
    play = good(GOOD)
    status = {"phase": "Running"}
    meta = {"name": RUN, "namespace": SETTINGS.namespace, "labels": {RUN_LABEL: RUN}}
    play.cluster.create({"apiVersion": WORKFLOW.api, "kind": "Workflow", "metadata": meta, "status": status})
    with pytest.raises(Conflict) as refused:
        play.run(again=True)
    assert refused.value.code == "run-going"
    play.cluster.patch(WORKFLOW, RUN, SETTINGS.namespace, {"status": {"finishedAt": "now"}})
    assert play.run(again=True).state == SUCCEEDED


def test_what_had_succeeded_before_a_run_was_resumed_is_told_apart() -> None:
    play = Play(Played(GOOD))
    play.step("a", Output=1)
    play.step("b", FAILED)
    finished = {r.path: r for r in Runs(play.store).steps(RUN) if r.state == SUCCEEDED}
    play.step("b", Output=2)
    outcome = play.run(again=True, finished=finished)
    expected = [("a", True, True, "finished before"), ("b", False, False, "")]
    assert [(s.step, s.kept, s.cached, s.note) for s in outcome.steps] == expected
    assert [(s.step, s.kept, s.cached, s.note) for s in play.said(StepFinished)] == expected


def test_what_runs_again_in_a_resumed_run_is_not_told_as_finished_before() -> None:
    play = Play(Played(GOOD))
    play.step("a", Output=1)
    finished = {r.path: r for r in Runs(play.store).steps(RUN)}
    play.step("a", Output=3)
    play.step("b", Output=4)
    assert [s.kept for s in play.run(again=True, finished=finished).steps] == [False, False]


def test_what_a_running_step_writes_is_passed_on_without_argos_own_lines() -> None:
    play = good(state(a=pod("a", "Running")), GOOD)
    play.logs = True
    play.cluster.logs[SETTINGS.namespace, f"{RUN}-add-a", "main"] = b"one\nlevel=info argo=true\n\xff"
    play.run()
    assert [(e.step, e.line) for e in play.said(StepLog)] == [("a", "one"), ("a", "\ufffd")]


def test_what_each_try_of_a_step_writes_is_passed_on() -> None:
    tries = pod("a", "Running") | {"type": "Retry"}
    play = good(state(a=tries, first=pod("a", "Running")), state(a=tries, second=pod("a", "Running")), GOOD)
    play.logs = True
    for number in ("first", "second"):
        play.cluster.logs[SETTINGS.namespace, f"{RUN}-add-{number}", "main"] = number.encode()
    play.run()
    assert sorted(e.line for e in play.said(StepLog)) == ["first", "second"]


def test_a_workflow_that_went_between_two_watches_is_a_run_that_failed() -> None:
    play = good()

    def goes() -> Iterator[Change]:
        play.cluster.delete(WORKFLOW, RUN, SETTINGS.namespace)
        yield from ()

    play.cluster.scenes = [state(a=pod("a", "Running")), goes]
    outcome = play.run()
    assert (outcome.state, outcome.error and outcome.error["code"]) == (FAILED, "argo-deleted")


def test_a_stop_that_did_not_arrive_is_sent_again() -> None:
    stuck = pod("a", "Pending", "ImagePullBackOff: no such image")
    play, refusals = Play(Played()), [AWAY]
    patch = play.cluster.patch

    def patched(*args: Any) -> Object:
        if refusals:
            raise refusals.pop()
        return patch(*args)

    def waits() -> Iterator[Change]:
        play.now += 61
        yield from state(a=stuck)()

    play.cluster.patch = patched  # type: ignore[method-assign]
    play.cluster.scenes = [waits] * 3 + [state("Failed", a={**stuck, "phase": "Failed"})]
    outcome = play.run()
    assert outcome.error
    assert outcome.error["code"] == "argo-image"
    found = play.cluster.find(WORKFLOW, RUN, SETTINGS.namespace)
    assert found
    assert found["spec"]["shutdown"] == "Terminate"


@pytest.mark.parametrize("error", [StoreError("the store is away"), RuntimeError("half an answer")])
def test_whatever_ends_the_watching_leaves_the_run_to_the_cluster(error: Exception) -> None:
    with pytest.raises(WatchLost, match="goes on"):
        good(breaks(error)).run()


def test_ctrl_c_before_there_is_a_workflow_cancels() -> None:
    play = Play(Played())
    play.cluster.create = lambda body: next(breaks(KeyboardInterrupt())())  # type: ignore[method-assign, assignment]
    assert play.run().state == CANCELED
