"""The MLflow mirror: where people look. Every run and registered version is written there after the run, by one process.

The ledger stays the source of truth: what is missing in MLflow is written again by ``sync``, and nothing is read back.
By default the mirror is SQLite in the store's folder; ``MLFLOW_TRACKING_URI`` names any server. Models go in as ONNX with
their whole folder beside them; pickles are neither written nor loaded. An MLflow run is found again by its tag
``tidegate.run_id`` and a version by ``tidegate.version``, so writing twice changes nothing, and a run whose writing was
cut short (it lacks the tag ``tidegate.mirrored``) is written whole. MLflow's global state is left as it was found.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tidegate.errors import ServerError, Trouble
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
    "MLFLOW_LOGGING_LEVEL": "ERROR",  # read when MLflow is first imported
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is the caller's
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
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
    """A client of the tracking server, with short timeouts.

    Whatever goes wrong in MLflow or below it is a ``ServerError``: a mirror that fails must not fail the run.
    """
    try:
        with _quiet():
            import mlflow

            if isinstance(store, LocalStore) and uri == tracking_uri(store):
                (store.root / "mlflow").mkdir(parents=True, exist_ok=True)
            yield mlflow.MlflowClient(uri, uri)
    except Trouble:
        raise
    except Exception as e:
        raise _behind(uri, e) from e


@contextmanager
def _quiet() -> Iterator[None]:
    """No telemetry, no long waits, no chatter: for as long as MLflow is at work."""
    ours = {k: v for k, v in _QUIET.items() if k not in os.environ}
    loggers = {logging.getLogger(name): logging.getLogger(name).level for name in ("mlflow", "alembic")}
    os.environ.update(ours)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)
        for key in ours:
            os.environ.pop(key, None)


def _behind(uri: str, error: Exception) -> ServerError:
    found = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return ServerError(
        f"MLflow at {uri} cannot be used: {found}",
        allowed="The run and the registry are safe in the store; only the mirror is behind.",
        hint="When MLflow answers again: tidegate model sync",
        code="mlflow-unreachable",
    )


def _experiment(client: Any, store: Store, name: str) -> str:
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    local = isinstance(store, LocalStore) and not os.environ.get("MLFLOW_TRACKING_URI")
    where = (store.root / "mlflow" / "artifacts").as_uri() if local and isinstance(store, LocalStore) else None
    return str(client.create_experiment(name, where))


def _run(client: Any, store: Store, record: RunRecord, outcome: OutcomeRecord | None, steps: list[StepRecord]) -> str:
    """Write one run; return MLflow's id of it."""
    experiment = _experiment(client, store, record.pipeline)
    found = client.search_runs([experiment], f"tags.`tidegate.run_id` = '{record.id}'")
    started, state = _milliseconds(record.created), outcome.state if outcome else ""
    run = found[0] if found else client.create_run(experiment, started, {"tidegate.run_id": record.id}, record.id)
    run_id, whole = str(run.info.run_id), f"{state} {outcome.finished}" if outcome else ""
    if not whole or run.data.tags.get("tidegate.mirrored") != whole:
        _log_run(client, run_id, record, _metrics(outcome, steps), _tags(record, steps))
        ended = _milliseconds(outcome.finished) if outcome else None
        client.set_terminated(run_id, {"SUCCEEDED": "FINISHED", "FAILED": "FAILED"}.get(state, "KILLED"), ended)
        client.set_tag(run_id, "tidegate.mirrored", whole)
    return run_id


def _log_run(client: Any, run_id: str, record: RunRecord, metrics: dict[str, float], tags: dict[str, str]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    started = _milliseconds(record.created)
    params = [Param(_key(k), json.dumps(v)[:6000]) for k, v in record.parameters.items()]
    client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items() if v])
    for i in range(0, len(params), 100):  # MLflow takes a hundred at a time
        client.log_batch(run_id, params=params[i : i + 100])
    numbers = [Metric(_key(k), v, started, 0) for k, v in metrics.items()]
    for i in range(0, len(numbers), 1000):
        client.log_batch(run_id, metrics=numbers[i : i + 1000])


def _key(name: str) -> str:
    """A name as MLflow allows it."""
    return re.sub(r"[^\w.\- /]", "_", name)[:250]


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
    logged = _log_model(client, store, version, mlflow_run)
    tags = _version_tags(version)
    source = logged.artifact_location  # "models:/ID" would be looked up in MLflow's global tracking server
    made = client.create_model_version(state.name, source, mlflow_run, tags=tags, model_id=logged.model_id)
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


def _log_model(client: Any, store: Store, version: Version, mlflow_run: str) -> Any:
    """Log the graph as an MLflow model with our whole folder beside it; return MLflow's record of it."""
    experiment = client.get_run(mlflow_run).info.experiment_id
    with tempfile.TemporaryDirectory(prefix="tidegate-mlflow-") as folder:
        ours, theirs = Path(folder, "tidegate"), Path(folder, "model")
        Blobs(store).fetch(version.digest, ours, kind=version.kind)
        _save(ours, theirs)
        ours.rename(theirs / "tidegate")
        logged = client.create_logged_model(experiment, version.model, mlflow_run)
        client.log_model_artifacts(logged.model_id, str(theirs))
    return client.finalize_logged_model(logged.model_id, "READY")


def _save(ours: Path, theirs: Path) -> None:
    """Write an MLflow model of our ONNX graph; of a model in another format there is none, its files still go in."""
    if not (ours / "model.onnx").exists():
        theirs.mkdir()
        return
    import mlflow
    import onnx

    graph, signature = onnx.load(ours / "model.onnx"), _signature(ours)
    cpu = ["CPUExecutionProvider"]
    mlflow.onnx.save_model(
        graph, theirs, pip_requirements=_requirements(ours), signature=signature, onnx_execution_providers=cpu
    )


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
