"""Start, or go on with, a run on KFP: a version of the pipeline, the run, its first record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tidegate.engines.kfp import support
from tidegate.engines.kfp.backend import FINAL, Backend, BackendRun, Start, Version
from tidegate.engines.kfp.engine import KfpEngine
from tidegate.engines.kfp.handover import check_parameter
from tidegate.engines.kfp.prepare import Prepared, prepare
from tidegate.engines.kfp.settings import KfpSettings
from tidegate.engines.kfp.tree import CACHED, Tree
from tidegate.errors import ClusterError, Conflict, NotFound, ParameterError, StepFailed
from tidegate.ir.load import Definition
from tidegate.ir.write import to_yaml
from tidegate.plan.build import build
from tidegate.plan.events import SUCCEEDED
from tidegate.plan.model import Plan
from tidegate.store.base import Store
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs

_INSTEAD = {
    "kfp-number": "Declare the parameter as str, and read the number from it in a step.",
    "kfp-too-large": "Give an address instead (s3://…, https://…), which a step reads.",
}
DIGITS = 12  # of a definition's digest in the name of its version


@dataclass(frozen=True)
class Submission:
    """How to run on KFP.

    Attributes:
        again: a run of this name may have been begun before; it is gone on with.
        use_cache: whether steps may use results of earlier runs.
        logs: pass on what steps of ours write while they run.
        interrupted: asked when Ctrl-C is pressed.
    """

    again: bool = False
    use_cache: bool = True
    logs: bool = False
    interrupted: Callable[[], str] = lambda: "stop"


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse run parameters that do not come out of KFP as they go in.

    Raises:
        ParameterError: one is too large, or holds a number that KFP changes.
    """
    for name, value in parameters.items():
        try:
            check_parameter(value, f"the parameter {name!r}")
        except StepFailed as e:
            raise ParameterError(e.found, allowed=e.allowed, hint=_INSTEAD[e.code], code=e.code) from None


def version_prefix(prepared: Prepared) -> str:
    """What the name of a definition's version begins with."""
    return prepared.digest.removeprefix("sha256:")[:DIGITS]


def version(backend: Backend, plan: Plan, prepared: Prepared, commit: str = "") -> Version:
    """The version of a pipeline that is this definition; it is made where it is not there."""
    name = version_prefix(prepared)
    if found := backend.find_version(plan.name, name):
        return found
    package = to_yaml(Definition(prepared.spec, prepared.platforms))
    named = f"{name}-{commit[:8] or 'no-commit'}"
    try:
        return backend.upload(plan.name, named, package, f"tidegate: plan {plan.digest}, commit {commit or 'none'}")
    except (Conflict, ClusterError):
        if found := backend.find_version(plan.name, name):  # somebody else's, or ours whose answer was lost
            return found
        raise


def started_once(backend: Backend, wanted: Start, pause: Callable[[float], None] = time.sleep) -> BackendRun:
    """Start a run once; after an answer that was lost, a run of this name is ours."""
    try:
        return backend.start(wanted)
    except ClusterError as e:
        if e.code == "cluster-denied":
            raise
        pause(1.0)
        if found := backend.find_run(wanted.experiment, wanted.name):
            return found
        raise


def begin(
    definition: Definition, plan: Plan, record: RunRecord, store: Store, backend: Backend, settings: KfpSettings,
    how: Submission,
) -> KfpEngine:  # fmt: skip
    """Start a run, or find the one that was begun under this name, and return the engine that watches it.

    Raises:
        UsageError: the backend cannot run this.
        ClusterError: the backend cannot be reached, or refuses it.
    """
    support.check(plan, backend.version())
    check_parameters(record.parameters)
    Runs(store).keep_plan(plan.digest, definition.spec, definition.platforms)
    experiment = backend.experiment(settings.experiment)
    found = backend.find_run(experiment, record.id) if how.again else None
    if found:
        _check_same(Runs(store), found, record)
        _retry(backend, Runs(store), found)
    else:
        prepared = prepare(
            definition.spec, definition.platforms, settings, origin=record.origin, use_cache=how.use_cache
        )
        made = version(backend, plan, prepared, record.commit)
        wanted = Start(record.id, experiment, made, record.parameters, settings.service_account)
        found = started_once(backend, wanted)
    named = record.id
    record = replace(record, id=found.id)
    Runs(store).create(record)
    if how.again:
        Runs(store).name(named, record.id)
    return _engine(record, store, backend, settings, how)


def resume(
    record: RunRecord, plan: Plan, store: Store, backend: Backend, settings: KfpSettings, how: Submission
) -> KfpEngine:
    """Go on with a run that ended and did not succeed, as KFP retries it: what succeeded stays.

    Raises:
        Conflict: it succeeded (code ``run-succeeded``).
    """
    found = backend.run(record.id)
    if found.state == SUCCEEDED:
        raise Conflict(
            f"run {record.id} succeeded",
            allowed="One that failed or was stopped.",
            hint="Start a new run: without --resume.",
            code="run-succeeded",
        )
    before = _finished(plan, found, Runs(store))
    _retry(backend, Runs(store), found)
    return replace(_engine(record, store, backend, settings, how), before=before)


def _finished(plan: Plan, run: BackendRun, runs: Runs) -> dict[str, float]:
    """When each step ended that succeeded, by path: by its record, where it has none by KFP."""
    told = {s.path: s.ended for s in Tree(run.details).steps(plan) if s.state in (SUCCEEDED, CACHED)}
    return told | {r.path: r.ended for r in runs.steps(run.id) if r.state == SUCCEEDED}


def _check_same(runs: Runs, found: BackendRun, record: RunRecord) -> None:
    """Refuse to take a run for another that was to have the same name.

    Raises:
        Conflict: it began with another definition, or with other parameters (code ``run-differs``).
    """
    if not runs.exists(found.id):
        return
    before = runs.read(found.id)
    if (before.plan_digest, before.parameters) != (record.plan_digest, dict(record.parameters)):
        raise Conflict(
            f"the run {record.id} began with another definition or other parameters",
            allowed="A name of its own for each.",
            hint=f"tidegate runs show {found.id}",
            code="run-differs",
        )


def _retry(backend: Backend, runs: Runs, run: BackendRun) -> None:
    if run.state in FINAL and run.state != SUCCEEDED:
        backend.retry(run.id)
        runs.reopen(run.id)


def settle(run_id: str, store: Store, backend: Backend, settings: KfpSettings) -> OutcomeRecord | None:
    """Write how a run ended that nobody watched, by what KFP and its steps say; None while it goes on."""
    runs = Runs(store)
    record, found = runs.read(run_id), backend.run(run_id)
    if found.state not in FINAL:
        return None
    spec = runs.plan(record.plan_digest)
    if not spec:
        raise NotFound(f"the store does not have the definition of run {run_id}", hint="tidegate runs ls")
    plan = build(spec, runs.platforms(record.plan_digest))
    ended = _engine(record, store, backend, settings, Submission()).ended(plan, found)
    runs.finish(run_id, ended)
    return ended


def _engine(record: RunRecord, store: Store, backend: Backend, settings: KfpSettings, how: Submission) -> KfpEngine:
    shown = link(settings, backend.host, record.id)
    return KfpEngine(store, backend, record, shown, settings.store_secret, how.logs, how.interrupted)


def link(settings: KfpSettings, host: str, run_id: str) -> str:
    """Where people look at a run."""
    return f"{(settings.ui or host).rstrip('/')}/#/runs/details/{run_id}"
