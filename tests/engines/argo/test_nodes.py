"""Why a step failed, by what Argo says of its node."""

import pytest

from tidegate.engines.argo.nodes import Node, by_signal, ended_early, lost, overran, path_of, steps

OWN = {"code": "step-terminated", "message": "the step was told to end"}


def node(message: str, phase: str = "Failed") -> Node:
    return Node("run-1", "train", phase, "train", message)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("OOMKilled (exit code 137)", "step-memory"),
        ("Pod was active on the node longer than the specified deadline", "step-timeout"),
        ("Step exceeded its deadline", "run-timeout"),
        ("main: Error (exit code 143)", "step-terminated"),
        ("main: Error (exit code 137)", "pod-killed"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', "pod-refused"),
        ('pods "x" is forbidden: exceeded quota: few, requested: pods=1, used: pods=0, limited: pods=0', "pod-quota"),
        ('CreateContainerConfigError: secret "absent" not found', "pod-config"),
        ("ImagePullBackOff: Back-off pulling image", "argo-image"),
        ('Usage of EmptyDir volume "scratch" exceeds the limit "5Mi".', "pod-lost"),
        ("main: Error (exit code 3)", "pod-failed"),
        ("", "pod-failed"),
    ],
)
def test_each_cause_has_its_code_and_names_the_pod(message: str, code: str) -> None:
    error = lost(node(message), "here")
    assert error["code"] == code
    assert error["message"].startswith(f"pod run-train-1: {message}")


@pytest.mark.parametrize(
    ("message", "wanted"), [("Step exceeded its deadline", "run-timeout"), ("main: Error (exit code 143)", OWN["code"])]
)
def test_of_a_step_that_was_told_to_end_argo_knows_why_or_the_step_said_it(message: str, wanted: str) -> None:
    found = ended_early(lost(node(message), "here"), OWN)
    assert found
    assert found["code"] == wanted
    assert (found is OWN) == (wanted == OWN["code"])


def test_a_try_of_a_step_is_known_by_its_node() -> None:
    inputs = {"parameters": [{"name": "step", "value": "outer/train"}]}
    nodes = {
        "run-1": {"type": "Retry", "inputs": inputs, "phase": "Running"},
        "run-2": {"type": "Pod", "inputs": inputs, "phase": "Pending"},
    }
    assert [path_of({"status": {"nodes": nodes}}, n) for n in ("run-1", "run-2", "run-3")] == ["outer/train"] * 2 + [""]


def test_a_command_that_died_of_a_signal_died_of_the_deadline_where_argo_says_so() -> None:
    died = {"code": "step-died", "message": "the step was killed by signal 15"}
    assert by_signal(died)
    assert not by_signal({"code": "step-failed"})
    assert (ended_early(lost(node("Step exceeded its deadline"), "here"), died) or {})["code"] == "run-timeout"
    assert ended_early(lost(node("main: Error (exit code 143)"), "here"), died) is died
    assert ended_early(None, died) is died


def test_of_a_step_in_a_dag_that_was_tried_again_the_last_try_counts() -> None:
    def tried(started: str, phase: str) -> dict[str, object]:
        inputs = {"parameters": [{"name": "step", "value": "sub/a"}]}
        return {"type": "Pod", "phase": phase, "startedAt": started, "inputs": inputs}

    for last, first in (("a-1", "a-2"), ("a-2", "a-1")):
        nodes = {
            first: tried("2026-01-01T00:00:00Z", "Failed"),
            last: tried("2026-01-01T00:01:00Z", "Succeeded"),
        }
        assert steps({"status": {"nodes": dict(sorted(nodes.items()))}})["sub/a"].id == last


@pytest.mark.parametrize(("seconds", "late"), [(40, True), (39, True), (25, False)])
def test_a_pod_that_the_kubelet_ended_as_the_run_s_time_was_over_overran_with_it(seconds: int, late: bool) -> None:
    workflow = {"spec": {"activeDeadlineSeconds": 40}, "status": {"startedAt": "2026-01-01T00:00:00Z"}}
    ended = Node("run-1", "train", "Failed", "train", finished=f"2026-01-01T00:00:{seconds:02}Z")
    assert overran(workflow, ended) is late
    assert not overran({"spec": {}, "status": workflow["status"]}, ended)
    assert not overran(workflow, Node("run-1", "train", "Running", "train"))
