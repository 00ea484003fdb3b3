"""A component of ours inside KFP's launcher: cache, records and bytes as everywhere, outputs where KFP looks for them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tidegate.engines.kfp import handover, launcher
from tidegate.engines.kfp.nodes import Node
from tidegate.engines.kfp.site import Site
from tidegate.engines.kfp.stream import streamed
from tidegate.errors import ConfigError, StepFailed
from tidegate.ir.load import Definition, load
from tidegate.plan.build import build
from tidegate.plan.events import FAILED, SUCCEEDED
from tidegate.plan.value import Artifact
from tidegate.store.memory import MemoryStore
from tidegate.store.runs import Runs

PIPELINE = """
from kfp import dsl
import tidegate

@tidegate.component(image="registry.example/train@sha256:%s")
def make(n: int, told: list, rows: dsl.Output[dsl.Dataset]) -> dict:
    with open(rows.path, "w") as file:
        file.write("row " * n)
    rows.metadata["weights"] = [1, 2.0]
    rows.metadata["worst"] = float("inf")
    print("made", n, told)
    return {"n": n, "told": told}

@tidegate.component(image="registry.example/train@sha256:%s")
def read(rows: dsl.Input[dsl.Dataset], scale: float = 2.0) -> str:
    assert rows.metadata["weights"] == [1, 2.0], rows.metadata
    return open(rows.path).read() + repr(scale) + type(rows).__name__ + repr(rows.metadata["worst"])

@tidegate.component(image="registry.example/train@sha256:%s")
def breaks(n: int) -> float:
    if n < 0:
        raise ValueError("n is below zero")
    return float("nan")

@tidegate.component(image="registry.example/train@sha256:%s")
def ended(status: dsl.PipelineTaskFinalStatus) -> str:
    return status.state

@dsl.pipeline(name="handed")
def handed(n: int = 3):
    with dsl.ParallelFor([1, 2]) as item:
        rows = make(n=n, told=[item, "x"])
        read(rows=rows.outputs["rows"])
    with dsl.ExitHandler(ended()):
        breaks(n=n)
""" % (("0" * 64,) * 4)


class Pods:
    """A run of ``handed``, a pod at a time, each given what KFP's launcher gives it."""

    def __init__(self, root: Path, definition: Definition) -> None:
        self.root, self.store = root, MemoryStore("team")
        self.plan = build(definition.spec, definition.platforms)
        self.runs = Runs(self.store)
        self.runs.keep_plan(self.plan.digest, definition.spec, definition.platforms)

    def site(self, path: str, given: Mapping[str, Any], run: str = "run-1", attempt: int = 0) -> Site:
        return Site(
            self.store, run, Node(path, attempt), self.plan.digest, given, {"commit": "abc", "user": "ann"},
            folder=self.root / "scratch", root=self.root,
        )  # fmt: skip

    def run(self, path: str, given: Mapping[str, Any], run: str = "run-1", attempt: int = 0) -> int:
        return launcher.run(self.site(path, given, run, attempt))

    @property
    def written(self) -> Any:
        return json.loads((self.root / "tmp/out.json").read_text())


def given(
    run: str, *, parameters: Mapping[str, Any], inputs: Mapping[str, Any] = {}, outputs: tuple[str, ...] = ()
) -> Any:
    """kfp's executor input, as a backend 2.14.3 writes it: a place for logs nobody declared, no types of inputs."""
    places = {n: {"artifacts": [{"uri": f"minio://mlpipeline/v2/{run}/{n}"}]} for n in (*outputs, "executor-logs")}
    return {
        "inputs": {"parameterValues": dict(parameters), "artifacts": dict(inputs)},
        "outputs": {"artifacts": places, "outputFile": "/tmp/out.json", "parameters": {}},
    }


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pods:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/pyproject.toml").touch()
    (tmp_path / "project/handed.py").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.syspath_prepend(str(tmp_path / "project"))
    return Pods(tmp_path, load("handed.py"))


MAKE = "for-loop-2[1]/make"


def made(run: str = "run-1") -> Any:
    # KFP makes text of a number inside a list: the plan and the loop's own item put it right
    values = {"n": 3, "told": ["2", "x"], "pipelinechannel--loop-item-param-1": 2}
    return given(run, parameters=values, outputs=("rows",))


