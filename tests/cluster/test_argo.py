"""The manifests and the doctor on a real cluster with a real object store."""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import setting
from tests.cluster.bucket import Bucket, new_bucket
from tests.cluster.shell import call
from tests.cluster.space import SECRETS, Space, new_space
from tests.engines.argo.rendered import MANIFESTS, render
from tidegate.engines.argo.access import StoreAccess
from tidegate.engines.argo.cluster import POD, SECRET, WORKFLOW, Cluster
from tidegate.engines.argo.kube import open_cluster
from tidegate.errors import StoreError

pytestmark = pytest.mark.cluster
WRITTEN = "blobs cache claims condemned damaged leases plans probe runs".split()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """One of this file's own: its users' rights change."""
    if not setting.MINIO:
        pytest.skip("needs an object store: TIDEGATE_TEST_MINIO=…")
    with new_bucket(tmp_path_factory.mktemp("mc")) as made:
        yield made


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return open_cluster()


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    """A namespace with the quota of the manifests."""
    with new_space(tmp_path_factory.mktemp("space"), "quota") as made:
        yield made


@pytest.fixture(scope="module")
def namespace(space: Space) -> str:
    return space.name


@pytest.fixture
def stocked(space: Space, bucket: Bucket) -> str:
    """The namespace with the two Secrets, made from env files."""
    space.stock(bucket)
    return space.name


def doctor(namespace: str, *words: str, folder: Path, **env: str) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tidegate", "doctor", "--engine", "argo", "--json", *words],
        env={**os.environ, "TIDEGATE_ARGO_NAMESPACE": namespace, "PYTHONPATH": ":".join(sys.path), **env},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (0, 3), done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == (3 if any(f["ok"] is False for f in found) else 0)
    return {f["check"]: f for f in found}


def test_kubectl_renders_what_our_own_tests_look_at() -> None:
    def by_name(bodies: list[dict[str, Any]]) -> dict[Any, Any]:
        return {(b["kind"], b["metadata"]["name"]): b for b in bodies}

    assert by_name(list(yaml.safe_load_all(call("kubectl", "kustomize", str(MANIFESTS))))) == by_name(render())


def test_before_the_secrets_are_made_the_doctor_asks_for_them_and_for_nothing_else(
    namespace: str, cluster: Cluster, tmp_path: Path
) -> None:
    for name in SECRETS:
        cluster.delete(SECRET, name, namespace)
    wrong = [f for f in doctor(namespace, folder=tmp_path).values() if f["ok"] is False]
    assert [f["check"] for f in wrong] == [
        "store: there is no Secret tidegate-store",
        "store: there is no Secret tidegate-store-registrar",
    ]


def test_with_the_secrets_made_from_env_files_everything_is_right(stocked: str, bucket: Bucket, tmp_path: Path) -> None:
    found = doctor(stocked, "--endpoint", bucket.endpoint, folder=tmp_path)
    assert [c for c, f in found.items() if f["ok"] is False] == []
    assert "store: tidegate-store cannot write the ledger" in found
    assert "store: tidegate-store-registrar cannot delete from the ledger" in found


def test_a_step_user_with_too_many_rights_is_found(stocked: str, bucket: Bucket, tmp_path: Path) -> None:
    user = f"{bucket.name}-steps"
    bucket.mc("admin", "policy", "detach", "it", user, "--user", user)
    bucket.mc("admin", "policy", "attach", "it", "readwrite", "--user", user)
    try:
        found = doctor(stocked, "--endpoint", bucket.endpoint, folder=tmp_path)
    finally:
        bucket.mc("admin", "policy", "detach", "it", "readwrite", "--user", user)
        bucket.mc("admin", "policy", "attach", "it", user, "--user", user)
    assert any("tidegate-store CAN WRITE THE LEDGER" in c for c, f in found.items() if f["ok"] is False)
    assert any("tidegate-store CAN DELETE FROM THE LEDGER" in c for c, f in found.items() if f["ok"] is False)
    assert [e.key for e in bucket.store("steps").list("ledger") if "_doctor" in e.key] == []


