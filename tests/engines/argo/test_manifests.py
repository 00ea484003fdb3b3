"""What the manifests grant, and what they do not."""

import fnmatch
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from tests.engines.argo.rendered import MANIFESTS, render
from tidegate.cli.watch import command as watch
from tidegate.engines.argo.check import check
from tidegate.engines.argo.cluster import Action
from tidegate.engines.argo.memory import MemoryCluster
from tidegate.engines.argo.settings import ArgoSettings

OBJECTS = [*render(), *render(MANIFESTS / "quota")]
ARGO = "argoproj.io"
WRITTEN = "blobs cache claims condemned damaged leases plans probe runs".split()
READ_ONLY = "gc tmp anything".split()


def allowed(role: str) -> set[tuple[str, str]]:
    rules = next(o["rules"] for o in OBJECTS if o["kind"] == "Role" and o["metadata"]["name"] == role)
    return {(v, r) for rule in rules for v in rule["verbs"] for r in rule["resources"]}


def unknown(body: Any, model: str) -> list[str]:
    """The fields of an object that Kubernetes does not know, by the client's generated models."""
    if model.startswith("list["):
        return [f for item in body for f in unknown(item, model[5:-1])]
    known = getattr(client, model, None)
    if known is None or not isinstance(body, dict):
        return []
    types = {known.attribute_map[k]: t for k, t in known.openapi_types.items()}
    return [f"{model}.{k}" for k in body if k not in types] + [
        f for k, v in body.items() if k in types for f in unknown(v, types[k])
    ]


@pytest.mark.parametrize("body", OBJECTS, ids=lambda o: f"{o['kind']}-{o['metadata']['name']}")
def test_every_field_is_one_that_kubernetes_knows(body: dict[str, Any]) -> None:
    model = f"V1{body['kind']}"
    assert hasattr(client, model)
    assert unknown(body, model) == []


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    assert unknown({"metadata": {"nmae": "a"}, "spec": {}}, "V1NetworkPolicy") == ["V1ObjectMeta.nmae"]


def test_no_secret_has_a_value() -> None:
    assert [
        o["metadata"]["name"] for o in OBJECTS if o["kind"] == "Secret" and ("data" in o or "stringData" in o)
    ] == []
    assert [line for line in (MANIFESTS / "store/store.env.example").read_text().splitlines() if "KEY" in line] == [
        "AWS_ACCESS_KEY_ID=",
        "AWS_SECRET_ACCESS_KEY=",
    ]


def test_nobody_is_granted_everything_of_anything() -> None:
    assert "*" not in json.dumps([o.get("rules") for o in OBJECTS])


def test_steps_may_do_nothing_and_the_executor_only_report() -> None:
    cluster = MemoryCluster(*render())
    kinds = ("workflows", "workflowtemplates", "cronworkflows", "workflowtaskresults", "pods", "secrets", "pods/log")
    verbs = ("get", "list", "watch", "create", "patch", "update", "delete")
    for account, expected in (("tidegate-run", set()), ("tidegate-executor", {"create", "patch"})):
        for kind in kinds:
            group = ARGO if kind.startswith(("work", "cron")) else ""
            may = {v for v in verbs if cluster.may(Action(v, kind, group, "pipelines"), f"pipelines:{account}")}
            assert may == (expected if kind == "workflowtaskresults" else set()), (account, kind)


def test_those_who_submit_touch_workflows_and_only_look_at_pods() -> None:
    all_verbs = {"get", "list", "watch", "create", "patch", "update", "delete"}
    look = {"get", "list", "watch"}
    kinds = ("workflows", "workflowtemplates", "cronworkflows")
    expected = {(v, k) for k in kinds for v in all_verbs} | {
        (v, k) for k in ("pods", "pods/log", "events") for v in look
    }
    assert allowed("tidegate-submit") == expected


def test_no_account_is_given_its_token_by_itself_and_the_names_are_those_of_the_settings() -> None:
    accounts = {o["metadata"]["name"]: o for o in OBJECTS if o["kind"] == "ServiceAccount"}
    settings = ArgoSettings()
    assert set(accounts) == {settings.service_account, settings.executor_account, "tidegate-submit"}
    assert all(o["automountServiceAccountToken"] is False for o in accounts.values())
    tokens = [o for o in OBJECTS if o["kind"] == "Secret"]
    assert [o["metadata"]["name"] for o in tokens] == [f"{settings.executor_account}.service-account-token"]


def test_the_namespace_admits_restricted_pods_only() -> None:
    labels = next(o["metadata"]["labels"] for o in OBJECTS if o["kind"] == "Namespace")
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_nothing_comes_in_to_a_step_and_no_policy_lets_it_reach_instance_metadata() -> None:
    policies = [o for o in OBJECTS if o["kind"] == "NetworkPolicy"]
    assert not any("ingress" in p["spec"] for p in policies)
    assert any(p["spec"]["policyTypes"] == ["Ingress", "Egress"] and "egress" not in p["spec"] for p in policies)
    blocks = [t["ipBlock"] for p in policies for e in p["spec"].get("egress", ()) for t in e["to"] if "ipBlock" in t]
    assert all("169.254.0.0/16" in b.get("except", ()) for b in blocks if b["cidr"] == "0.0.0.0/0")
    assert not any(b["cidr"].startswith("169.254") for b in blocks)


