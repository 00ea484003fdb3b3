"""What goes wrong with pods, controller and store while a run goes on: the right state, the right words, and a way on."""

import signal
import time
from dataclasses import dataclass

import pytest

from tests.cluster import setting
from tests.cluster.ahead import Work, ahead
from tests.cluster.ground import Ground
from tests.cluster.ran import Ran
from tests.cluster.relay import relay
from tests.cluster.shell import call, kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
LINES = 15
ENDS_AFTER = 10  # what the step of the flow `offline` has left to sleep, at most
needs_host = pytest.mark.skipif(not setting.HOST, reason="pods must reach this machine: TIDEGATE_TEST_HOST=…")


@dataclass(frozen=True)
class Fault:
    """A run in which something went wrong, the one that went on with it, and what was left in the cluster."""

    ran: Ran
    resumed: Ran | None = None
    left: list[str] | None = None
    pod: str = ""

    @property
    def said(self) -> str:
        return self.ran.said


def simply(flow: str, *words: str, **env: str) -> Work:
    """A run that comes to grief by itself."""

    def work(ground: Ground) -> Fault:
        ran = ground.there(flow, *words, **env)
        return Fault(ran, left=_left(ground, ran.id))

    return work


def _left(ground: Ground, run: str) -> list[str]:
    """Pods of a run that are still there a while after it: the one that ends it waits two minutes for a lost store."""
    end = time.monotonic() + 240
    while (left := ground.left(run)) and time.monotonic() < end:
        time.sleep(1)
    return left


def _failed(fault: Fault, code: str, step: str, *words: str) -> None:
    """The run failed at a step for a reason, and said so in few lines."""
    assert (fault.ran.state, fault.ran.code) == ("FAILED", 1), fault.said
    assert (fault.ran.error["code"], fault.ran.error["step"]) == (code, step), fault.said
    assert all(w in fault.said for w in (step, *words)), fault.said
    assert len(fault.ran.farewell) <= LINES + 1, fault.said  # and the summary
    assert fault.left == []


@ahead(simply("eats"))
def test_a_step_beyond_its_memory_says_so(result: Fault) -> None:
    _failed(result, "step-memory", "eat", "200Mi")


@ahead(simply("overtime"))
def test_a_run_beyond_its_deadline_ends_with_all_its_steps_and_says_so(result: Fault) -> None:
    assert (result.ran.state, result.ran.code) == ("FAILED", 1), result.said
    assert result.ran.error["code"] == "run-timeout", result.said
    assert result.ran.steps["say-2"] == "SKIPPED"
    assert result.left == []


@ahead(simply("imageless"))
def test_an_image_that_is_missing_ends_the_run_by_its_name(result: Fault) -> None:
    _failed(result, "argo-image", "nowhere", "tidegate-test/absent")


@ahead(simply("fills"))
def test_a_step_that_fills_its_volume_is_evicted_and_says_so(result: Fault) -> None:
    _failed(result, "pod-lost", "fill", "scratch")


def deleted(ground: Ground) -> Fault:
    process = ground.begin("deleted")
    workflow = ground.workflow("deleted")
    pod = ground.pod(workflow, "sleep")
    ground.space.kubectl("delete", "pod", pod, "--wait=false")
    ran = ground.ended(process)
    return Fault(ran, ground.there("deleted", "--resume", ran.id), _left(ground, ran.id), pod)


@ahead(deleted)
def test_a_pod_that_is_deleted_fails_its_step_and_resume_goes_on_from_there(result: Fault) -> None:
    assert result.ran.error["code"] in ("pod-lost", "step-terminated", "pod-killed"), result.said
    _failed(result, result.ran.error["code"], "sleep")
    before, resumed = result.ran.records["say"], result.resumed
    assert resumed
    assert resumed.state == "SUCCEEDED", resumed.said
    assert resumed.id == result.ran.id
    assert resumed.records["say"].ended == before.ended, "what had finished ran again"
    assert set(resumed.steps.values()) == {"SUCCEEDED"}
    assert ", 1 finished before" in resumed.err


def stopped(ground: Ground) -> Fault:
    process = ground.begin("stopped")
    workflow = ground.workflow("stopped")
    ground.pod(workflow, "sleep")
    process.send_signal(signal.SIGTERM)  # as Ctrl-C, which is ignored below what runs in the background
    return Fault(ground.ended(process), left=_left(ground, workflow))


@ahead(stopped)
def test_to_end_the_command_stops_the_run_with_all_its_pods(result: Fault) -> None:
    assert (result.ran.state, result.ran.code) == ("CANCELED", 130), result.said
    assert result.left == []


def killed(ground: Ground) -> Fault:
    """The controller is killed while everything else of this session goes on."""
    process = ground.begin("outlives")
    ground.pod(ground.workflow("outlives"), "sleep")
    kubectl("delete", "pod", "-A", "-l", "app=workflow-controller", "--grace-period=0", "--force")
    return Fault(ground.ended(process))


@ahead(killed)
def test_a_run_outlives_the_controller(result: Fault) -> None:
    assert result.ran.state == "SUCCEEDED", result.said
    assert set(result.ran.steps.values()) == {"SUCCEEDED"}


OUTAGE_SECONDS = 20


def offline(ground: Ground) -> Fault:
    """A run whose pods reach the store in a way that is closed as they end and as they start."""
    with relay() as way:
        ground.space.make_secret("relayed", {**ground.bucket.values("steps"), "AWS_ENDPOINT_URL": way.endpoint})
        process = ground.begin("offline", TIDEGATE_ARGO_STORE_SECRET="relayed")
        ground.pod(ground.workflow("offline"), "sleep")
        way.opened.clear()
        time.sleep(ENDS_AFTER + OUTAGE_SECONDS)
        way.opened.set()
        return Fault(ground.ended(process))


@needs_host
@ahead(offline)
def test_a_run_outlives_an_outage_of_the_store(result: Fault) -> None:
    assert result.ran.state == "SUCCEEDED", result.said
    assert set(result.ran.steps.values()) == {"SUCCEEDED"}


@pytest.mark.long
@pytest.mark.skipif(not setting.RESTART, reason="everybody on the cluster feels it: TIDEGATE_TEST_RESTART_NODE=…")
def test_a_run_outlives_its_node_or_goes_on_afterwards(ground: Ground) -> None:
    process = ground.begin("restarted")
    ground.pod(ground.workflow("restarted"), "sleep")
    call("sh", "-c", setting.RESTART)
    ran = ground.ended(process)
    resumed = ran if ran.state == "SUCCEEDED" else ground.there("restarted", "--resume", ran.id)
    assert resumed.state == "SUCCEEDED", resumed.said
