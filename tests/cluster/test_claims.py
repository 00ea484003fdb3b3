"""The documents of claims/ on a real controller: all at once, in a namespace of their own.

They need a cluster with Argo Workflows and the image localhost:5000/python:3.11: KUBECONFIG=… TIDEGATE_CLUSTER=1 pytest
tests/cluster. tests/engines/argo/test_controller.py runs the same documents without one.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.claims import differences, documents, expected

CLAIMS = documents()
ENDED = ("Succeeded", "Failed", "Error")
LIMIT = 400.0

pytestmark = [
    pytest.mark.skipif(os.environ.get("TIDEGATE_CLUSTER") != "1", reason="a cluster is needed: TIDEGATE_CLUSTER=1"),
    pytest.mark.timeout(LIMIT + 60),
]


def kubectl(*words: str, given: str = "") -> str:
    return subprocess.run(("kubectl", *words), input=given, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"claims-{os.getpid()}"
    kubectl("create", "namespace", name)
    kubectl("apply", "--namespace", name, "--filename", str(Path(__file__).parent / "namespace.yaml"))
    items = {"apiVersion": "v1", "kind": "List", "items": list(CLAIMS.values())}
    kubectl("create", "--namespace", name, "--filename", "-", given=json.dumps(items))
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def ended(namespace: str) -> Callable[[str], dict[str, Any]]:
    """Waits for a workflow, or for one that hangs to have stood still as long as is expected of it."""
    since: dict[str, tuple[str, float]] = {}
    began = time.monotonic()

    def wait(name: str) -> dict[str, Any]:
        patience = expected(CLAIMS[name]).get("hangs", LIMIT)
        while True:
            status = json.loads(kubectl("get", "--namespace", namespace, "workflow", name, "--output", "json")).get(
                "status", {}
            )
            seen, now = json.dumps(status.get("nodes")), time.monotonic()
            if since.get(name, ("", 0.0))[0] != seen:
                since[name] = (seen, now)
            if status.get("phase") in ENDED or now - began > LIMIT or (status and now - since[name][1] > patience):
                return status
            time.sleep(1)

    return wait


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_holds(name: str, ended: Callable[[str], dict[str, Any]]) -> None:
    status, expect = ended(name), expected(CLAIMS[name])

    def of(task: str, what: str) -> Any:
        shown = [n for n in status.get("nodes", {}).values() if n["displayName"] == task and n["type"] != "Retry"]
        if what == "phase":
            return shown[-1]["phase"] if shown else None
        given = (p for n in shown for p in n.get("outputs", {}).get("parameters", ()))
        return next((p.get("value") for p in given if p["name"] == what), None)

    assert not list(differences(expect, status.get("phase", ""), of)), status.get("message")
    assert ("hangs" in expect) == (status.get("phase") not in ENDED)
