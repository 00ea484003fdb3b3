"""The Python face of the command line: run a pipeline, get a ``Run`` back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tidegate.engines.base import Arguments, Engine, check_arguments
from tidegate.engines.local.engine import LocalEngine, check_host
from tidegate.engines.local.host import read_host
from tidegate.engines.local.kubernetes import not_applied
from tidegate.engines.pod.shared import check_store
from tidegate.engines.values import Values, values_from_json
from tidegate.errors import Conflict, DefinitionError, NotFound, ParameterError, Trouble, WatchLost
from tidegate.plan.difference import definition_changes
from tidegate.plan.events import CANCELED, FAILED, RUNNING, SUCCEEDED, Event, Notice, Outcome
from tidegate.plan.key import environment_digest
from tidegate.plan.model import ArtifactSlot
from tidegate.plan.value import Artifact
from tidegate.prepared import Prepared, check_images, packed_definition, policies, prepare
from tidegate.project import cache_folder, user_name
from tidegate.registry import policy
from tidegate.revision import revision
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs, digest_path
from tidegate.store.open import open_store
from tidegate.store.patient import PatientStore
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs, StepRecord, new_run_id

LOCAL, ARGO, KFP = "local", "argo", "kfp"
ENGINES = (LOCAL, ARGO, KFP)


@dataclass(frozen=True)
class Run:
    """A run that ended.

    Attributes:
        outcome: state, outputs, steps, error.
        store: where everything about it is.
        mlflow: the address of the MLflow that it was mirrored into, empty where it was not.
        notice: why it was not, where it should have been.
    """

    outcome: Outcome
    store: Store
    mlflow: str = ""
    notice: str = ""

    @property
    def id(self) -> str:
        """The run's id in the store."""
        return self.outcome.run_id

    @property
    def state(self) -> str:
        """SUCCEEDED, FAILED or CANCELED."""
        return self.outcome.state

    @property
    def outputs(self) -> dict[str, Any]:
        """Output parameters and artifacts by name."""
        return {**self.outcome.parameters, **self.outcome.artifacts}

    def path(self, artifact: Artifact) -> Path | None:
        """A local copy of an output artifact's bytes, made when it is asked for; None where it has none."""
        if not artifact.digest:
            return None
        path = cache_folder() / "outputs" / artifact.digest[7:] / artifact.name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Blobs(self.store).fetch(artifact.digest, path, kind=artifact.kind)
        return path


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        store: the store's address; the project's own by default.
        jobs: steps at a time; all cores by default.
        cache: use results of earlier runs.
        artifacts: input artifacts of the root, by path.
        run_id: of the run; where one of this id was begun, it is gone on with, with what it began with.
        resume: go on with this run (an id, or ``last``) instead of starting one: what finished stays finished.
        mirror: write the run into MLflow when it is over; None = where MLflow is installed and the project
            does not say ``mlflow = false``.
        engine: ``local``, ``argo`` or ``kfp``.
        logs: pass on what steps write (on a cluster: fetch it while they run).
        mutable_images: let a cluster run images by tag, which may change under a run.
        interrupted: asked when Ctrl-C is pressed while a cluster runs: ``stop`` the run, or ``detach`` from it.
    """

    store: str | None = None
    jobs: int | None = None
    cache: bool = True
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    resume: str = ""
    mirror: bool | None = None
    engine: str = LOCAL
    logs: bool = False
    mutable_images: bool = False
    interrupted: Callable[[], str] = lambda: "stop"
    run_id: str = ""


def check_run(prepared: Prepared, parameters: Mapping[str, Any], options: Options) -> Arguments:
    """Check everything that can be known before a run starts; return its parameters with types and defaults.

    Raises:
        UsageError: a parameter is unknown, missing, of a wrong type, or looser than the gate's policy; a step needs
            what the local engine does not have.
    """
    for found in policies(prepared.plan):
        policy.check_parameters(found, parameters)
    for name, path in options.artifacts.items():
        if not path.exists():
            raise NotFound(f"the input artifact {name!r} is not at {path}", allowed="A file or folder that exists.")
    given = Arguments({**prepared.definition.parameters, **parameters}, {n: [] for n in options.artifacts})
    arguments = check_arguments(prepared.plan, given)
    _check_engine(prepared, options, arguments.parameters)
    return arguments


def _check_engine(prepared: Prepared, options: Options, parameters: Mapping[str, Any]) -> None:
    if options.engine == LOCAL:
        return check_host(prepared.plan, read_host(prepared.project))
    check_store(options.store or prepared.project.store_uri)
    if options.engine == KFP:
        from tidegate.engines.kfp import start, support

        check_images(prepared, mutable=options.mutable_images)
        support.check(prepared.plan)
        return start.check_parameters(parameters)
    from tidegate.engines.argo.start import missing_launcher

    return check_images(prepared, mutable=options.mutable_images, launcher=missing_launcher(prepared.project))


def run(
    target: Any,
    parameters: Mapping[str, Any] | None = None,
    options: Options | None = None,
    report: Callable[[Event], None] = lambda _: None,
) -> Run:
    """Run a pipeline, on this machine or on a cluster.

    Args:
        target: ``FILE[:PIPELINE]``, a module, compiled IR, a pipeline function, or what ``prepare`` made of one.
        parameters: run parameters as JSON values.
        options: store, parallelism, cache, input artifacts.
        report: called with every event, from several threads.

    Raises:
        UsageError: the definition or a parameter is wrong; nothing ran.
        Trouble: the store cannot be used.
    """
    options = options or Options()
    prepared = target if isinstance(target, Prepared) else prepare(target)
    if options.resume:
        return _resume(prepared, parameters or {}, options, report)
    if options.run_id and Runs(open_store(options.store or prepared.project.store_uri)).exists(options.run_id):
        return _resume(prepared, {}, replace(options, resume=options.run_id), report)
    arguments = check_run(prepared, parameters or {}, options)
    store = open_store(options.store or prepared.project.store_uri)
    slots = prepared.plan.root.interface.artifacts
    arguments = Arguments(arguments.parameters, _given(options.artifacts, slots, Blobs(store)))
    record, runs = new_record(prepared, arguments, options.engine, options.run_id), Runs(store)
    if options.engine == KFP:
        return _run_on_kfp(prepared, arguments, options, store, record, report)
    engine = _engine(prepared, arguments, options, store, record, {})
    runs.keep_plan(record.plan_digest, prepared.definition.spec, prepared.definition.platforms)
    runs.create(record)
    return _run(prepared, arguments, options, store, engine, record.id, report)


def _run_on_kfp(
    prepared: Prepared,
    arguments: Arguments,
    options: Options,
    store: Store,
    record: RunRecord,
    report: Callable[[Event], None],
    *,
    resumed: bool = False,
) -> Run:
    """Run on Kubeflow Pipelines, which names the run: its first record is written when it has begun there."""
    from tidegate.engines.kfp.client import reach
    from tidegate.engines.kfp.start import Submission, begin, resume

    patient = PatientStore(store)
    how = Submission(bool(options.run_id), options.cache, options.logs, options.interrupted)
    backend, settings = reach(prepared.project)
    if resumed:
        engine = resume(record, prepared.plan, patient, backend, settings, how)
        Runs(store).reopen(record.id)
    else:
        engine = begin(prepared.definition, prepared.plan, record, patient, backend, settings, how)
    return _run(prepared, arguments, options, store, engine, engine.record.id, report)


def _resume(
    prepared: Prepared, parameters: Mapping[str, Any], options: Options, report: Callable[[Event], None]
) -> Run:
    store = open_store(options.store or prepared.project.store_uri)
    runs = Runs(store)
    record = runs.read(runs.last() if options.resume == "last" else runs.named(options.resume))
    _check_same(prepared, runs, record, parameters, options)
    if record.environment != environment_digest():
        report(Notice("the environment changed since this run began; what finished stays as it is"))
    artifacts = values_from_json({"artifacts": record.artifacts}).artifacts
    arguments = Arguments(record.parameters, artifacts)
    if options.engine == KFP:
        return _run_on_kfp(prepared, arguments, options, store, record, report, resumed=True)
    finished = {s.path: s for s in runs.steps(record.id) if s.state == SUCCEEDED}
    engine = _engine(prepared, arguments, options, store, record, finished)
    runs.reopen(record.id)
    return _run(prepared, arguments, options, store, engine, record.id, report)


def _check_same(
    prepared: Prepared, runs: Runs, record: RunRecord, parameters: Mapping[str, Any], options: Options
) -> None:
    """Refuse to resume what is not the same run any more.

    Raises:
        DefinitionError: the definition changed (code ``resume-changed``), saying what.
        ParameterError: parameters, artifacts or an engine were given that the run did not begin with.
    """
    if record.engine != options.engine:
        raise ParameterError(
            f"run {record.id} began on the engine {record.engine}",
            allowed="A run goes on where it began.",
            hint=f"--engine {record.engine}",
            code="resume-changed",
        )
    if record.pipeline != prepared.plan.name:
        raise DefinitionError(
            f"run {record.id} is of the pipeline {record.pipeline!r}, not of {prepared.plan.name!r}",
            allowed="A run goes on with the definition that it began with.",
            hint=f"tidegate run {record.target or 'FILE'} --resume {record.id}",
            code="resume-changed",
        )
    if record.plan_digest != prepared.plan.digest:
        before = runs.plan(record.plan_digest)
        changes = definition_changes(before, prepared.definition.spec) if before else ["its definition"]
        raise DefinitionError(
            f"since run {record.id} began, this changed: {'; '.join(changes[:5])}",
            allowed="A run goes on with the definition that it began with.",
            hint="Start a new run: without --resume; steps that did not change come from the cache.",
            code="resume-changed",
        )
    changed = [n for n, v in parameters.items() if record.parameters.get(n) != v]
    recorded = {n: found[0]["digest"] for n, found in record.artifacts.items()}
    changed += [n for n, path in options.artifacts.items() if recorded.get(n) != digest_path(path).digest]
    if changed:
        raise ParameterError(
            f"run {record.id} did not begin with this {', '.join(changed)}",
            allowed="A run goes on with the parameters and artifacts that it began with.",
            hint="Start a new run (without --resume), or leave -p and -a out.",
            code="resume-changed",
        )
    _check_engine(prepared, options, record.parameters)


def _engine(
    prepared: Prepared,
    arguments: Arguments,
    options: Options,
    store: Store,
    record: RunRecord,
    finished: Mapping[str, StepRecord],
) -> Engine:
    if options.engine == LOCAL:
        host, jobs = read_host(prepared.project), options.jobs or os.cpu_count() or 1
        return LocalEngine(store, host, record.id, jobs, options.cache, finished, record.created)
    from tidegate.engines.argo.start import Submission, argo_engine, reach

    cluster, settings = reach(prepared.project)
    how = Submission(options.logs, bool(options.resume), options.interrupted, finished)
    packed = packed_definition(prepared, record, use_cache=options.cache)
    return argo_engine(packed, prepared.plan, arguments, record, store, cluster, settings, how)


def _run(
    prepared: Prepared,
    arguments: Arguments,
    options: Options,
    store: Store,
    engine: Engine,
    run_id: str,
    report: Callable[[Event], None],
) -> Run:
    ignored = not_applied(prepared.plan) if options.engine == LOCAL else ""
    if ignored:
        report(Notice(f"not applied locally: {ignored}"))
    try:
        outcome = engine.run(prepared.plan, arguments, report)
    except Conflict:
        raise  # another process runs this run: its outcome is not ours to write
    except WatchLost:
        raise  # the run goes on there: its end is the cluster's to write
    except BaseException as e:
        state = CANCELED if isinstance(e, KeyboardInterrupt) else FAILED
        error = {"code": "interrupted", "message": str(e) or type(e).__name__}
        Runs(store).finish(run_id, OutcomeRecord(state, error=error))
        raise
    if outcome.state == RUNNING:
        return Run(outcome, store)
    Runs(store).finish(run_id, _finished(outcome))
    return Run(outcome, store, *_mirror(store, run_id, options, prepared.project.setting("mlflow"), report))


def _given(paths: Mapping[str, Path], slots: Mapping[str, ArtifactSlot], blobs: Blobs) -> dict[str, list[Artifact]]:
    contents = {name: (path, blobs.add(path)) for name, path in paths.items()}
    return {
        name: [Artifact(path.name, blobs.uri(c.digest), slots[name].type, c.digest, c.kind, c.size)]
        for name, (path, c) in contents.items()
    }


def new_record(prepared: Prepared, arguments: Arguments, engine: str, run_id: str = "") -> RunRecord:
    """The first record of a run that somebody starts here."""
    code = revision(prepared.project.root)
    return RunRecord(
        id=run_id or new_run_id(),
        pipeline=prepared.plan.name,
        plan_digest=prepared.plan.digest,
        parameters=dict(arguments.parameters),
        engine=engine,
        commit=code.commit,
        dirty=code.dirty,
        environment=environment_digest(),
        user=user_name(),
        target=prepared.target,
        artifacts=Values({}, arguments.artifacts).as_json()["artifacts"],
    )


def _finished(outcome: Outcome) -> OutcomeRecord:
    artifacts = {n: [a.as_json() for a in found] for n, found in outcome.artifacts.items()}
    outputs = {"parameters": dict(outcome.parameters), "artifacts": artifacts}
    return OutcomeRecord(outcome.state, outputs, dict(outcome.error) if outcome.error else None, outcome.seconds)


def _mirror(
    store: Store, run_id: str, options: Options, setting: Any, report: Callable[[Event], None]
) -> tuple[str, str]:
    """Mirror the run into MLflow; return where, and what went wrong. The run is safe in the store whatever comes of it."""
    if options.mirror is False or setting in (False, "false", "0"):
        return "", ""
    from tidegate.registry import mlflow  # with half the registry below it

    if not (options.mirror or mlflow.available()):
        return "", ""
    report(Notice(f"run {run_id} has ended; writing it into MLflow"))
    try:
        mirrored = mlflow.mirror(store, run_id)
    except Trouble as e:
        return "", str(e)
    return (mirrored.uri if mirrored else ""), ""
