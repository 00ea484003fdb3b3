"""Every setting of kfp.kubernetes ends in the field of the pod that it is for, or is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from kfp import dsl, kubernetes

from tests.language.kit import say
from tidegate.engines.argo.container import AWAIT, SHIM
from tidegate.engines.argo.packed import Packed
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.argo.workflow import workflow
from tidegate.errors import DefinitionError
from tidegate.ir.load import of_pipeline


def template(change: Callable[[Any], object]) -> dict[str, Any]:
    @dsl.pipeline(name="p")
    def p():
        change(say(text="x"))

    found = of_pipeline(p, "")
    return pods(found.spec, found.platforms or {})


def pods(spec: Any, platforms: Any) -> dict[str, Any]:
    body = workflow("p", Packed(spec, platforms), ArgoSettings(image="ours"))
    [found] = [t for t in body["spec"]["templates"] if "sidecars" in t]
    return dict(found)


def part(found: Any, path: str) -> Any:
    for key in path.split("."):
        found = found[int(key)] if key.lstrip("-").isdigit() else found[key]
    return found


CLAIM = {"name": "claim-0", "persistentVolumeClaim": {"claimName": "c"}}
SETTINGS: dict[str, tuple[Callable[[Any], object], str, Any]] = {
    "pull policy": (lambda t: kubernetes.set_image_pull_policy(t, "Always"), "container.imagePullPolicy", "Always"),
    "timeout": (lambda t: kubernetes.set_timeout(t, 20), "activeDeadlineSeconds", 20),
    "node selector": (lambda t: kubernetes.add_node_selector(t, "a", "b"), "nodeSelector", {"a": "b"}),
    "toleration": (
        lambda t: kubernetes.add_toleration(t, "gpu", "Exists", "", "NoSchedule"),
        "tolerations",
        [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    ),
    "label": (lambda t: kubernetes.add_pod_label(t, "a", "b"), "metadata.labels", {"a": "b"}),
    "annotation": (lambda t: kubernetes.add_pod_annotation(t, "a", "b"), "metadata.annotations", {"a": "b"}),
    "field path": (
        lambda t: kubernetes.use_field_path_as_env(t, "IP", "status.podIP"),
        "container.env.-1",
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ),
    "config map": (
        lambda t: kubernetes.use_config_map_as_env(t, "app", {"mode": "MODE"}),
        "container.env.-1",
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "app", "key": "mode", "optional": False}}},
    ),
    "secret volume": (
        lambda t: kubernetes.use_secret_as_volume(t, "db", "/db"),
        "volumes.0",
        {"name": "secret-0", "secret": {"secretName": "db", "optional": False}},
    ),
    "claim": (lambda t: kubernetes.mount_pvc(t, "c", "/data"), "volumes.0", CLAIM),
    "empty directory": (
        lambda t: kubernetes.empty_dir_mount(t, "scratch", "/s", size_limit="1Gi"),
        "volumes.0",
        {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
    ),
    "user": (
        lambda t: kubernetes.set_security_context(t, run_as_user=1000),
        "container.securityContext.runAsUser",
        1000,
    ),
    "memory": (lambda t: t.set_memory_limit("1Gi"), "container.resources.limits", {"memory": "1Gi"}),
    "accelerator": (
        lambda t: t.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(2),
        "container.resources.limits",
        {"nvidia.com/gpu": "2"},
    ),
    "retry": (
        lambda t: t.set_retry(3, "10s", 2.0, "60s"),
        "retryStrategy",
        {
            "limit": "3",
            "retryPolicy": "Always",
            "backoff": {"duration": "10s", "factor": "2", "cap": "60s"},
        },
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_stands_in_its_field_of_the_pod(name: str) -> None:
    change, path, value = SETTINGS[name]
    assert part(template(change), path) == value


def test_a_backoff_that_argo_cannot_have_is_refused() -> None:
    with pytest.raises(DefinitionError, match="1.5") as refused:
        template(lambda t: t.set_retry(3, "10s", 1.5, "60s"))
    assert refused.value.code == "argo-backoff"


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"newSetting": {"x": 1}}, "argo-setting"),
        ({"secretAsEnv": "db"}, "kubernetes-settings"),
        ({"pvcMount": [{"constant": "c"}]}, "kubernetes-settings"),
        ({"activeDeadlineSeconds": "soon"}, "kubernetes-settings"),
        ({"nodeSelector": {"nodeSelectorJson": {"runtimeValue": {"constant": "{"}}}}, "kubernetes-settings"),
    ],
)
def test_settings_that_nobody_knows_or_that_have_another_shape_are_refused(config: Any, code: str) -> None:
    @dsl.pipeline(name="p")
    def p():
        say(text="x")

    found = of_pipeline(p, "")
    [label] = found.spec["deploymentSpec"]["executors"]
    platforms = {"kubernetes": {"deploymentSpec": {"executors": {label: config}}}}
    with pytest.raises(DefinitionError) as refused:
        pods(found.spec, platforms)
    assert refused.value.code == code


@pytest.mark.parametrize("said", [{"activeDeadlineSeconds": "soon"}, {"resourceTtlOnCompletion": []} | {"x": 1}])
def test_pipeline_settings_of_another_shape_are_refused(said: Any) -> None:
    @dsl.pipeline(name="p")
    def p():
        say(text="x")

    found = of_pipeline(p, "")
    with pytest.raises(DefinitionError) as refused:
        pods(found.spec, {"kubernetes": {"pipelineConfig": said}})
    assert refused.value.code in ("kubernetes-settings", "argo-setting")


@pytest.mark.parametrize(
    ("command", "waits"),
    [(["sh", "-c", "x"], True), (["/bin/bash", "x"], True), (["python3", "x"], True), (["x"], False)],
)
def test_an_init_container_brings_the_shim_only_where_nothing_in_the_image_is_known_to_wait_for_it(
    command: list[str], waits: bool
) -> None:
    executor = {"container": {"image": "theirs", "command": command}}
    spec = {
        "pipelineInfo": {"name": "p"},
        "components": {"comp-a": {"executorLabel": "exec-a"}},
        "deploymentSpec": {"executors": {"exec-a": executor}},
        "root": {"dag": {"tasks": {"a": {"componentRef": {"name": "comp-a"}}}}},
    }
    found = pods(spec, {})
    assert ("initContainers" not in found) is waits
    assert found["container"]["command"] == ([command[0], "-c", AWAIT[command[0]]] if waits else [SHIM])
