"""The MLflow mirror: everything is there once, loads, and its absence loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.registry.made import candidate, evaluation, model, policy
from tests.servers import free_port, process
from tidegate.errors import ServerError
from tidegate.registry import mlflow as mirror
from tidegate.registry.model import Registry
from tidegate.registry.register import Candidate, register
from tidegate.store.blobs import digest_path
from tidegate.store.local import LocalStore
from tidegate.store.memory import MemoryStore
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs, StepRecord

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow and its dependencies about themselves


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow's: its migrations take seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    store = LocalStore(tmp_path / "s")
    (store.root / "mlflow").mkdir(parents=True)
    shutil.copy(database, store.root / "mlflow")
    runs = Runs(store)
    runs.create(RunRecord("run-1", "p", "sha256:plan", {"seed": 1, "name": "x"}, commit="c" * 40, user="me"))
    metrics = {
        "name": "metrics",
        "type": "system.Metrics@0.0.1",
        "digest": "",
        "metadata": {"accuracy": 0.97, "odd": float("nan")},
    }
    runs.step("run-1", StepRecord("evaluate", "SUCCEEDED", outputs={"artifacts": {"metrics": [metrics]}}))
    runs.finish("run-1", OutcomeRecord("SUCCEEDED", {"parameters": {"version": 1}}))
    monkeypatch.setenv("TIDEGATE_RUN_ID", "run-1")
    folder = model(tmp_path / "model")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("x")
    said = evaluation(data={"digest": digest_path(tmp_path / "data").digest, "rows": 4})
    (tmp_path / "evaluation.json").write_text(json.dumps(said))
    register(Candidate("m", folder, tmp_path / "evaluation.json", tmp_path / "data", {}, policy().json()), store)
    return store


def client(uri: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(uri, uri)


def check_mirrored(uri: str) -> None:
    found = client(uri)
    experiment = found.get_experiment_by_name("p")
    (run,) = found.search_runs([experiment.experiment_id])
    assert run.data.params == {"seed": "1", "name": '"x"'}
    assert run.data.metrics == {"accuracy": 0.97, "version": 1.0}
    assert run.data.tags["tidegate.run_id"] == "run-1"
    assert run.data.tags["mlflow.source.git.commit"] == "c" * 40
    assert run.info.status == "FINISHED"
    (version,) = found.search_model_versions("name = 'm'")
    assert version.tags["tidegate.version"] == "1"
    assert found.get_model_version_by_alias("m", "champion").version == version.version


def check_answers(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    assert mlflow.get_tracking_uri() != uri or uri.startswith("http"), "the caller's own tracking is left alone"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    loaded = mlflow.pyfunc.load_model("models:/m@champion")
    row = {"x": 19.0, "n": 1, "kind": "a"}
    answer = loaded.predict({t.name: np.array([row[t.name]]).astype(t.type) for t in loaded.metadata.signature.inputs})
    assert list(answer["label"]) == ["yes"]


def test_a_run_and_its_version_are_mirrored_once_and_the_model_loads(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "data")
    said = mirror.mirror(store, "run-1")
    assert said
    assert said.versions == ("m 1",)
    again = mirror.mirror(store, "run-1")
    assert again
    assert (again.run_id, again.versions) == (said.run_id, ())
    check_mirrored(said.uri)
    check_answers(said.uri, monkeypatch)
    assert not list(Path(store.root, "mlflow").rglob("*.pkl"))
    assert list(Path(store.root, "mlflow", "artifacts").rglob("tidegate/signature.json"))
    assert [p.name for p in Path.cwd().iterdir()] == ["x"], "nothing is written where the command was typed"


def test_sync_repairs_what_is_missing_and_moves_aliases_as_the_ledger_has_them(store: LocalStore) -> None:
    mirror.sync(store)
    Registry(store).promote("m", 1, "blessed", actor="me")
    (said,) = mirror.sync(store)
    assert client(said.uri).get_model_version_by_alias("m", "blessed").tags["tidegate.version"] == "1"


def test_a_run_whose_mirroring_was_cut_short_is_written_whole(store: LocalStore) -> None:
    uri = mirror.tracking_uri(store)
    half = client(uri)
    half.create_run(
        half.create_experiment("p", (store.root / "mlflow" / "artifacts").as_uri()), 1, {"tidegate.run_id": "run-1"}
    )
    mirror.mirror(store, "run-1")
    check_mirrored(uri)


def test_a_model_in_another_format_is_mirrored_as_its_files(store: LocalStore, tmp_path: Path) -> None:
    register(candidate(tmp_path, 5), store)
    said = mirror.mirror(store, "run-1")
    assert said
    assert said.versions == ("m 1", "m 2")
    assert list(Path(store.root, "mlflow", "artifacts").rglob("tidegate/weights"))


def test_names_that_mlflow_does_not_allow_and_many_parameters_go_in(store: LocalStore) -> None:
    runs = Runs(store)
    runs.create(RunRecord("run-2", "q", "sha256:plan", {f"p{i}": i for i in range(150)}))
    runs.finish("run-2", OutcomeRecord("FAILED", {"parameters": {"recall@1%": 0.5}}))
    said = mirror.mirror(store, "run-2")
    assert said
    run = client(said.uri).get_run(said.run_id)
    assert (len(run.data.params), run.data.metrics, run.info.status) == (150, {"recall_1_": 0.5}, "FAILED")


def test_a_store_without_a_folder_has_no_mirror_unless_a_server_is_named() -> None:
    store = MemoryStore()
    assert mirror.mirror(store, "run-1") is None
    with pytest.raises(ServerError) as e:
        mirror.sync(store)
    assert e.value.code == "mlflow-unset"


def test_an_unreachable_server_is_trouble_that_says_what_to_type(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ServerError) as e:
        mirror.mirror(store, "run-1")
    assert e.value.code == "mlflow-unreachable"
    assert "tidegate model sync" in e.value.hint
    assert Registry(store).version("m")[1].version == 1


@pytest.fixture
def server(tmp_path: Path, database: Path) -> Iterator[str]:
    port = free_port()
    shutil.copy(database, tmp_path / "server.db")
    where = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "artifacts"),
    ]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        *where,
    ]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes, of which nothing is asked
    with process(*command, port=port, env=env):
        yield f"http://127.0.0.1:{port}"


def test_a_real_server_takes_the_mirror(store: LocalStore, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    said = mirror.mirror(store, "run-1")
    assert said
    assert said.uri == server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_mirrored(server)
        check_answers(server, monkeypatch)
