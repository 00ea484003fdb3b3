"""What cannot go well: it is said at once where that can be known, with a code, the right exit code, and nothing left."""

import json
from dataclasses import replace

import pytest
import yaml

from tests.cluster.ahead import Work, ahead
from tests.cluster.ground import Ground
from tests.cluster.ran import Ran
from tests.cluster.space import new_space
from tests.cluster.test_faults import Fault, _failed, simply

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


def refused(*words: str, flow: str = "plain", **env: str) -> Work:
    return lambda ground: ground.there(flow, *words, **env)


def _stopped(ran: Ran, code: int, name: str, *words: str) -> None:
    assert (ran.code, ran.error["code"]) == (code, name), ran.said
    assert all(w in ran.err for w in words), ran.err
    assert "Traceback" not in ran.err


@ahead(refused("--store", "/tmp/nowhere"))
def test_a_folder_as_store_is_refused(result: Ran) -> None:
    _stopped(result, 2, "store-not-shared", "/tmp/nowhere")


def renamed(ground: Ground) -> Ran:
    """A definition whose name has no letter that Kubernetes takes."""
    file = ground.refused("unnamed")
    body = yaml.safe_load((ground.flows / "plain.yaml").read_text())
    body["pipelineInfo"]["name"] = "日本"
    file.write_text(yaml.safe_dump(body))
    return ground.there("refused/unnamed")


@ahead(renamed)
def test_a_name_that_gives_no_name_for_an_object_is_refused(result: Ran) -> None:
    _stopped(result, 2, "argo-name", "日本")


def tagged(ground: Ground) -> tuple[Ran, Ran]:
    """A definition whose image is named by tag."""
    file = ground.refused("tagged")
    tag = ground.images["kfp"].partition("@")[0] + ":1"
    file.write_text(
        (ground.flows / "plain.yaml")
        .read_text()
        .replace(ground.images["kfp"], tag)
        .replace("name: plain", "name: tagged")
    )
    return ground.there("refused/tagged"), ground.there("refused/tagged", "--allow-tags")


@ahead(tagged)
def test_images_by_tag_need_a_word(result: tuple[Ran, Ran]) -> None:
    _stopped(result[0], 2, "image-mutable", "--allow-tags")
    assert result[1].state == "SUCCEEDED", result[1].said


@ahead(lambda ground: ground.of("tidegate-run").there("plain"))
def test_an_account_without_rights_is_told_which_it_lacks(result: Ran) -> None:
    _stopped(result, 3, "cluster-denied", "workflows", "tidegate-submit")


@ahead(lambda ground: ground.of("nobody").there("plain"))
def test_a_stranger_is_not_let_in(result: Ran) -> None:
    _stopped(result, 3, "cluster-denied")


@ahead(refused(TIDEGATE_ARGO_NAMESPACE="tidegate-test-absent"))
def test_a_namespace_that_is_not_there_is_named(result: Ran) -> None:
    _stopped(result, 3, "cluster-denied", "tidegate-test-absent")


@ahead(refused(AWS_SECRET_ACCESS_KEY="wrong"))
def test_credentials_that_the_store_does_not_take_are_refused_before_anything_starts(result: Ran) -> None:
    _stopped(result, 3, "store-denied")


@ahead(refused(AWS_ENDPOINT_URL="http://127.0.0.1:9"))
def test_a_store_that_does_not_answer_here_is_said_before_anything_starts(result: Ran) -> None:
    _stopped(result, 3, "store-error")


@ahead(simply("plain", "-p", "text=no secret", TIDEGATE_ARGO_STORE_SECRET="absent"))
def test_a_missing_secret_of_the_store_is_named(result: Fault) -> None:
    _failed(result, "pod-config", "say", "absent")


@ahead(simply("secretless"))
def test_a_missing_secret_of_a_step_is_named(result: Fault) -> None:
    _failed(result, "pod-config", "show", "absent")


@ahead(simply("plain", "-p", "text=nobody", TIDEGATE_ARGO_SERVICE_ACCOUNT="absent"))
def test_a_missing_account_of_the_steps_is_named(result: Fault) -> None:
    _failed(result, "pod-refused", "say", "absent")


def unreachable(ground: Ground) -> Fault:
    """Pods that look for the store where nothing listens."""
    values = {**ground.bucket.values("steps", inside=True), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    ground.space.make_secret("lost-store", values)
    return simply("plain", "-p", "text=lost", TIDEGATE_ARGO_STORE_SECRET="lost-store")(ground)


@ahead(unreachable)
def test_a_store_that_pods_cannot_reach_is_said(result: Fault) -> None:
    _failed(result, "pod-failed", "say", "127.0.0.1:9")


def elsewhere(ground: Ground) -> Ran:
    """Pods that write to another store than the submitter reads."""
    values = {**ground.bucket.values("steps", inside=True), "TIDEGATE_STORE": f"s3://{ground.bucket.name}/team/runs"}
    ground.space.make_secret("other-store", values)
    return ground.there("plain", "-p", "text=other", TIDEGATE_ARGO_STORE_SECRET="other-store")


@ahead(elsewhere)
def test_pods_that_use_another_store_are_noticed(result: Ran) -> None:
    _stopped(result, 3, "argo-store-differs", "other-store")


def crowded(ground: Ground) -> Fault:
    """A namespace whose quota lets no pod in."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    with new_space(ground.space.folder.parent / "crowded") as space:
        space.stock(ground.bucket)
        space.kubeconfig("tidegate-submit")
        space.kubectl("apply", "-f", "-", stdin=json.dumps(quota))
        there = replace(ground, space=space)
        return simply("plain", "-p", "text=crowded")(there)


@ahead(crowded)
def test_a_quota_that_is_used_up_is_said(result: Fault) -> None:
    _failed(result, "pod-quota", "say", "quota")
