"""What every cluster promises, held by the one in memory and, where there is one, by a real one."""

import json
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import wait_until
from tidegate.engines.argo.cluster import CONFIG_MAP, NAMESPACE, POD, WORKFLOW, Action, Cluster, Kind
from tidegate.engines.argo.kube import KubeCluster, open_cluster
from tidegate.engines.argo.memory import MemoryCluster
from tidegate.errors import ClusterError, ConfigError, Conflict, NotFound


@pytest.fixture(params=["memory", pytest.param("kube", marks=pytest.mark.cluster)])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return MemoryCluster() if request.param == "memory" else open_cluster()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"tidegate-test-{secrets.token_hex(4)}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    cluster.delete(NAMESPACE, name)


def words(namespace: str, name: str = "a", **data: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace, "labels": {"of": name}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def test_what_is_not_there_is_none(cluster: Cluster, namespace: str) -> None:
    nowhere = Kind("nobody.example/v1", "Nothing", "nothings")
    assert cluster.find(CONFIG_MAP, "nothing", namespace) is None
    assert cluster.find(nowhere, "nothing", namespace) is None
    assert list(cluster.list(nowhere, namespace)) == []
    cluster.delete(CONFIG_MAP, "nothing", namespace)
    with pytest.raises(NotFound):
        cluster.patch(CONFIG_MAP, "nothing", namespace, {"data": {}})
    with pytest.raises(NotFound):
        list(cluster.log("nothing", namespace, "main"))


def test_an_object_is_created_once_and_applied_as_often_as_you_like(cluster: Cluster, namespace: str) -> None:
    cluster.create(words(namespace, k="1"))
    with pytest.raises(Conflict):
        cluster.create(words(namespace, k="2"))
    assert cluster.apply(words(namespace, k="3"))["data"] == {"k": "3"}
    assert cluster.apply(words(namespace, "new", k="4"))["metadata"]["uid"]
    assert cluster.patch(CONFIG_MAP, "a", namespace, {"data": {"k": None, "l": "5"}})["data"] == {"l": "5"}


def test_what_is_applied_no_more_is_taken_away_and_what_others_wrote_stays(cluster: Cluster, namespace: str) -> None:
    cluster.apply(words(namespace, k="1", l="2"))
    cluster.patch(CONFIG_MAP, "a", namespace, {"metadata": {"labels": {"theirs": "x"}}})
    found = cluster.apply(words(namespace, l="3"))
    assert found["data"] == {"l": "3"}
    assert found["metadata"]["labels"] == {"of": "a", "theirs": "x"}


@pytest.mark.parametrize("alone", [False, True])
def test_what_an_object_owns_goes_with_it_unless_it_is_deleted_alone(
    cluster: Cluster, namespace: str, alone: bool
) -> None:
    uid = cluster.create(words(namespace, "owner"))["metadata"]["uid"]
    owned = words(namespace, "owned")
    owned["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]
    cluster.create(owned)
    cluster.delete(CONFIG_MAP, "owner", namespace, alone=alone)
    wait_until(lambda: cluster.find(CONFIG_MAP, "owner", namespace) is None)
    if alone:
        assert cluster.find(CONFIG_MAP, "owned", namespace)
    else:
        wait_until(lambda: cluster.find(CONFIG_MAP, "owned", namespace) is None)


def test_a_generated_name_is_told(cluster: Cluster, namespace: str) -> None:
    body = {**words(namespace), "metadata": {"generateName": "some-", "namespace": namespace}}
    names = {cluster.create(body)["metadata"]["name"] for _ in range(2)}
    assert len(names) == 2
    assert all(n.startswith("some-") for n in names)


def test_a_list_has_only_what_carries_the_labels(cluster: Cluster, namespace: str) -> None:
    for name in ("a", "b"):
        cluster.create(words(namespace, name))
    assert [c["metadata"]["name"] for c in cluster.list(CONFIG_MAP, namespace, {"of": "b"})] == ["b"]
    assert {"a", "b"} <= {c["metadata"]["name"] for c in cluster.list(CONFIG_MAP, namespace)}
    assert all(c["kind"] == "ConfigMap" for c in cluster.list(CONFIG_MAP, namespace))


def test_a_watch_begins_with_what_is_there_and_tells_every_change(cluster: Cluster, namespace: str) -> None:
    cluster.create(words(namespace, k="1"))

    def change() -> None:
        time.sleep(0.3)
        cluster.patch(CONFIG_MAP, "a", namespace, {"data": {"k": "2"}})
        cluster.create(words(namespace, "other"))
        cluster.delete(CONFIG_MAP, "a", namespace)

    thread = threading.Thread(target=change)
    thread.start()
    seen = [(c.type, c.object["data"]["k"]) for c in cluster.watch(CONFIG_MAP, namespace, {"of": "a"}, seconds=2)]
    thread.join()
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]


def test_rights_are_those_that_the_roles_grant(cluster: Cluster, namespace: str) -> None:
    meta = {"name": "reader", "namespace": namespace}
    api = "rbac.authorization.k8s.io/v1"
    rules = [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]
    cluster.create({"apiVersion": api, "kind": "Role", "metadata": meta, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    who = [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}]
    cluster.create({"apiVersion": api, "kind": "RoleBinding", "metadata": meta, "roleRef": role, "subjects": who})
    time.sleep(0.0 if isinstance(cluster, MemoryCluster) else 0.5)  # the API server reads roles from a cache
    account = f"{namespace}:reader"
    assert cluster.may(Action("get", "pods/log", "", namespace), account)
    assert not cluster.may(Action("get", "pods", "", namespace), account)
    assert not cluster.may(Action("get", "pods/log", "", "default"), account)
    assert not cluster.may(Action("*", "*", "*", namespace), account)
    assert cluster.may(Action("*", "*", "*", namespace))


def test_without_a_kubeconfig_we_say_where_one_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(ConfigError) as refused:
        open_cluster()
    assert refused.value.code == "cluster-config"


def kubeconfig(file: Path, *names: str, current: str = "") -> None:
    contexts = [{"name": n, "context": {"cluster": "c", "user": "u"}} for n in names]
    clusters = [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}]
    file.write_text(json.dumps({"current-context": current, "contexts": contexts, "clusters": clusters, "users": []}))


@pytest.mark.parametrize("context", ["stagin", ""])
def test_a_context_that_is_not_there_is_told_with_those_that_are(
    context: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig(tmp_path / "one", "staging", "kind-a", current="gone")
    kubeconfig(tmp_path / "two", "prod", current="gone")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    with pytest.raises(ConfigError) as refused:
        open_cluster(context)
    assert (context or "gone") in refused.value.found
    assert refused.value.allowed == "Its contexts: kind-a, prod, staging."
    assert "TIDEGATE_ARGO_CONTEXT" in refused.value.hint
    assert open_cluster("prod").address == "https://127.0.0.1:1"


def test_of_many_contexts_ten_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig(tmp_path / "many", *(f"c{i:02}" for i in range(13)))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "many"))
    with pytest.raises(ConfigError) as refused:
        open_cluster("absent")
    assert refused.value.allowed.endswith("c08, c09 and 3 more.")


@pytest.mark.parametrize("text", ["", "[]", "a: [", "contexts: 3", "contexts: [{}]", "contexts: [a]", "\0"])
def test_a_kubeconfig_that_cannot_be_read_is_told_and_no_traceback(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "broken"))
    with pytest.raises(ConfigError) as refused:
        open_cluster("absent")
    assert refused.value.code == "cluster-config"


def test_a_cluster_that_does_not_answer_is_trouble_and_no_traceback() -> None:
    from kubernetes.client import ApiClient, Configuration

    settings = Configuration(host="http://127.0.0.1:1")
    settings.retries = False
    with pytest.raises(ClusterError) as refused:
        KubeCluster(ApiClient(settings)).find(WORKFLOW, "a", "b")
    assert refused.value.code == "cluster-unreachable"
    assert refused.value.exit_code == 3


@pytest.mark.cluster
def test_what_we_may_not_do_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    real = open_cluster()
    real._client.set_default_header("Impersonate-User", "nobody@example")
    with pytest.raises(ClusterError) as refused:
        list(real.list(POD, "default"))
    assert refused.value.code == "cluster-denied"
