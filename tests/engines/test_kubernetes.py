"""Kubernetes settings: applied where they mean something on this machine, else named once; never dropped."""

import base64
import os
from pathlib import Path

import pytest
from kfp import dsl, kubernetes

from tests.engines.project import Project
from tidegate import Options, api
from tidegate.engines.local.kubernetes import not_applied
from tidegate.errors import ConfigError, DefinitionError
from tidegate.ir.load import of_pipeline
from tidegate.plan.build import build
from tidegate.plan.events import Notice
from tidegate.store.runs import Runs

OBJECTS = """
[tool.tidegate.kubernetes]
secrets.db = "secrets/db.env"
config-maps.app = "config"
volumes.data = "data"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Project(tmp_path)
    made.write("pyproject.toml", OBJECTS)
    made.write("secrets/db.env", "# a comment\nexport user=tide\npassword='a secret = word'\n")
    made.write("config/mode", "fast")
    return made


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def env(names: list) -> list:
    import os

    return [os.environ.get(n) for n in names]


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def files(folder: str, write: str = "") -> dict:
    import os

    if write:
        with open(os.path.join(folder, write), "a") as f:
            f.write("x")
    return {n: open(os.path.join(folder, n)).read() for n in sorted(os.listdir(folder))}


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def sleep(seconds: float, marker: str):
    import time

    time.sleep(seconds)
    open(marker, "w").close()


@dsl.pipeline(name="secrets")
def secrets(name: str = "db") -> list:
    task = env(names=["USER_NAME", "PASSWORD", "MODE", "POD"])
    kubernetes.use_secret_as_env(task, name, {"user": "USER_NAME", "password": "PASSWORD"})
    kubernetes.use_config_map_as_env(task, "app", {"mode": "MODE"})
    kubernetes.use_field_path_as_env(task, "POD", "metadata.namespace")
    return task.output


def test_secrets_config_maps_and_pod_fields_arrive_as_environment_variables(project: Project) -> None:
    assert project.run_traced(secrets).parameters == {"Output": ["tide", "a secret = word", "fast", "local"]}


def test_a_secret_is_in_no_record_and_no_key(project: Project) -> None:
    @dsl.pipeline(name="quiet")
    def quiet() -> list:
        task = env(names=[])
        kubernetes.use_secret_as_env(task, "db", {"password": "PASSWORD"})
        return task.output

    project.run_traced(quiet)
    found = [p for p in (project.root / ".tidegate").rglob("*") if p.is_file() and b"a secret" in p.read_bytes()]
    assert not found


def test_another_value_of_a_secret_or_config_map_is_another_result(project: Project) -> None:
    first = project.run_traced(secrets)
    project.run_traced(secrets)
    assert project.cached() == {"env": True}
    project.write("secrets/db.env", "user=tide\npassword=another\n")
    assert project.run_traced(secrets).parameters == {"Output": ["tide", "another", "fast", "local"]}
    project.write("config/mode", "slow")
    last = project.run_traced(secrets)
    assert last.parameters == {"Output": ["tide", "another", "slow", "local"]}
    parts = [project.records(o)["env"].parts for o in (first, last)]
    assert {n for n in parts[0] if parts[0][n] != parts[1][n]} == {"settings"}


def test_a_key_that_a_secret_does_not_have_refuses_the_plan_before_it_starts(project: Project) -> None:
    project.write("secrets/db.env", "user=tide\npasswrd=x\n")

    @dsl.pipeline(name="no-key")
    def no_key():
        kubernetes.use_secret_as_env(env(names=[]), "db", {"password": "PASSWORD"})

    with pytest.raises(DefinitionError, match="no key 'password'"):
        project.run_traced(no_key)
    assert not project.events


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def say_from(path: str, variable: str):
    import os

    print(open(path).read() if path else os.environ[variable])


@pytest.mark.skipif(os.getuid() != 0, reason="mount points at the root of the file system need root")
def test_a_secret_is_masked_whichever_way_it_came(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    @dsl.pipeline(name="ways")
    def ways():
        kubernetes.use_secret_as_volume(say_from(path="/tg-secret/password", variable=""), "db", "/tg-secret")
        kubernetes.use_secret_as_env(say_from(path="", variable="A_TOKEN"), "elsewhere", {"token": "A_TOKEN"})

    monkeypatch.setenv("A_TOKEN", "from outside")
    outcome = project.run_traced(ways)
    assert outcome.error is None
    assert [Runs(project.store).read_log(outcome.run_id, s) for s in ("say-from", "say-from-2")] == [b"***\n"] * 2


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def leak():
    import base64
    import os
    import urllib.parse

    secret = os.environ["PASSWORD"]
    print(secret, base64.b64encode(secret.encode()).decode(), secret.encode().hex(), urllib.parse.quote(secret))
    raise ValueError(f"could not log in as {secret}")


def test_a_secret_that_a_step_prints_or_raises_is_in_no_log_error_or_event(project: Project) -> None:
    @dsl.pipeline(name="leaking")
    def leaking():
        kubernetes.use_secret_as_env(leak(), "db", {"password": "PASSWORD"})

    error = project.run_traced(leaking).error
    assert error
    assert error["message"] == "ValueError: could not log in as ***"
    secret = b"a secret = word"
    said = [secret, base64.b64encode(secret).rstrip(b"="), secret.hex().encode(), b"a%20secret"]
    stored = [p.read_bytes() for p in (project.root / ".tidegate").rglob("*") if p.is_file()]
    assert any(b"***" in data for data in stored)
    for form in said:
        assert not any(form in data for data in stored)
        assert form.decode() not in str(project.events)


@pytest.mark.parametrize("said", ["", "secrets.db = 3"])
def test_a_secret_that_is_not_here_refuses_the_plan_before_it_starts(project: Project, said: str) -> None:
    project.write("pyproject.toml", f"[tool.tidegate.kubernetes]\n{said}\n")

    @dsl.pipeline(name="refused")
    def refused():
        kubernetes.use_secret_as_env(env(names=[]), "db", {"user": "A_USER"})

    with pytest.raises((DefinitionError, ConfigError)) as error:
        project.run_traced(refused)
    assert "db" in str(error.value) or "3" in str(error.value)
    assert not project.events


def test_a_secret_may_come_from_the_callers_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    @dsl.pipeline(name="inherited")
    def inherited() -> list:
        task = env(names=["A_TOKEN"])
        kubernetes.use_secret_as_env(task, "elsewhere", {"token": "A_TOKEN"})
        return task.output

    monkeypatch.setenv("A_TOKEN", "from outside")
    assert project.run_traced(inherited).parameters == {"Output": ["from outside"]}


@pytest.mark.skipif(os.getuid() != 0, reason="mount points at the root of the file system need root")
def test_claims_are_folders_mounted_where_the_task_expects_them(project: Project) -> None:
    @dsl.pipeline(name="claims")
    def claims() -> dict:
        claim = kubernetes.CreatePVC(pvc_name_suffix="-scratch", access_modes=["ReadWriteOnce"], size="1Gi")
        first = files(folder="/tidegate-test-claim", write="one")
        second = files(folder="/tidegate-test-claim", write="two").after(first)
        for task in (first, second):
            kubernetes.mount_pvc(task, claim.outputs["name"], "/tidegate-test-claim")
        kubernetes.DeletePVC(pvc_name=claim.outputs["name"]).after(second)
        return second.output

    outcome = project.run_traced(claims)
    assert outcome.error is None
    assert outcome.parameters == {"Output": {"one": "x", "two": "x"}}
    assert not list(Path("/tidegate-test-claim").iterdir())
    assert not list((project.root / "state").rglob("*-scratch"))


@pytest.mark.skipif(os.getuid() != 0, reason="mount points at the root of the file system need root")
def test_a_named_folder_stands_for_a_claim_and_files_for_config_maps(project: Project) -> None:
    project.write("data/sub/rows", "1")

    @dsl.pipeline(name="volumes")
    def volumes() -> list:
        data, config, empty = files(folder="/tg-data"), files(folder="/tg-config"), files(folder="/tg-empty", write="x")
        kubernetes.mount_pvc(data, "data", "/tg-data", sub_path="sub")
        kubernetes.use_config_map_as_volume(config, "app", "/tg-config")
        kubernetes.empty_dir_mount(empty, "scratch", "/tg-empty")
        return gather(a=data.output, b=config.output, c=empty.output).output

    assert project.run_traced(volumes).parameters == {"Output": [{"rows": "1"}, {"mode": "fast"}, {"x": "x"}]}


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def gather(a: dict, b: dict, c: dict) -> list:
    return [a, b, c]


def test_a_step_beyond_its_deadline_is_ended(project: Project) -> None:
    @dsl.pipeline(name="deadline")
    def deadline(marker: str):
        kubernetes.set_timeout(sleep(seconds=60.0, marker=marker), 1)

    outcome = project.run_traced(deadline, marker=str(project.root / "marker"))
    assert outcome.error
    assert outcome.error["code"] == "step-timeout"
    assert outcome.seconds < 30
    assert not (project.root / "marker").exists()


def test_what_means_nothing_here_is_named_once(project: Project) -> None:
    @dsl.pipeline(name="placed")
    def placed():
        for task in (env(names=[]), env(names=["x"])):
            kubernetes.add_node_selector(task, "disk", "ssd")
            kubernetes.add_toleration(task, key="gpu", operator="Exists")
            kubernetes.set_timeout(task, 60)

    definition = of_pipeline(placed, "")
    assert not_applied(build(definition.spec, definition.platforms)) == "nodeSelector, tolerations"
    events = []
    api.run(placed, {}, Options(store=str(project.root / "s"), mirror=False), events.append)
    assert [e.text for e in events if isinstance(e, Notice)] == ["not applied locally: nodeSelector, tolerations"]


def test_the_workspace_is_one_folder_for_all_steps_and_stays(project: Project) -> None:
    workspace = dsl.WorkspaceConfig(size="1Gi")

    @dsl.pipeline(name="workspace", pipeline_config=dsl.PipelineConfig(workspace=workspace))
    def pipeline() -> dict:
        first = files(folder=dsl.WORKSPACE_PATH_PLACEHOLDER, write="one")
        return files(folder=dsl.WORKSPACE_PATH_PLACEHOLDER, write="two").after(first).output

    assert project.run_traced(pipeline).parameters == {"Output": {"one": "x", "two": "x"}}
    again = project.run_traced(pipeline)
    assert again.parameters == {"Output": {"one": "x", "two": "x"}}, "another run has another workspace"
    assert project.cached() == {"files": False, "files-2": False}
    assert len(list((project.root / "state").rglob("two"))) == 2


def test_a_run_beyond_its_deadline_is_ended_with_all_its_steps(project: Project) -> None:
    @dsl.pipeline(name="run-deadline", pipeline_config=dsl.PipelineConfig(active_deadline_seconds=1))
    def deadline(marker: str):
        sleep(seconds=60.0, marker=marker)
        sleep(seconds=0.0, marker="other")

    outcome = project.run_traced(deadline, marker=str(project.root / "marker"))
    assert outcome.error
    assert (outcome.state, outcome.error["code"]) == ("FAILED", "run-timeout")
    assert project.states() == {"sleep": "CANCELED", "sleep-2": "SUCCEEDED"}
