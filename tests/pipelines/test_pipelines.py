"""The scenarios, run as a user runs them, with the real engine, registry and gate."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.sentiment.make_data import make
from tidegate.registry.model import Registry
from tidegate.store.local import LocalStore

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.early


def run(store: Path, pipeline: str, *parameters: str, code: int = 0) -> dict[str, Any]:
    flags = [word for p in parameters for word in ("-p", p)]
    command = [sys.executable, "-m", "tidegate", "run", f"pipelines/{pipeline}/pipeline.py", *flags]
    options = ["--json", "--no-mirror", "--store", str(store)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def test_iris_passes_its_gate_is_cached_the_second_time_and_only_tightens(tmp_path: Path) -> None:
    first = run(tmp_path, "iris")
    assert first["outputs"]["registered"] is True
    assert first["outputs"]["accuracy"] > 0.95
    again = run(tmp_path, "iris")
    assert {s["name"] for s in again["steps"] if not s["cached"]} == {"register"}
    assert again["outputs"] == first["outputs"]
    head = Registry(LocalStore(tmp_path)).state("iris").head
    refused = run(tmp_path, "iris", "min_accuracy=0.999", code=1)
    assert refused["error"]["code"] == "gate-refused"
    assert "is not above 0.999" in refused["error"]["message"]
    assert run(tmp_path, "iris", "min_accuracy=0.1", code=2)["error"]["code"] == "policy-loosened"
    assert Registry(LocalStore(tmp_path)).state("iris").head == head, "neither registered anything"
    worse = run(tmp_path, "iris", 'hyper_parameters={"C": 1e-7}', code=1)
    assert worse["error"]["code"] == "gate-refused"


def test_fraud_passes_its_gate_on_later_days_with_the_graph_that_is_served(tmp_path: Path) -> None:
    body = run(tmp_path, "fraud", "rows=50000")
    assert body["outputs"]["registered"] is True
    version = Registry(LocalStore(tmp_path)).version("fraud")[1]
    assert version.lineage["procedure"] == {"kind": "holdout"}
    metrics = version.lineage["metrics"]
    assert metrics["onnx_max_abs_diff"] <= 1e-5
    assert metrics["onnx_pr_auc_diff"] <= 1e-6


@pytest.mark.parametrize("rows", [(640, 200), pytest.param((12_000, 2000), marks=pytest.mark.long)])
def test_sentiment_is_registered_only_when_it_is_better(tmp_path: Path, rows: tuple[int, int]) -> None:
    repo = make(tmp_path / "data", *rows)
    given = ["epochs=1"] if rows[0] < 1000 else []
    data = {tag: f"data=dvc+{repo}@{tag}:reviews" for tag in ("v1", "v2")}
    store = tmp_path / "store"
    first = run(store, "sentiment", data["v1"], *given)
    if rows[0] < 1000:
        # a model of seconds is no better than chance: the gate keeps it out, and that is no failure
        assert (first["outputs"]["registered"], first["state"]) == (False, "SUCCEEDED")
        assert "accuracy" in first["outputs"]["reason"]
        return
    second = run(store, "sentiment", data["v2"], *given)
    third = run(store, "sentiment", data["v2"], "seed=1", *given)
    assert [b["outputs"]["registered"] for b in (first, second, third)] == [True, True, False]
    assert "not better" in third["outputs"]["reason"]
    assert second["outputs"]["accuracy"] >= first["outputs"]["accuracy"] + 0.03
    versions = Registry(LocalStore(store)).state("sentiment").versions
    for version, tag in ((versions[1], "v1"), (versions[2], "v2")):
        commit = subprocess.run(
            ["git", "rev-parse", tag], cwd=repo, capture_output=True, text=True, check=True
        ).stdout.strip()
        assert version.lineage["revision"] == commit
        assert commit in version.lineage["pin"]
        assert version.lineage["data_digest"].startswith("sha256:")


def test_wine_registers_the_model_that_its_metaflow_flow_chose(tmp_path: Path) -> None:
    first = run(tmp_path, "wine", "strengths=[0.1, 1.0]")
    assert first["outputs"] == {"strength": 0.1, "accuracy": 1.0, "registered": True, "version": 1}
    again = run(tmp_path, "wine", "strengths=[0.1, 1.0]")
    assert {s["name"] for s in again["steps"] if not s["cached"]} == {"register"}
    version = Registry(LocalStore(tmp_path)).version("wine")[1]
    assert version.lineage["data_source"].startswith("metaflow:WineFlow/")


def test_every_component_has_its_test_and_its_page_says_what_its_signature_says() -> None:
    for folder in (ROOT / "components").iterdir():
        if (folder / "component.py").exists():
            assert (folder / "test_component.py").exists(), folder.name
    command = [sys.executable, "scripts/component_readmes.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stdout