def test_a_step_leaves_a_record_in_the_store_and_its_outputs_where_kfp_looks(pods: Pods) -> None:
    assert pods.run(MAKE, made()) == 0
    record = pods.runs.find_step("run-1", MAKE)
    assert record
    assert (record.state, record.outputs["parameters"]) == (SUCCEEDED, {"Output": {"n": 3, "told": [2, "x"]}})
    assert (pods.root / "minio/mlpipeline/v2/run-1/rows").read_text() == "row row row "
    assert pods.written["parameterValues"] == {"Output": {"n": 3, "told": [2, "x"]}}
    [rows] = pods.written["artifacts"]["rows"]["artifacts"]
    digest = record.outputs["artifacts"]["rows"][0]["digest"]
    assert rows["uri"] == "minio://mlpipeline/v2/run-1/rows"
    assert rows["metadata"] == {"weights": [1, 2.0], "worst": "inf", "tidegate_digest": digest}
    assert "executor-logs" not in pods.written["artifacts"]
    assert b"made 3 [2, 'x']" in pods.runs.read_log("run-1", MAKE)
    assert pods.runs.read("run-1").commit == "abc"


def test_the_next_step_is_given_the_exact_artifact_though_kfp_changed_what_it_tells_of_it(pods: Pods) -> None:
    pods.run(MAKE, made())
    told = {"name": "17", "type": {"instanceSchema": ""}, "uri": "minio://mlpipeline/v2/run-1/rows",
            "metadata": {"weights": [1, 2], "worst": "inf", "display_name": "rows", "store_session_info": "{}"}}  # fmt: skip
    asked = given("run-1", parameters={"scale": 2}, inputs={"rows": {"artifacts": [told]}})
    assert pods.run("for-loop-2[1]/read", asked) == 0
    assert pods.written["parameterValues"] == {"Output": "row row row 2.0Datasetinf"}


def test_a_step_that_ran_anywhere_is_cached_and_hands_over_the_same(pods: Pods) -> None:
    pods.run(MAKE, made())
    first = pods.written
    (pods.root / "minio/mlpipeline/v2/run-1/rows").unlink()
    assert pods.run(MAKE, made("run-2"), "run-2") == 0
    record = pods.runs.find_step("run-2", MAKE)
    assert record
    assert record.cached
    assert (pods.root / "minio/mlpipeline/v2/run-2/rows").read_text() == "row row row "
    assert pods.written["parameterValues"] == first["parameterValues"]


def test_an_artifact_of_somebody_else_is_taken_as_it_lies_there_and_goes_into_the_store(pods: Pods) -> None:
    file = pods.root / "s3/bucket/theirs/rows"
    file.parent.mkdir(parents=True)
    file.write_text("foreign ")
    told = {"uri": "s3://bucket/theirs/rows", "metadata": {"weights": [1, 2.0], "worst": 1, "display_name": "rows"}}
    ready = pods.site("for-loop-2[0]/read", given("r", parameters={}, inputs={"rows": {"artifacts": [told]}})).ready()
    [rows] = ready.inputs.artifacts["rows"]
    assert (rows.name, rows.type, rows.metadata) == ("rows", "system.Dataset@0.0.1", {"weights": [1, 2.0], "worst": 1})
    assert pods.site("x", {}).blobs.read_bytes(rows.digest) == b"foreign "


def test_bytes_that_changed_on_the_way_are_not_taken_for_what_was_made(pods: Pods) -> None:
    pods.run(MAKE, made())
    (pods.root / "minio/mlpipeline/v2/run-1/rows").write_text("other")
    told = {"uri": "minio://mlpipeline/v2/run-1/rows", "metadata": {"weights": [1, 2.0]}}
    ready = pods.site("for-loop-2[1]/read", given("r", parameters={}, inputs={"rows": {"artifacts": [told]}})).ready()
    assert pods.site("x", {}).blobs.read_bytes(ready.inputs.artifacts["rows"][0].digest) == b"other"


@pytest.mark.parametrize(
    ("n", "code", "message"), [(-1, "step-failed", "n is below zero"), (1, "kfp-number", "the number nan")]
)
def test_a_step_that_fails_says_why_in_its_record(pods: Pods, n: int, code: str, message: str) -> None:
    assert pods.run("exit-handler-3/breaks", given("run-1", parameters={"n": n})) == 1
    record = pods.runs.find_step("run-1", "exit-handler-3/breaks")
    assert record
    assert record.error
    assert (record.state, record.error["code"]) == (FAILED, code)
    assert message in record.error["message"]