def policy(name: str) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = json.loads((MANIFESTS / "store" / f"{name}.json").read_text())["Statement"]
    return statements


def may(user: str, action: str, key: str) -> bool:
    """Whether a policy allows an action: some statement allows it and none denies it."""
    effects = {
        s["Effect"]
        for s in policy(user)
        if action in s["Action"] and any(fnmatch.fnmatchcase(f"arn:aws:s3:::STORE/{key}", r) for r in s["Resource"])
    }
    return effects == {"Allow"}


WATCHING = "pins schedules triggers".split()


@pytest.mark.parametrize("user", ["steps", "submit", "registrar"])
def test_runs_write_and_remove_what_runs_make_and_read_everything(user: str) -> None:
    for prefix in (*WRITTEN, *READ_ONLY, "ledger", "checkpoints"):
        assert may(user, "s3:GetObject", f"{prefix}/a")
    for action in ("s3:PutObject", "s3:DeleteObject"):
        assert [p for p in (*WRITTEN, *READ_ONLY) if may(user, action, f"{p}/a")] == WRITTEN
        assert [p for p in WATCHING if may(user, action, f"{p}/a")] == (WATCHING if user == "submit" else [])
        assert not may(user, action, "ledgers/a")


def test_only_the_registrar_writes_the_ledger_and_nobody_removes_from_it() -> None:
    for prefix in ("ledger", "checkpoints"):
        assert not any(may(u, "s3:PutObject", f"{prefix}/fraud/000000000001.json") for u in ("steps", "submit"))
        assert may("registrar", "s3:PutObject", f"{prefix}/fraud/000000000001.json")
    for user in ("steps", "submit", "registrar"):
        for action in ("s3:DeleteObject", "s3:DeleteObjectVersion"):
            assert not may(user, action, "ledger/fraud/000000000001.json")
            assert any(action in s["Action"] for s in policy(user) if s["Effect"] == "Deny")


def test_the_bucket_itself_refuses_to_replace_or_remove_a_record() -> None:
    removed, replaced = policy("aws-bucket-policy")
    assert (removed["Effect"], removed["Principal"], removed["Resource"]) == (
        "Deny",
        "*",
        ["arn:aws:s3:::STORE/ledger/*"],
    )
    assert replaced["Condition"] == {"Null": {"s3:if-none-match": "true"}}


WATCH = MANIFESTS.parent / "watch"


@pytest.mark.parametrize("file", ["deployment.yaml", "cron.yaml"])
def test_a_watcher_has_no_right_but_to_submit_and_is_a_command_that_there_is(file: str) -> None:
    [body] = yaml.safe_load_all((WATCH / file).read_text())
    assert unknown(body, f"V1{body['kind']}") == []
    pod = (body["spec"].get("jobTemplate") or body)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["serviceAccountName"] == "tidegate-submit"
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    program, *words = container["command"]
    context = watch.make_context(program, [w.replace("$(DATA)", "data=file:rows") for w in words[1:]])
    assert (words[0], context.params["engine"], context.params["once"]) == ("watch", "argo", file == "cron.yaml")
    mounts = {m["mountPath"] for m in container["volumeMounts"]}
    assert str(Path(context.params["target"]).parent) in mounts


def test_the_watcher_s_folder_names_what_there_is() -> None:
    said = yaml.safe_load((WATCH / "kustomization.yaml").read_text())
    assert [name for name in said["resources"] if not (WATCH / name).is_file()] == []
    assert said["images"][0]["name"] in (WATCH / "deployment.yaml").read_text()


def test_a_look_is_the_same_as_a_cron_job_and_as_a_cron_workflow() -> None:
    job = yaml.safe_load((WATCH / "cron.yaml").read_text())["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    workflow, network = yaml.safe_load_all((WATCH / "cron-workflow.yaml").read_text())
    check(workflow)
    assert unknown(network, "V1NetworkPolicy") == []
    spec = workflow["spec"]["workflowSpec"]
    [one], [other] = job["containers"], spec["templates"]
    same = ("image", "command", "env", "envFrom", "securityContext", "volumeMounts")
    assert {f: one[f] for f in same} == {f: other["container"][f] for f in same}
    assert (job["volumes"], job["serviceAccountName"]) == (spec["volumes"], spec["serviceAccountName"])
    assert network["spec"]["podSelector"]["matchLabels"].items() <= spec["podMetadata"]["labels"].items()
    run = yaml.safe_load((MANIFESTS.parents[1] / "pipelines/iris/argo.yaml").read_text())["spec"]
    assert spec["securityContext"] == run["securityContext"], "Argo's own images say no user"
    patch = yaml.safe_load(spec["podSpecPatch"])
    assert patch.pop("automountServiceAccountToken") is True, "it asks the API of Kubernetes"
    assert patch == json.loads(run["podSpecPatch"]), "Argo's own containers are held as in runs"
