"""The MLflow mirror: where people look. Every run and registered version is written there after the run, by one process.

The ledger stays the source of truth: what is missing in MLflow is written again by ``sync``, and nothing is read back.
By default the mirror is SQLite in the store's folder; ``MLFLOW_TRACKING_URI`` names any server. Models go in as ONNX with
their whole folder beside them; pickles are neither written nor loaded. An MLflow run is found again by its tag
``tidegate.run_id`` and a version by ``tidegate.version``, so writing twice changes nothing.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tidegate.errors import ServerError
from tidegate.registry.model import ModelState, Registry, Version
from tidegate.registry.signature import DATATYPES, read_signature
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs
from tidegate.store.local import LocalStore
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs, StepRecord

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is the caller's
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class Mirrored:
    """What one run became in MLflow: the tracking address, MLflow's run id, the versions written now."""

    uri: str
    run_id: str
    versions: tuple[str, ...] = ()


def available() -> bool:
    """Whether MLflow is installed."""
    return find_spec("mlflow") is not None


def tracking_uri(store: Store) -> str:
    """Where the mirror is: ``MLFLOW_TRACKING_URI``, else SQLite beside a local store, else nowhere ('')."""
    if said := os.environ.get("MLFLOW_TRACKING_URI"):
        return said
    return f"sqlite:///{store.root}/mlflow/mlflow.db" if isinstance(store, LocalStore) else ""


def mirror(store: Store, run_id: str) -> Mirrored | None:
    """Write one run, and the versions it registered, into MLflow; None where there is no mirror.

    Raises:
        ServerError: MLflow cannot be reached or refuses (code ``mlflow-unreachable``); nothing of ours is lost.
    """
    uri = tracking_uri(store)
    if not uri:
        return None
    runs = Runs(store)
    record = runs.read(run_id)
    with _client(store, uri) as client:
        mlflow_run = _run(client, store, record, runs.outcome(run_id), runs.steps(run_id))
        written = [
            f"{state.name} {version.version}"
            for state in _states(store)
            for version in state.versions.values()
            if version.run == run_id and _version(client, store, state, version, mlflow_run)
        ]
        return Mirrored(uri, mlflow_run, tuple(written))


def sync(store: Store) -> list[Mirrored]:
    """Write every registered version's run that MLflow does not have, and set the aliases as the ledger has them.

    Raises:
        ServerError: as ``mirror``; also where there is no mirror to write to.
    """
    uri = tracking_uri(store)
    if not uri:
        raise ServerError("this store has no MLflow mirror", hint="Set MLFLOW_TRACKING_URI.", code="mlflow-unset")
    wanted = dict.fromkeys(v.run for s in _states(store) for v in s.versions.values() if v.run)
    done = [m for run_id in wanted if (m := mirror(store, run_id))]
    with _client(store, uri) as client:
        for state in _states(store):
            _aliases(client, state)
    return done


def _states(store: Store) -> Iterator[ModelState]:
    registry = Registry(store)
    yield from (registry.state(name) for name in registry.models())


@contextmanager
def _client(store: Store, uri: str) -> Iterator[Any]:
    """A client of the tracking server, with short timeouts, every failure of which is a ``ServerError``."""
    before = {k: os.environ.get(k) for k in _QUIET}
    os.environ.update({k: v for k, v in _QUIET.items() if not before[k]})
    import logging

    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    levels = {name: logging.getLogger(name).level for name in ("mlflow", "alembic")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        if isinstance(store, LocalStore) and uri.startswith("sqlite:"):
            (store.root / "mlflow").mkdir(exist_ok=True)
        mlflow.set_tracking_uri(uri)
        yield mlflow.MlflowClient(uri, uri)
    except (MlflowException, SQLAlchemyError, OSError) as e:
        raise ServerError(
            f"MLflow at {uri} cannot be used: {str(e).splitlines()[0][:200]}",
            allowed="The run and the registry are safe in the store; only the mirror is behind.",
            hint="When MLflow answers again: tidegate model sync",
            code="mlflow-unreachable",
        ) from e
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)


def _experiment(client: Any, store: Store, name: str) -> str:
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    local = isinstance(store, LocalStore) and not os.environ.get("MLFLOW_TRACKING_URI")
    where = (store.root / "mlflow" / "artifacts").as_uri() if local and isinstance(store, LocalStore) else None
    return str(client.create_experiment(name, where))


def _run(client: Any, store: Store, record: RunRecord, outcome: OutcomeRecord | None, steps: list[StepRecord]) -> str:
    from mlflow.entities import Metric, Param, RunTag

    experiment = _experiment(client, store, record.pipeline)
    if found := client.search_runs([experiment], f"tags.`tidegate.run_id` = '{record.id}'"):
        return str(found[0].info.run_id)
    started = _milliseconds(record.created)
    run = client.create_run(experiment, started, {"tidegate.run_id": record.id}, record.id)
    run_id = str(run.info.run_id)
    metrics = [Metric(k, v, started, 0) for k, v in _metrics(outcome, steps).items()]
    params = [Param(k, json.dumps(v)[:6000]) for k, v in record.parameters.items()]
    tags = [RunTag(k, v) for k, v in _tags(record, steps).items() if v]
    client.log_batch(run_id, metrics, params, tags)
    state = {"SUCCEEDED": "FINISHED", "FAILED": "FAILED"}.get(outcome.state if outcome else "", "KILLED")
    client.set_terminated(run_id, state)
    return run_id