def test_a_second_try_is_recorded_as_one_and_its_log_stands_behind_the_first(pods: Pods) -> None:
    pods.run("exit-handler-3/breaks", given("run-1", parameters={"n": -1}))
    pods.run("exit-handler-3/breaks", given("run-1", parameters={"n": -2}), attempt=1)
    record = pods.runs.find_step("run-1", "exit-handler-3/breaks")
    assert record
    assert record.attempts == 2
    assert b"== attempt 2" in pods.runs.read_log("run-1", "exit-handler-3/breaks")


def test_a_pod_whose_store_has_not_the_definition_says_so(pods: Pods) -> None:
    pods.store.delete(f"plans/{pods.plan.digest[7:]}.json")
    with pytest.raises(StepFailed, match="does not have the definition"):
        pods.run(MAKE, made())


@pytest.mark.parametrize("path", ["nothing", "for-loop-2[0]", "make/more"])
def test_a_step_that_the_plan_has_not_is_refused(pods: Pods, path: str) -> None:
    with pytest.raises(StepFailed, match="nothing in the plan"):
        pods.site(path, made()).ready()


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (float("nan"), "kfp-number"),
        ([1, {"a": float("inf")}], "kfp-number"),
        (2**53 + 1, "kfp-number"),
        ("x" * handover.MAX_PARAMETER, "kfp-too-large"),
    ],
)
def test_a_value_that_does_not_come_out_of_kfp_as_it_goes_in_is_refused(value: Any, code: str) -> None:
    with pytest.raises(StepFailed) as refused:
        handover.check_parameter(value, "the output 'x'")
    assert refused.value.code == code


@pytest.mark.parametrize("value", [2**53, -1.5, True, None, {"a": [1, "NaN", False]}, "x" * 1000])
def test_any_other_value_is_let_through(value: Any) -> None:
    handover.check_parameter(value, "the output 'x'")


@pytest.mark.parametrize(
    ("uri", "path"),
    [("s3://b/k", "/s3/b/k"), ("gs://b/k/x", "/gcs/b/k/x"), ("minio://b/k", "/minio/b/k"), ("/here", "/here")],
)
def test_an_address_is_the_folder_where_kfp_puts_it(uri: str, path: str) -> None:
    assert handover.local(uri) == Path(path)


def test_what_an_artifact_is_is_remembered_by_run_and_address() -> None:
    store, artifact = MemoryStore("m"), Artifact("rows", digest="sha256:1", metadata={"a": float("inf")})
    handover.remember(store, "run-1", "s3://b/k", artifact)
    assert handover.recall(store, "run-1", "s3://b/k") == artifact
    assert handover.recall(store, "run-2", "s3://b/k") is None
    assert handover.recall(store, "run-1", "s3://b/k2") is None


def test_the_keys_of_a_mounted_secret_become_variables_and_those_that_are_set_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "..data").mkdir()
    for name, text in {"TIDEGATE_STORE": "s3://b/p\n", "AWS_REGION": "r", "other": "x"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(os, "environ", {"AWS_REGION": "mine"})
    launcher.with_secret(tmp_path)
    assert os.environ == {"TIDEGATE_STORE": "s3://b/p", "AWS_REGION": "mine"}


def test_a_pod_without_a_store_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="TIDEGATE_STORE"):
        launcher.site("{}", {})


def test_the_log_of_a_step_is_in_the_store_while_it_runs_without_secrets_and_without_half_lines(pods: Pods) -> None:
    site = pods.site(MAKE, made())
    site.folder.mkdir()
    (site.folder / "log").write_text("the key is swordfish\nhalf a li")
    with streamed(site, ("swordfish",), every=0.01):
        while not (seen := pods.runs.find_log("run-1", MAKE)):
            pass
    assert seen == b"the key is ***\n"


@pytest.mark.parametrize(("said", "state"), [("COMPLETE", "SUCCEEDED"), ("FAILED", "FAILED")])
def test_an_exit_task_of_ours_is_told_as_everywhere_how_it_ended(pods: Pods, said: str, state: str) -> None:
    status = {"state": said, "pipelineTaskName": "exit-handler-1", "pipelineJobResourceName": "w", "error": {}}
    assert pods.run("ended", given("run-1", parameters={"status": status})) == 0
    record = pods.runs.find_step("run-1", "ended")
    assert record
    assert record.outputs["parameters"] == {"Output": state}
