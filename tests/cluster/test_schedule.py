"""A schedule on a real cluster: it fires by the clock, is changed in place between two runs, and its runs outlive it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import setting
from tests.cluster.bucket import Bucket, new_bucket
from tests.cluster.space import Space, new_space
from tests.servers import wait_until
from tidegate.author.images import read_lock
from tidegate.engines.argo.cluster import CRON_WORKFLOW, WORKFLOW_TEMPLATE
from tidegate.engines.argo.kube import open_cluster
from tidegate.store.runs import Runs

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PIPELINE = """
from kfp import dsl

CODE = '''
import pathlib, sys, time
n, text, seconds, out = sys.argv[1:]
time.sleep(int(seconds))
out = pathlib.Path(out)
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(str(int(n) + len(text)))
'''

@dsl.container_component
def add(n: int, text: str, seconds: int, out: dsl.OutputPath(int)):
    return dsl.ContainerSpec(image="IMAGE", command=["python", "-c", CODE], args=[n, text, seconds, out])

@dsl.pipeline(name="tidal")
def tidal(n: int = 1, text: str = "", seconds: int = 0) -> int:
    return add(n=n, text=text, seconds=seconds).outputs["out"]
"""


class Desk:
    """Somebody who types commands, with a store of their own."""

    def __init__(self, folder: Path, namespace: str, own_bucket: Bucket, launcher: str) -> None:
        self.env = {
            **os.environ,
            **own_bucket.values("submit"),
            "TIDEGATE_ARGO_NAMESPACE": namespace,
            "TIDEGATE_ARGO_IMAGE": launcher,
        }
        self.env |= {"PYTHONPATH": ":".join(sys.path), "TIDEGATE_USER": "somebody"}
        self.folder = folder

    def __call__(self, *words: str) -> str:
        command = [sys.executable, "-m", "tidegate", *words]
        done = subprocess.run(
            command, env=self.env, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
        return done.stdout

    def json(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*words, "--json").splitlines()]

    def until(self, count: int, seconds: float = 300) -> list[dict[str, Any]]:
        """The runs of the schedule as soon as so many of them succeeded; none may fail."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.json("schedule", "history", "tidal")
            assert "FAILED" not in [r["state"] for r in found], found
            if sum(r["state"] == "SUCCEEDED" for r in found) >= count:
                return found
            time.sleep(2)
        raise AssertionError(f"not {count} runs in {seconds} s: {found}")


@pytest.fixture
def own_bucket(tmp_path: Path) -> Iterator[Bucket]:
    """One of this test's own: it lists all runs of it."""
    if not setting.MINIO:
        pytest.skip("needs an object store: TIDEGATE_TEST_MINIO=…")
    with new_bucket(tmp_path / "mc") as made:
        yield made


@pytest.fixture
def own_space(own_bucket: Bucket, tmp_path: Path) -> Iterator[Space]:
    with new_space(tmp_path / "space") as made:
        made.stock(own_bucket)
        yield made


@pytest.fixture
def desk(own_space: Space, own_bucket: Bucket, root: Path, tmp_path: Path) -> Desk:
    launcher = read_lock(root).families["base"].image
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "pipeline.py").write_text(PIPELINE.replace("IMAGE", launcher))
    return Desk(tmp_path, own_space.name, own_bucket, launcher)


def test_a_schedule_fires_twice_is_changed_in_place_in_between_and_its_runs_outlive_it(
    desk: Desk, own_bucket: Bucket, own_space: Space
) -> None:
    cluster = open_cluster()
    every_minute = ("schedule", "apply", "pipeline.py", "--cron", "* * * * *")
    assert desk.json(*every_minute, "-p", "n=1")[0]["action"] == "created"
    (first,) = desk.until(1)

    (changed,) = desk.json(*every_minute, "-p", "n=2", "-p", f"text={'x' * 9000}")
    assert (changed["action"], changed["changes"]) == ("updated", ["parameter n", "parameter text"])
    assert [s["schedule"] for s in desk.json("schedule", "ls")] == ["tidal"]
    second = desk.until(2)[0]

    desk("schedule", "suspend", "tidal")
    (now,) = desk.json("schedule", "run", "tidal", "-p", "n=5", "-p", "seconds=8")
    (removed,) = desk.json("schedule", "rm", "tidal")
    assert removed["running"] == [now["run_id"]]
    wait_until(lambda: not any(cluster.find(k, "tidal", own_space.name) for k in (CRON_WORKFLOW, WORKFLOW_TEMPLATE)))
    assert desk.until(3)[0]["run_id"] == now["run_id"]

    runs = Runs(own_bucket.store("steps"))
    for past, n, text in ((first, 1, 0), (second, 2, 9000), (now, 5, 9000)):
        record, outcome = runs.read(past["run_id"]), runs.outcome(past["run_id"])
        assert outcome
        assert (record.engine, record.user, record.target) == ("argo", "somebody", "pipeline.py")
        assert (outcome.state, outcome.outputs["parameters"]) == ("SUCCEEDED", {"Output": n + text})
    listed = [line.split()[0] for line in desk("runs", "ls").splitlines()]
    assert listed == [now["run_id"], second["run_id"], first["run_id"]]
