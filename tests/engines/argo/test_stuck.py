"""Pods that cannot start: who is told, and which runs are ended."""

from typing import Any

import pytest

from tidegate.engines.argo.cluster import NODE_ANNOTATION
from tidegate.engines.argo.stuck import hopeless, waiting, waits

NEVER = 'pods "x" is forbidden: exceeded quota: few, requested: requests.memory=2Gi, used: requests.memory=0, limited: requests.memory=1536Mi'
NOT_NOW = 'pods "x" is forbidden: exceeded quota: few, requested: pods=1, used: pods=4, limited: pods=4'


@pytest.mark.parametrize(
    ("text", "told", "ended"),
    [
        ("ImagePullBackOff: Back-off pulling image", True, True),
        ('CreateContainerConfigError: secret "absent" not found', True, True),
        (NEVER, True, True),
        (NOT_NOW, True, False),
        ("exceeded quota: said otherwise", True, False),
        ("Unschedulable: 0/1 nodes are available", True, False),
        ("PodInitializing", False, False),
    ],
)
def test_what_no_time_mends_ends_a_run_and_what_may_come_is_told(text: str, told: bool, ended: bool) -> None:
    assert (waits(text), hopeless(text)) == (told, ended)


@pytest.mark.parametrize(
    ("asked", "limited", "never"), [("500m", "1", False), ("1500m", "1", True), ("2G", "1Gi", True)]
)
def test_amounts_are_compared_as_kubernetes_means_them(asked: str, limited: str, never: bool) -> None:
    assert hopeless(f"exceeded quota: q, requested: cpu={asked}, used: cpu=0, limited: cpu={limited}") is never


def test_a_container_that_waits_for_a_secret_is_found_in_the_pod_whichever_it_is() -> None:
    state = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "absent" not found'}}
    fine: dict[str, Any] = {"waiting": {"reason": "PodInitializing"}}
    pod = {
        "metadata": {"annotations": {NODE_ANNOTATION: "run-1"}},
        "status": {"initContainerStatuses": [{"state": state}], "containerStatuses": [{"state": fine}, {"state": {}}]},
    }
    assert [*waiting([pod])] == [("run-1", 'CreateContainerConfigError: secret "absent" not found')]
