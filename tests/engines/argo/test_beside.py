"""A command in somebody else's image against the sidecar that reads what it left: nothing leads out of its folder."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kfp import dsl, kubernetes

from tests.engines.argo.simulated import SETTINGS, SimulatedEngine
from tidegate.cli.progress import failure
from tidegate.engines.argo.packed import Packed
from tidegate.engines.argo.workflow import workflow
from tidegate.engines.base import Arguments
from tidegate.engines.pod.step import MASKED
from tidegate.ir.check import check
from tidegate.ir.load import of_pipeline
from tidegate.plan.events import FAILED, SUCCEEDED, Outcome
from tidegate.store.local import LocalStore
from tidegate.store.runs import RunRecord, Runs, new_run_id

SECRET = "the sidecar's own key"


@dsl.container_component
def foreign(out: dsl.Output[dsl.Artifact], text: dsl.OutputPath(str)):
    return dsl.ContainerSpec(image="foreign", command=["run", out.path, text])


@dsl.pipeline(name="hostile")
def hostile() -> str:
    return foreign().outputs["text"]


def perform(folder: Path, job: Callable[[Path], None]) -> Outcome:
    found = of_pipeline(hostile, "")
    packed = Packed(check(found.spec, found.platforms), found.platforms or {})
    store = LocalStore(folder / "store")
    record = RunRecord(new_run_id(), packed.plan.name, packed.plan.digest, engine="argo")
    Runs(store).create(record)
    return SimulatedEngine(store, packed, record, folder / "pods", job).run(packed.plan, Arguments(), lambda _: None)


def ended(pod: Path, code: str = "0") -> None:
    (pod / "exit").write_text(code)


def left(pod: Path) -> None:
    (pod / "work" / "outputs" / "out").write_text("data")
    (pod / "work" / "parameters" / "text").write_text("said")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "environ"
    file.write_text(SECRET)
    return file


def nothing_leaked(folder: Path) -> bool:
    return not any(SECRET.encode() in f.read_bytes() for f in (folder / "store").rglob("*") if f.is_file())


def test_what_a_command_leaves_is_taken(tmp_path: Path) -> None:
    def job(pod: Path) -> None:
        left(pod)
        ended(pod)

    outcome = perform(tmp_path, job)
    assert (outcome.state, outcome.parameters) == (SUCCEEDED, {"Output": "said"})


@pytest.mark.parametrize("where", ["outputs/out", "parameters/text", "outputs/executor_output.json", "custom_path"])
def test_a_link_or_path_that_leads_out_of_the_folder_is_refused(where: str, secret: Path, tmp_path: Path) -> None:
    def job(pod: Path) -> None:
        left(pod)
        if where == "custom_path":
            said = {"artifacts": {"out": {"artifacts": [{"name": "out", "custom_path": str(secret)}]}}}
            (pod / "work/outputs/executor_output.json").write_text(json.dumps(said))
        else:
            (pod / "work" / where).unlink(missing_ok=True)
            (pod / "work" / where).symlink_to(secret)
        ended(pod)

    outcome = perform(tmp_path, job)
    assert outcome.error
    assert (outcome.state, outcome.error["code"]) == (FAILED, "output-outside")
    assert nothing_leaked(tmp_path)


@pytest.mark.parametrize("name", ["log", "exit"])
def test_what_stands_in_the_place_of_a_file_of_ours_is_not_read(name: str, secret: Path, tmp_path: Path) -> None:
    def job(pod: Path) -> None:
        left(pod)
        ended(pod)
        (pod / name).unlink()
        (pod / name).symlink_to(secret)

    perform(tmp_path, job)
    assert nothing_leaked(tmp_path)


def test_a_failure_that_a_command_makes_up_does_not_lead_out_either(secret: Path, tmp_path: Path) -> None:
    secret.write_text(json.dumps({"type": "E", "message": SECRET, "frames": []}))

    def job(pod: Path) -> None:
        (pod / "work/outputs/error.json").symlink_to(secret)
        ended(pod, "1")

    outcome = perform(tmp_path, job)
    assert outcome.error
    assert (outcome.state, outcome.error["message"]) == (FAILED, "the step exited with 1")
    assert nothing_leaked(tmp_path)


SOURCE = """
from kfp.dsl import *

def divide(n: int):
    share(n)

def share(n):
    return 1 // n
"""


def kfps_own_executor(pod: Path) -> None:
    """A lightweight component in an image that has kfp and nothing of ours."""
    source = pod / "ephemeral_component.py"
    source.write_text(SOURCE)
    said = {"inputs": {"parameterValues": {"n": 0}}, "outputs": {"outputFile": str(pod / "work/outputs/said.json")}}
    command = [sys.executable, "-m", "kfp.dsl.executor_main", "--component_module_path", str(source)]
    command += ["--executor_input", json.dumps(said), "--function_to_execute", "divide"]
    with (pod / "log").open("wb") as log:
        code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    ended(pod, str(code))


def test_the_error_of_a_lightweight_component_shows_its_authors_frames_and_none_of_kfps(tmp_path: Path) -> None:
    outcome = perform(tmp_path, kfps_own_executor)
    assert outcome.error
    frames = [(Path(f["file"]).name, f["line"], f["function"], f["code"]) for f in outcome.error["frames"]]
    assert frames == [
        ("ephemeral_component.py", 5, "divide", "share(n)"),
        ("ephemeral_component.py", 8, "share", "return 1 // n"),
    ]
    assert failure(outcome.error, tmp_path / "project", "", "tidegate")[1:6] == [
        "  ephemeral_component.py:5 in divide",
        "    share(n)",
        "  ephemeral_component.py:8 in share",
        "    return 1 // n",
        "error[step-failed]: ZeroDivisionError: integer division or modulo by zero",
    ]


def test_an_end_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    assert perform(tmp_path, lambda pod: ended(pod, "never")).state == FAILED


def test_secrets_of_the_command_are_taken_out_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{MASKED}0", SECRET)

    def job(pod: Path) -> None:
        left(pod)
        (pod / "log").write_text(f"it is {SECRET}\n")
        ended(pod)

    outcome = perform(tmp_path, job)
    assert outcome.state == SUCCEEDED
    assert Runs(LocalStore(tmp_path / "store")).read_log(outcome.run_id, "foreign") == b"it is ***\n"


@dsl.pipeline(name="secretive")
def secretive():
    kubernetes.use_secret_as_env(foreign(), "db", {"password": "AWS_SECRET_ACCESS_KEY"})


def test_the_sidecar_knows_the_commands_secrets_by_names_that_mean_nothing_to_it() -> None:
    found = of_pipeline(secretive, "")
    body = workflow("x", Packed(found.spec, found.platforms or {}), SETTINGS)
    [template] = [t for t in body["spec"]["templates"] if "sidecars" in t]
    key = {"secretKeyRef": {"name": "db", "key": "password", "optional": False}}
    assert {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": key} in template["container"]["env"]
    names = [e["name"] for e in template["sidecars"][0]["env"] if e.get("valueFrom") == key]
    assert names == [f"{MASKED}0"]
    assert "envFrom" not in template["container"]
