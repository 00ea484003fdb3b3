"""What ``tidegate doctor --engine argo`` finds: each thing that can be missing, one at a time."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.engines.argo.rendered import render
from tidegate.engines.argo.access import Access, Tried
from tidegate.engines.argo.cluster import (
    CRD,
    DEPLOYMENT,
    NAMESPACE,
    NETWORK_POLICY,
    ROLE_BINDING,
    SECRET,
    SERVICE_ACCOUNT,
    Action,
    Kind,
    Object,
)
from tidegate.engines.argo.controller import find_controllers
from tidegate.engines.argo.doctor import Finding, Ward, examine
from tidegate.engines.argo.memory import MemoryCluster
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.errors import ClusterError, StoreError

NS = "pipelines"
SETTINGS = ArgoSettings(image="registry.example/tidegate@sha256:" + "a" * 64)
STORE = {"TIDEGATE_STORE": "s3://models", "AWS_ACCESS_KEY_ID": "steps", "AWS_SECRET_ACCESS_KEY": "s"}


@dataclass(frozen=True)
class Keys:
    """Credentials that may do what is said of them."""

    write: bool = True
    ledger: bool = False
    remove: bool = False
    empty: bool = False

    def works(self) -> Tried:
        return Tried(self.write, "tried")

    def intrudes(self) -> Tried:
        return Tried(self.ledger, "tried")

    def appends(self) -> Tried:
        return Tried(None, "empty") if self.empty else Tried(self.ledger, "tried")

    def deletes(self) -> Tried:
        return Tried(self.remove, "tried")


def secret(name: str, **values: str) -> Object:
    data = {k: base64.b64encode(v.encode()).decode() for k, v in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NS}, "data": data}


def controller(*args: str, image: str = "quay.example/argoproj/workflow-controller:v4.0.7", **env: str) -> Object:
    container = {"image": image, "args": list(args), "env": [{"name": k, "value": v} for k, v in env.items()]}
    spec = {"template": {"spec": {"containers": [container]}}}
    meta = {"name": "workflow-controller", "namespace": "argo"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def crd(name: str) -> Object:
    return {"apiVersion": CRD.api, "kind": CRD.name, "metadata": {"name": f"{name}.argoproj.io"}}


@pytest.fixture
def cluster() -> MemoryCluster:
    kinds = ("workflows", "workflowtemplates", "cronworkflows", "workflowtaskresults")
    there = MemoryCluster(*render(), *map(crd, kinds), controller(DEFAULT_REQUEUE_TIME="1s"))
    there.patch(SECRET, "tidegate-executor.service-account-token", NS, {"data": {"token": "eA=="}})
    there.create(secret("tidegate-store", **STORE))
    there.create(secret("tidegate-store-registrar", **STORE | {"AWS_ACCESS_KEY_ID": "registrar"}))
    return there


def findings(
    cluster: Any, *, steps: Access = Keys(), registrar: Access = Keys(ledger=True), settings: ArgoSettings = SETTINGS
) -> list[Finding]:
    def access(values: Mapping[str, str]) -> Access:
        return steps if values["AWS_ACCESS_KEY_ID"] == "steps" else registrar

    return list(examine(Ward(cluster, settings, access)))


def wrong(*args: Any, **more: Any) -> list[str]:
    return [f"{f.what} → {f.advice}" for f in findings(*args, **more) if f.ok is False]


def unknown(*args: Any, **more: Any) -> list[str]:
    return [f.what for f in findings(*args, **more) if f.ok is None]


def test_a_cluster_with_the_manifests_and_two_secrets_is_all_right(cluster: MemoryCluster) -> None:
    assert [f for f in findings(cluster) if not f.ok] == []


def test_an_empty_namespace_lacks_everything_and_each_line_says_what_to_type() -> None:
    empty = MemoryCluster({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
    found = [f for f in findings(empty) if f.ok is False]
    assert len(found) >= 8
    assert all(f.advice for f in found)


def test_a_namespace_that_does_not_exist_is_said_once_and_what_would_be_in_it_is_not_looked_for(
    cluster: MemoryCluster,
) -> None:
    nowhere = replace(SETTINGS, namespace="pipeline")
    (line,) = wrong(cluster, settings=nowhere)
    assert line.startswith(
        "namespace: pipeline does not exist, so nothing in it was checked → kubectl create namespace"
    )
    assert "docs/argo.md" in line
    assert unknown(cluster, settings=nowhere) == []
    assert [f.what.partition(":")[0] for f in findings(cluster, settings=nowhere)][-1] == "namespace"


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (CRD, "cronworkflows.argoproj.io", "no cronworkflows → install"),
        (NAMESPACE, NS, "pipelines does not exist, so nothing in it was checked → kubectl apply -k manifests/argo;"),
        (SERVICE_ACCOUNT, "tidegate-run", "no tidegate-run → kubectl apply -k"),
        (SERVICE_ACCOUNT, "tidegate-executor", "no tidegate-executor → kubectl apply -k"),
        (ROLE_BINDING, "tidegate-executor", "tidegate-executor may not create workflowtaskresults"),
        (SECRET, "tidegate-executor.service-account-token", "cannot report → kubectl apply -k"),
        (
            SECRET,
            "tidegate-store",
            "no Secret tidegate-store → kubectl create secret generic tidegate-store -n pipelines",
        ),
        (SECRET, "tidegate-store-registrar", "no Secret tidegate-store-registrar → kubectl create secret"),
        (NETWORK_POLICY, "tidegate-steps", "ingress of steps is limited by no NetworkPolicy → kubectl apply -k"),
    ],
)
def test_what_is_missing_is_named_alone_with_what_to_type(
    cluster: MemoryCluster, kind: Kind, name: str, said: str
) -> None:
    cluster.delete(kind, name, "" if kind in (CRD, NAMESPACE) else NS)
    (line,) = wrong(cluster)
    assert said in line


@pytest.mark.parametrize(
    ("kind", "name", "change", "said"),
    [
        (SERVICE_ACCOUNT, "tidegate-run", {"automountServiceAccountToken": None}, "is given its token → kubectl patch"),
        (
            NAMESPACE,
            NS,
            {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}},
            "level privileged → kubectl label namespace pipelines",
        ),
        (SECRET, "tidegate-executor.service-account-token", {"data": None}, "has no token → kubectl delete secret"),
        (SECRET, "tidegate-executor.service-account-token", {"type": "Opaque"}, "is no token of tidegate-executor"),
        (SECRET, "tidegate-store", {"data": {"AWS_ACCESS_KEY_ID": None}}, "lacks AWS_ACCESS_KEY_ID"),
        (SECRET, "tidegate-store", {"data": None}, "lacks TIDEGATE_STORE"),
        (SECRET, "tidegate-store", {"data": {"TIDEGATE_STORE": "L3RtcA=="}}, "/tmp, which pods do not share"),
        (SECRET, "tidegate-store", {"data": {"TIDEGATE_STORE": "czM6Ly9vdGhlcg=="}}, "name two stores"),
        (
            SECRET,
            "tidegate-store-registrar",
            {"data": {"AWS_ACCESS_KEY_ID": "c3RlcHM="}},
            "the registrar's credentials",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_to_type(
    cluster: MemoryCluster, kind: Kind, name: str, change: Object, said: str
) -> None:
    cluster.patch(kind, name, "" if kind is NAMESPACE else NS, change)
    assert any(said in line for line in wrong(cluster, registrar=Keys(ledger=True)))


@pytest.mark.parametrize("account", ["tidegate-run", "tidegate-executor"])
def test_a_right_too_many_is_found(cluster: MemoryCluster, account: str) -> None:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tidegate-submit"}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": NS}
    meta = {"name": "oops", "namespace": NS}
    cluster.create({"apiVersion": ROLE_BINDING.api, "kind": "RoleBinding", "metadata": meta, "roleRef": role,
                    "subjects": [subject]})  # fmt: skip
    (line,) = wrong(cluster)
    assert line.startswith(f"rights: {account} may get pods/log, create workflows.argoproj.io")
    assert "get rolebindings" in line


@pytest.mark.parametrize(
    ("image", "args", "said"),
    [
        ("x/workflow-controller:v4.0.3", (), "4.0.3 hangs"),
        ("x/workflow-controller:v4.0.6", (), "4.0.6 hangs"),
        ("x/workflow-controller:v3.7.16", (), "3.7.16 is too old"),
        ("mirror/wc@sha256:00", ("--executor-image", "x/argoexec:v4.0.5"), "4.0.5 hangs"),
        ("mirror/wc@sha256:00", ("--executor-image=x/argoexec:v4.0.5",), "4.0.5 hangs"),
    ],
)
def test_a_controller_that_hangs_is_refused(
    cluster: MemoryCluster, image: str, args: tuple[str, ...], said: str
) -> None:
    cluster.delete(DEPLOYMENT, "workflow-controller", "argo")
    cluster.create(controller(*args, image=image, DEFAULT_REQUEUE_TIME="1s"))
    (line,) = wrong(cluster)
    assert said in line
    assert "4.0.7 or later" in line


@pytest.mark.parametrize("image", ["x/workflow-controller:v4.0.7", "x/workflow-controller:v4.1.0-rc1@sha256:00"])
def test_a_controller_that_is_new_enough_is_welcome(cluster: MemoryCluster, image: str) -> None:
    cluster.delete(DEPLOYMENT, "workflow-controller", "argo")
    cluster.create(controller(image=image))
    assert wrong(cluster) == []


@pytest.mark.parametrize(
    "image", ["mirror:5000/workflow-controller", "x/workflow-controller:latest", "x/workflow-controller@sha256:00"]
)
def test_a_version_that_cannot_be_known_is_said_to_be_unknown(cluster: MemoryCluster, image: str) -> None:
    cluster.delete(DEPLOYMENT, "workflow-controller", "argo")
    cluster.create(controller(image=image, DEFAULT_REQUEUE_TIME="1s"))
    assert wrong(cluster) == []
    assert unknown(cluster) == [f"controller: the version of {image} cannot be known"]


def test_a_controller_of_another_namespace_is_none_of_ours() -> None:
    there = MemoryCluster(controller("--namespaced"), controller("--namespaced", "--managed-namespace", NS) | {
        "metadata": {"name": "ours", "namespace": "x"}})  # fmt: skip
    assert [c.name for c in find_controllers(there) if c.serves(NS)] == ["ours"]
    assert [c.name for c in find_controllers(there) if c.serves("argo")] == ["workflow-controller"]


def test_a_slow_controller_is_no_fault_but_how_to_make_it_quick_is_said(cluster: MemoryCluster) -> None:
    cluster.delete(DEPLOYMENT, "workflow-controller", "argo")
    cluster.create(controller())
    (slow,) = (f for f in findings(cluster) if "10 s" in f.what)
    assert slow.ok
    assert slow.advice.endswith("kubectl set env -n argo deployment/workflow-controller DEFAULT_REQUEUE_TIME=1s")


def test_steps_that_can_write_the_ledger_are_found(cluster: MemoryCluster) -> None:
    (line,) = wrong(cluster, steps=Keys(ledger=True))
    assert line == "store: tidegate-store CAN WRITE THE LEDGER: tried → attach the policies of manifests/argo/store"


@pytest.mark.parametrize("who", ["steps", "registrar"])
def test_whoever_can_delete_from_the_ledger_is_found(cluster: MemoryCluster, who: str) -> None:
    (line,) = wrong(cluster, **{who: Keys(ledger=who == "registrar", remove=True)})
    assert "CAN DELETE FROM THE LEDGER" in line


def test_a_registrar_that_cannot_append_is_found(cluster: MemoryCluster) -> None:
    (line,) = wrong(cluster, registrar=Keys(ledger=False))
    assert "tidegate-store-registrar may not append to the ledger" in line


def test_an_empty_ledger_leaves_the_registrars_right_unknown(cluster: MemoryCluster) -> None:
    assert wrong(cluster, registrar=Keys(empty=True)) == []
    assert len(unknown(cluster, registrar=Keys(empty=True))) == 1


def test_credentials_that_do_not_work_are_found(cluster: MemoryCluster) -> None:
    (line,) = wrong(cluster, steps=Keys(write=False))
    assert "does not work below probe/" in line


def test_a_store_that_does_not_answer_from_here_is_unknown_and_the_endpoint_is_asked_for(
    cluster: MemoryCluster,
) -> None:
    def access(_: Mapping[str, str]) -> Access:
        raise StoreError("no route")

    found = [f for f in examine(Ward(cluster, SETTINGS, access)) if not f.ok]
    assert [f.ok for f in found] == [None, None]
    assert all("--endpoint URL" in f.advice for f in found)


def test_a_mutable_launcher_image_is_wrong_and_none_is_unknown(cluster: MemoryCluster) -> None:
    assert "by digest" in wrong(cluster, settings=replace(SETTINGS, image="x/tidegate:latest"))[0]
    assert unknown(cluster, settings=replace(SETTINGS, image="")) == ["image: no launcher image is set"]


class Forbidding:
    """A cluster that lets us see nothing but its version."""

    def version(self) -> str:
        return "v1.35.4"

    def find(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        raise ClusterError("does not let us", code="cluster-denied")

    def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> Iterator[Object]:
        raise ClusterError("does not let us", code="cluster-denied")

    def may(self, action: Action, account: str = "") -> bool:
        if account:
            raise ClusterError("does not let us", code="cluster-denied")
        return True


def test_what_we_may_not_look_at_is_unknown_and_no_fault() -> None:
    found = findings(Forbidding())
    assert [f for f in found if f.ok is False] == []
    assert len([f for f in found if f.ok is None]) == 9
    assert all(f.advice for f in found if f.ok is None)


def test_a_cluster_that_does_not_answer_ends_the_examination() -> None:
    class Silent(Forbidding):
        def version(self) -> str:
            raise ClusterError("does not answer", hint="kubectl cluster-info", code="cluster-unreachable")

    assert findings(Silent()) == [Finding(False, "cluster: does not answer", "kubectl cluster-info")]


def test_without_a_cluster_the_command_says_so_and_exits_3(tmp_path: Path) -> None:
    env = {"KUBECONFIG": "/nowhere", "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-m", "tidegate", "doctor", "--engine", "argo", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["ok"] is False
    assert last["advice"].endswith("kubectl config get-contexts")
