"""Runs and schedules on a real Kubeflow Pipelines backend: the same outputs, digests, errors and exit codes as here.

They need ``TIDEGATE_TEST_KFP``, the address of its API, beside what the other tests on a cluster need; README.md says it.
"""

import json
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import setting
from tests.cluster.bucket import Bucket
from tests.cluster.ground import Ground
from tests.cluster.image import build_families
from tests.cluster.kfp import KFP, NAMESPACE, kfp_env, store_secrets
from tests.cluster.ran import Ran, differences
from tests.cluster.shell import kubectl
from tidegate.engines.kfp.client import KfpBackend, open_backend
from tidegate.engines.kfp.settings import KfpSettings

HERE = Path(__file__).parent
IRIS = "pipelines/iris/pipeline.py"
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not KFP, reason="needs Kubeflow Pipelines: TIDEGATE_TEST_KFP=http://…"),
]


@dataclass(frozen=True)
class Sea:
    """A backend with an experiment and two Secrets of our own, and a project whose images it can pull.

    Attributes:
        ground: where Argo and this machine are.
        project: the pipelines of ``kfp_project``, whose images are built.
        name: of the experiment, and what the Secrets' names begin with.
    """

    ground: Ground
    project: Path
    name: str
    backend: KfpBackend = field(repr=False)

    def env(self, **more: str) -> dict[str, str]:
        """What somebody has who runs on this backend."""
        own = {**kfp_env(self.name, self.ground.bucket), "PYTHONPATH": str(self.ground.root / "src")}
        return {**own, **more}

    def start(self, *words: str, **env: str) -> Any:
        return self.ground.start(*words, **self.env(**env))

    def run(self, file: str, *words: str, **env: str) -> Ran:
        """Run a definition there to its end."""
        return self.ground.ended(self.begin(file, *words, **env))

    def begin(self, file: str, *words: str, **env: str) -> Any:
        return self.start("run", self.file(file), "--engine", "kfp", "--no-mirror", "--json", *words, **env)

    def file(self, name: str) -> str:
        return str(self.ground.root / name if "/" in name else self.project / "pipelines" / name / "pipeline.py")

    def schedule(self, *words: str) -> Ran:
        return self.ground.ended(self.start("schedule", *words, "--engine", "kfp"))

    def run_of(self, pipeline: str) -> str:
        """The id of the newest run of a pipeline in our experiment, once it has begun a step."""

        def begun() -> str:
            found = self.backend._client.list_runs(
                experiment_id=self.backend.experiment(self.name), page_size=50, sort_by="created_at desc"
            ).runs
            ids = [r.run_id for r in found or () if r.pipeline_version_reference.pipeline_id == wanted]
            return next((i for i in ids if any(d.name == "nap" for d in self.backend.run(i).details)), "")

        wanted = until(lambda: self.backend._client.get_pipeline_id(pipeline))
        return until(begun)


