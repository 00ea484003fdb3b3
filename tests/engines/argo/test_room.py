"""A run that goes on takes the place of what ended."""

from tidegate.engines.argo import start
from tidegate.engines.argo.cluster import POD, WORKFLOW, WORKFLOW_LABEL
from tidegate.engines.argo.memory import MemoryCluster


def test_a_run_that_goes_on_waits_until_pods_with_the_names_of_its_own_are_gone() -> None:
    meta = {"namespace": "pipelines", "name": "run"}
    workflow = {"apiVersion": WORKFLOW.api, "kind": "Workflow", "metadata": meta, "status": {"finishedAt": "now"}}
    labels = {WORKFLOW_LABEL: "run"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "name": "run-step-1", "labels": labels}}
    cluster = MemoryCluster(workflow, pod)
    waited = []

    def collect(seconds: float) -> None:
        waited.append(seconds)
        cluster.delete(POD, "run-step-1", "pipelines")

    start._make_room(cluster, "pipelines", "run", collect)
    assert waited == [1.0, start.SETTLE_SECONDS]
    assert not [*cluster.list(POD, "pipelines", labels)]