def _milliseconds(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp() * 1000)


def _metrics(outcome: OutcomeRecord | None, steps: list[StepRecord]) -> dict[str, float]:
    """Numbers of every system.Metrics artifact, and of the pipeline's outputs; MLflow takes finite ones."""
    found: dict[str, Any] = {}
    for step in steps:
        for artifacts in step.outputs.get("artifacts", {}).values():
            for artifact in artifacts:
                if artifact["type"].startswith("system.Metrics@"):
                    found.update(artifact["metadata"])
    found.update(outcome.outputs.get("parameters", {}) if outcome else {})
    return {k: float(v) for k, v in found.items() if type(v) in (int, float) and math.isfinite(v)}


def _tags(record: RunRecord, steps: list[StepRecord]) -> dict[str, str]:
    data = [
        a["digest"]
        for s in steps
        for found in s.outputs.get("artifacts", {}).values()
        for a in found
        if a["type"].startswith("system.Dataset@") and a["digest"]
    ]
    return {
        "tidegate.pipeline_digest": record.plan_digest,
        "tidegate.environment": record.environment,
        "tidegate.dirty": record.dirty,
        "tidegate.data_digest": data[0] if data else "",
        "mlflow.source.git.commit": record.commit,
        "mlflow.user": record.user,
    }


def _version(client: Any, store: Store, state: ModelState, version: Version, mlflow_run: str) -> bool:
    """Write one version and its alias; False when MLflow has it."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(state.name)
    except MlflowException:
        client.create_registered_model(state.name)
    if _mirrored(client, state.name, version):
        _aliases(client, state)
        return False
    with tempfile.TemporaryDirectory(prefix="tidegate-mlflow-") as folder:
        path = Path(folder, "tidegate")
        Blobs(store).fetch(version.digest, path, kind=version.kind)
        logged = _log(client, mlflow_run, path, state.name)
    tags = _version_tags(version)
    made = client.create_model_version(state.name, logged.model_uri, mlflow_run, tags=tags, model_id=logged.model_id)
    client.update_model_version(state.name, made.version, f"tidegate version {version.version}: {version.digest}")
    _aliases(client, state)
    return True


def _version_tags(version: Version) -> dict[str, str]:
    lineage = {
        f"tidegate.{k}": str(version.lineage[k]) for k in ("commit", "data_digest", "pin") if k in version.lineage
    }
    verdict = str(version.verdict.get("outcome"))
    ours = {"tidegate.version": str(version.version), "tidegate.digest": version.digest, "tidegate.verdict": verdict}
    return {**ours, "tidegate.run_id": version.run, **lineage}


def _mirrored(client: Any, name: str, version: Version) -> Any:
    found = client.search_model_versions(f"name = '{name}'")
    return next((v for v in found if v.tags.get("tidegate.version") == str(version.version)), None)


def _aliases(client: Any, state: ModelState) -> None:
    """Set the aliases as the ledger has them, on MLflow's numbers of our versions."""
    for alias, number in state.aliases.items():
        if found := _mirrored(client, state.name, state.versions[number]):
            client.set_registered_model_alias(state.name, alias, found.version)


def _log(client: Any, mlflow_run: str, path: Path, name: str) -> Any:
    """Log the model's folder, and its graph as an MLflow model; return MLflow's information on that."""
    client.log_artifacts(mlflow_run, str(path), "tidegate")
    import mlflow
    import onnx

    with mlflow.start_run(run_id=mlflow_run):
        logged = mlflow.onnx.log_model(
            onnx.load(path / "model.onnx"),
            name=name,
            pip_requirements=_requirements(path),
            signature=_signature(path),
            onnx_execution_providers=["CPUExecutionProvider"],
        )
    client.set_terminated(mlflow_run)
    return logged


def _requirements(path: Path) -> list[str]:
    file = path / "requirements.txt"
    return [line for line in file.read_text().splitlines() if line] if file.exists() else ["onnxruntime"]


def _signature(path: Path) -> Any:
    """MLflow's signature of a tabular model, one tensor a column; of a text model, whose graph takes tokens, none."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    said = read_signature(path)
    if said.tokenizer:
        return None
    specs = [
        [TensorSpec(np.dtype(DATATYPES[t.datatype]), t.shape, t.name) for t in ts] for ts in (said.inputs, said.outputs)
    ]
    return ModelSignature(Schema(specs[0]), Schema(specs[1]))