def test_to_somebody_who_may_only_submit_the_rest_is_unknown_and_no_fault(space: Space, tmp_path: Path) -> None:
    found = doctor(space.name, folder=tmp_path, KUBECONFIG=str(space.kubeconfig("tidegate-submit")))
    assert [c for c, f in found.items() if f["ok"] is False] == []
    assert found["rights: you may submit, watch and end runs"]["ok"]
    assert sum(f["ok"] is None for f in found.values()) >= 8


@pytest.mark.parametrize("user", ["steps", "registrar"])
def test_the_store_lets_a_user_write_what_runs_make_and_nothing_else(bucket: Bucket, user: str) -> None:
    store = bucket.store(user)
    for prefix in WRITTEN:
        key = f"{prefix}/{secrets.token_hex(4)}"
        assert store.put_new(key, b"a")
        assert not store.put_new(key, b"b")
        store.put(key, b"c")
        store.move(key, f"{key}-moved")
        store.delete(f"{key}-moved")
    for prefix in ("gc", "tmp", "anything"):
        with pytest.raises(StoreError) as refused:
            store.put(f"{prefix}/a", b"a")
        assert refused.value.code == "store-denied"


def test_only_the_registrar_appends_to_the_ledger_and_nobody_removes_a_record(bucket: Bucket) -> None:
    steps, registrar = bucket.store("steps"), bucket.store("registrar")
    key = f"ledger/model/{secrets.token_hex(4)}.json"
    for refused in (
        lambda: steps.put_new(key, b"x"),
        lambda: steps.put(key, b"x"),
        lambda: steps.put("checkpoints/m.json", b""),
    ):
        with pytest.raises(StoreError, match="refuses"):
            refused()
    assert registrar.put_new(key, b"record")
    assert not registrar.put_new(key, b"another")
    registrar.put("checkpoints/m.json", b"")
    assert steps.get(key) == b"record"
    for store in (steps, registrar):
        with pytest.raises(StoreError) as denied:
            store.delete(key)
        assert denied.value.code == "store-denied"
    assert StoreAccess(bucket.values("registrar")).appends().allowed
    assert registrar.get(key) == b"record"


def test_a_restricted_pod_of_argo_runs_reports_its_output_and_sees_no_token(namespace: str, cluster: Cluster) -> None:
    created = cluster.create(_workflow(namespace))
    name = created["metadata"]["name"]
    end, ended = time.monotonic() + 120, None
    while ended is None and time.monotonic() < end:
        for change in cluster.watch(WORKFLOW, namespace, seconds=10):
            status = change.object.get("status") or {}
            if change.object["metadata"]["name"] == name and status.get("finishedAt"):
                ended = status
                break
    assert ended is not None
    assert ended["phase"] == "Succeeded", ended.get("message")
    (node,) = (n for n in ended["nodes"].values() if n["type"] == "Pod")
    assert node["outputs"]["parameters"][0]["value"] == "no token"
    (pod,) = cluster.list(POD, namespace, {"workflows.argoproj.io/workflow": name})
    log = b"".join(cluster.log(pod["metadata"]["name"], namespace, "main"))
    assert b"uid=1000" in log


# Argo gives its own two containers no security context: without this a restricted namespace refuses every pod
LEAST = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
PATCH = {
    "initContainers": [{"name": "init", "securityContext": LEAST}],
    "containers": [{"name": "wait", "securityContext": LEAST}],
}


def _workflow(namespace: str) -> dict[str, Any]:
    script = 'id; T=/var/run/secrets/kubernetes.io; if [ -e $T ]; then ls $T; else echo "no token"; fi > /out/seen'
    container = {
        "image": setting.BASE,
        "command": ["sh", "-c", script],
        "securityContext": LEAST,
        "volumeMounts": [{"name": "out", "mountPath": "/out"}],
    }
    outputs = {"parameters": [{"name": "seen", "valueFrom": {"path": "/out/seen"}}]}
    spec = {
        "entrypoint": "main",
        "serviceAccountName": "tidegate-run",
        "automountServiceAccountToken": False,
        "executor": {"serviceAccountName": "tidegate-executor"},
        "activeDeadlineSeconds": 100,
        "podSpecPatch": json.dumps(PATCH),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": "out", "emptyDir": {}}],
        "templates": [{"name": "main", "container": container, "outputs": outputs}],
    }
    meta = {"generateName": "seen-", "namespace": namespace}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": meta, "spec": spec}