def until(found: Callable[[], Any], seconds: float = 300.0) -> Any:
    """Ask until there is an answer."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, "it did not come to it"
        time.sleep(1)
    return answer


@pytest.fixture(scope="session")
def sea(ground: Ground, bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sea]:
    project = tmp_path_factory.mktemp("kfp") / "project"
    copied_project(project)
    mixed = project / "pipelines/mixed/pipeline.py"
    mixed.write_text(mixed.read_text().replace("THEIRS", ground.images["kfp"]))
    build_families(project, setting.BASE, "base", source=ground.root / "src")
    made = Sea(ground, project, f"tidegate-test-{secrets.token_hex(4)}", open_backend(KfpSettings(host=KFP)))
    with store_secrets(made.name, bucket):
        yield made


def copied_project(target: Path) -> None:
    shutil.copytree(HERE / "kfp_project", target)
    shutil.copytree(HERE.parents[1] / "images" / "base", target / "images" / "base")


Work = Callable[[Sea], Any]
WORKS: dict[str, Work] = {}


def together(work: Work) -> Work:
    """Work that begins with the first test of this file, beside all the other."""
    WORKS[work.__name__] = work
    return work


@pytest.fixture(scope="session")
def begun(sea: Sea) -> Iterator[Mapping[str, "Future[Any]"]]:
    with ThreadPoolExecutor(len(WORKS)) as pool:
        yield {name: pool.submit(work, sea) for name, work in WORKS.items()}


@pytest.fixture
def result(request: pytest.FixtureRequest, begun: Mapping[str, "Future[Any]"]) -> Any:
    """What the work that a test is named after came to."""
    return begun[request.node.get_closest_marker("of").args[0].__name__].result()


def of(work: Work) -> pytest.MarkDecorator:
    return pytest.mark.of.with_args(work)


def artifacts(ran: Ran) -> dict[str, Any]:
    """Digests by step and output."""
    return {
        path: {n: [a["digest"] for a in found] for n, found in record.outputs.get("artifacts", {}).items()}
        for path, record in ran.records.items()
    }


@together
def iris(sea: Sea) -> dict[str, Ran]:
    words = ("-p", "seed=5")
    first = sea.run(IRIS, *words)
    return {
        "here": sea.ground.here(str(sea.ground.root / IRIS), *words),
        "argo": sea.ground.there(IRIS, "--no-cache", *words),
        "kfp": first,
        "again": sea.run(IRIS, *words),
    }


@of(iris)
def test_iris_gives_the_same_on_this_machine_on_argo_and_on_kfp(result: dict[str, Ran]) -> None:
    here, there, kfp = result["here"], result["argo"], result["kfp"]
    assert (here.state, there.state, kfp.state) == ("SUCCEEDED",) * 3, kfp.said
    assert kfp.body["outputs"]["digest"] == here.body["outputs"]["digest"] == there.body["outputs"]["digest"]
    assert kfp.body["outputs"]["accuracy"] == here.body["outputs"]["accuracy"] == there.body["outputs"]["accuracy"]
    assert kfp.steps == here.steps == there.steps
    assert not list(differences(artifacts(kfp), artifacts(here)))
    assert not list(differences(artifacts(kfp), artifacts(there)))


@of(iris)
def test_a_second_run_on_kfp_finds_everything_in_the_cache(result: dict[str, Ran]) -> None:
    again = result["again"]
    assert again.state == "SUCCEEDED", again.said
    assert {p for p, r in again.records.items() if not r.cached} <= {"register"}  # which writes
    assert again.body["outputs"]["digest"] == result["kfp"].body["outputs"]["digest"]


@together
def mixed(sea: Sea) -> tuple[Ran, Ran]:
    return sea.ground.here(sea.file("mixed"), "--no-cache"), sea.run("mixed", "--no-cache")


@of(mixed)
def test_steps_of_ours_and_of_others_give_what_they_give_here(result: tuple[Ran, Ran]) -> None:
    here, there = result
    assert (here.state, there.state) == ("SUCCEEDED", "SUCCEEDED"), there.said
    ours = {p: r for p, r in here.records.items() if p in there.records}
    assert {p: (r.state, r.inputs["parameters"], r.outputs["parameters"]) for p, r in there.records.items()} == {
        p: (r.state, r.inputs["parameters"], r.outputs["parameters"]) for p, r in ours.items()
    }
    assert sum(p.startswith("exit-handler-1/for-loop") for p in ours) == 2
    assert {p: s for p, s in there.steps.items() if s != "SKIPPED"} == {
        p: s for p, s in here.steps.items() if s != "SKIPPED"
    }


@together
def broken(sea: Sea) -> Ran:
    return sea.run("broken")


@of(broken)
def test_a_failed_step_says_the_users_own_error_and_frames(result: Ran) -> None:
    assert (result.state, result.code) == ("FAILED", 1), result.err
    assert result.error["step"] == "divide"
    assert "ZeroDivisionError" in result.error["message"]
    assert "return a // b" in result.err


@together
def interrupted(sea: Sea) -> tuple[Ran, str]:
    process = sea.begin("slow")
    run = sea.run_of("kfp-slow")
    process.send_signal(signal.SIGINT)
    ran = sea.ground.ended(process)
    until(lambda: sea.backend.run(run).state in ("FAILED", "CANCELED"))
    return ran, run


@of(interrupted)
def test_ctrl_c_ends_the_run_on_kfp_too(result: tuple[Ran, str]) -> None:
    ran, run = result
    assert (ran.state, ran.code, ran.id) == ("CANCELED", 130, run), ran.err


@together
def resumed(sea: Sea) -> tuple[Ran, Ran]:
    config = f"{sea.name}-gate"
    kubectl("-n", NAMESPACE, "create", "configmap", config, "--from-literal=gate=shut")
    try:
        failed = sea.run("gated", "-p", f"config={config}")
        kubectl("-n", NAMESPACE, "patch", "configmap", config, "-p", json.dumps({"data": {"gate": "open"}}))
        return failed, sea.run("gated", "--resume", failed.id)
    finally:
        kubectl("-n", NAMESPACE, "delete", "configmap", config)


@of(resumed)
def test_resume_goes_on_with_what_failed_and_keeps_what_succeeded(result: tuple[Ran, Ran]) -> None:
    failed, ran = result
    assert (failed.state, failed.steps["add"]) == ("FAILED", "SUCCEEDED"), failed.err
    assert (ran.state, ran.code, ran.id) == ("SUCCEEDED", 0, failed.id), ran.err
    assert ran.body["outputs"] == {"Output": 12}
    assert ran.records["add"].ended == failed.records["add"].ended, "what had finished ran again"


@dataclass(frozen=True)
class Fired:
    """Runs of a schedule by their parameter, and what a run came to that a change met while it was active."""

    seconds: dict[str, list[float]]
    met: str
    suspended: int
    later: int


@together
def recurring(sea: Sea) -> Fired:
    words = ("apply", sea.file("tick"), "--cron", "* * * * *", "--name", sea.name)
    experiment = sea.backend.experiment(sea.name)

    def runs() -> list[Any]:
        client = sea.backend._client
        found = client.list_runs(experiment_id=experiment, page_size=100).runs or ()
        return [r for r in found if r.recurring_run_id]

    def given(run: Any) -> float:
        return float(run.runtime_config.parameters["seconds"])

    def said(*words: str) -> None:
        ran = sea.schedule(*words)
        assert ran.code == 0, ran.err

    said(*words, "-p", "seconds=45")
    active = until(lambda: next((r for r in runs() if given(r) == 45), None))
    said(*words, "-p", "seconds=1")
    until(lambda: [r for r in runs() if given(r) == 1 and r.state == "SUCCEEDED"])
    until(lambda: sea.backend.run(active.run_id).state in ("SUCCEEDED", "FAILED"))
    said("suspend", sea.name)
    suspended = len(runs())
    time.sleep(75)  # a time to fire, and the half minute within which its controller looks again
    later = len(runs())
    seconds: dict[str, list[float]] = {}
    for run in runs():
        seconds.setdefault(run.recurring_run_id, []).append(given(run))
    met = sea.backend.run(active.run_id).state
    said("rm", sea.name)
    return Fired(seconds, met, suspended, later)


@of(recurring)
def test_a_schedule_fires_is_changed_while_a_run_goes_on_and_stops(result: Fired) -> None:
    assert result.met == "SUCCEEDED"
    assert sorted(sorted(set(s)) for s in result.seconds.values()) == [[1.0], [45.0]]
    assert [len(s) for s in result.seconds.values() if 45.0 in s] == [1]
    assert result.later == result.suspended


@together
def refused(sea: Sea) -> dict[str, Ran]:
    absent = {"TIDEGATE_KFP_STORE_SECRET": f"{sea.name}-absent"}
    return {
        "host": sea.run("broken", TIDEGATE_KFP_HOST="http://127.0.0.1:9"),
        "secret": sea.run("tick", **absent),
    }


@of(refused)
def test_a_wrong_address_is_refused_with_what_to_type(result: dict[str, Ran]) -> None:
    ran = result["host"]
    assert ran.code == 3, ran.err
    assert "cannot be reached" in ran.err
    assert "host" in ran.err


@of(refused)
def test_a_secret_that_is_missing_is_named_with_what_to_type(result: dict[str, Ran]) -> None:
    ran = result["secret"]
    assert ran.code in (1, 3), ran.err
    assert "kubectl create secret generic" in ran.err


@together
def deleted(sea: Sea) -> tuple[Ran, Ran]:
    first = sea.run("gone")
    client = sea.backend._client
    pipeline = client.get_pipeline_id("kfp-gone")
    for version in client.list_pipeline_versions(pipeline, page_size=50).pipeline_versions or ():
        client.delete_pipeline_version(pipeline, version.pipeline_version_id)
    client.delete_pipeline(pipeline)
    return first, sea.run("gone")


@of(deleted)
def test_a_pipeline_that_was_deleted_is_made_anew(result: tuple[Ran, Ran]) -> None:
    first, second = result
    assert (first.state, second.state) == ("SUCCEEDED", "SUCCEEDED"), second.err
    assert second.body["outputs"] == first.body["outputs"]
