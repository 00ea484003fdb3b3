"""Pods of compiled workflows in a namespace with the Pod Security level "restricted"."""

from collections.abc import Iterator
from typing import Any

from kfp import dsl

from tests.language.kit import read
from tidegate.engines.argo.container import LAST, LAUNCHER, MOUNTS, SIDECAR
from tidegate.engines.argo.packed import Packed
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.argo.workflow import workflow
from tidegate.ir.load import of_pipeline


@dsl.container_component
def shell():
    return dsl.ContainerSpec(image="shell", command=["true"])


@dsl.pipeline(name="kinds")
def kinds() -> str:
    """An importer, a lightweight component, a command."""
    shell()
    return read(data=dsl.importer(artifact_uri="s3://b/k", artifact_class=dsl.Dataset).output).output


def containers() -> Iterator[dict[str, Any]]:
    found = of_pipeline(kinds, "")
    body = workflow("run", Packed(found.spec, found.platforms or {}, {}, use_cache=True), ArgoSettings(image="ours"))
    for template in body["spec"]["templates"]:
        if "container" in template:
            yield from (template["container"], *template.get("initContainers", ()), *template.get("sidecars", ()))


def test_no_container_has_a_right_that_it_does_not_need() -> None:
    found = [*containers()]
    assert len(found) > 4
    for container in found:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, container
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_every_launcher_finds_its_folders() -> None:
    for container in containers():
        if {LAUNCHER, SIDECAR, LAST} & {*container["command"]}:
            assert [m for m in MOUNTS if m not in container["volumeMounts"]] == []
