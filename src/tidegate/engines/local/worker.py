"""Perform one step: look in the cache, else run it as a process, and keep what it made."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tidegate.engines import files
from tidegate.engines.early import cache_key, early_resolver, environment_read
from tidegate.engines.graph import Ready
from tidegate.engines.importer import imported
from tidegate.engines.kept import kept_outputs
from tidegate.engines.local import kubernetes
from tidegate.engines.local.claims import create_claim, delete_claim
from tidegate.engines.local.command import Asked, Claim, PythonStep, asked
from tidegate.engines.local.host import Host
from tidegate.engines.local.job import Given, make_job
from tidegate.engines.local.limits import Limits, memory_of, read_limits
from tidegate.engines.local.packages import installed, interpreter
from tidegate.engines.local.process import Job, Launcher, Process
from tidegate.engines.redact import forms, redact_error, redact_file, redacted
from tidegate.engines.resolve import Resolver
from tidegate.engines.values import Values, from_cache, to_cache
from tidegate.errors import StepFailed, TidegateError
from tidegate.plan.events import CANCELED, FAILED, SUCCEEDED, Notice, Report, StepLog
from tidegate.plan.key import KeyParts, key_parts
from tidegate.plan.model import Container, Executor, Importer
from tidegate.store.blobs import Blobs
from tidegate.store.cache import Cache, Miss
from tidegate.store.runs import Runs, StepRecord

POLL = 0.05
LONGEST_LINE = 65536


@dataclass(frozen=True)
class Done:
    """How one step ended; ``kept``: before this run was interrupted and resumed."""

    state: str
    outputs: Values = field(default_factory=Values)
    cached: bool = False
    seconds: float = 0.0
    error: Mapping[str, Any] | None = None
    key: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    attempts: int = 1
    kept: bool = False


@dataclass(frozen=True)
class Site:
    """Everything a step needs of the run around it."""

    run_id: str
    blobs: Blobs
    cache: Cache
    runs: Runs
    launcher: Launcher
    host: Host
    scratch: Path
    report: Report
    cancel: threading.Event
    context: Mapping[str, str]
    pipeline: str
    use_cache: bool = True
    finished: Mapping[str, StepRecord] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _Step:
    """A step with what was found out about it before it is looked up or run."""

    ready: Ready
    container: Container
    asked: Asked
    early: Resolver
    python: Path | None


def perform(site: Site, ready: Ready, executor: Executor) -> Done:
    """Run one step to its end; whatever goes wrong is in the result.

    Args:
        site: the run.
        ready: the step with its resolved inputs.
        executor: what its component runs.
    """
    started = time.monotonic()
    try:
        if site.cancel.wait(ready.delay):
            return Done(CANCELED)
        if done := _kept(site, ready):
            return done
        done = _imported(site, ready, executor) if isinstance(executor, Importer) else _contained(site, ready, executor)
    except TidegateError as e:
        done = Done(FAILED, error=e.as_json())
    except OSError as e:
        hint = "Free space there, or set TMPDIR to another folder."
        done = Done(
            FAILED, error={"code": "scratch", "message": f"the scratch folder {site.scratch}: {e}", "hint": hint}
        )
    return replace(done, seconds=time.monotonic() - started)


def _kept(site: Site, ready: Ready) -> Done | None:
    """The step's end before the run was interrupted, if it had the same inputs and its outputs are whole."""
    record = site.finished.get(ready.path)
    outputs, damage = kept_outputs(record, ready, site.blobs)
    if damage:
        site.report(Notice(f"{ready.path}: what it made is damaged, it runs again: {damage}"))
    return Done(SUCCEEDED, outputs, cached=True, kept=True) if outputs else None


def _imported(site: Site, ready: Ready, importer: Importer) -> Done:
    resolver = early_resolver(ready, site.context)
    cache = site.cache if site.use_cache else None
    return Done(SUCCEEDED, imported(ready, importer, resolver, site.blobs, cache, site.host.root))


def _contained(site: Site, ready: Ready, container: Container) -> Done:
    resolver = early_resolver(ready, site.context)
    what = asked(container, site.host, resolver.text(container.image))
    if isinstance(what, Claim):
        return _claimed(site, ready, what)
    python = None
    if isinstance(what, PythonStep) and not what.packages.satisfied:
        text = f"{ready.path}: its packages are installed into an environment of their own"
        python = interpreter(what.packages, lambda: site.report(Notice(text)))
    return _cached(site, _Step(ready, container, what, resolver, python))


def _claimed(site: Site, ready: Ready, claim: Claim) -> Done:
    if claim.action == "create":
        return Done(SUCCEEDED, Values({"name": create_claim(ready.inputs.parameters, site.host, site.run_id)}))
    delete_claim(ready.inputs.parameters, site.host)
    return Done(SUCCEEDED)


def _cached(site: Site, step: _Step) -> Done:
    ready, task = step.ready, step.ready.task
    parts = _key_parts(step, site.host)
    key = cache_key(site.pipeline, ready, parts)
    if site.use_cache and task.cache:
        found = site.cache.lookup(key, site.blobs)
        if not isinstance(found, Miss):
            return Done(SUCCEEDED, from_cache(found.outputs), True, key=key, parts=parts.digests())
        if found.damaged:
            site.report(Notice(f"{ready.path}: a cache entry was damaged and is set aside: {found.reason}"))
    done = _attempts(site, step)
    if done.state == SUCCEEDED and task.cache:
        site.cache.put(key, to_cache(done.outputs), run=site.run_id, step=ready.path)
    return replace(done, key=key, parts=parts.digests())


def _key_parts(step: _Step, host: Host) -> KeyParts:
    container, ready = step.container, step.ready
    command: list[Any] = [*container.command, *container.args]
    command += [] if isinstance(step.asked, PythonStep) else [step.asked]
    return key_parts(
        ready.task.component.interface,
        command,
        environment_read(container, step.early),
        ready.inputs.parameters,
        ready.inputs.artifacts,
        distributions=installed(step.python) if step.python else (),
        settings=kubernetes.settings_key(container.kubernetes, ready.settings, host),
    )


def _attempts(site: Site, step: _Step) -> Done:
    retry, log = step.ready.task.retry, site.scratch / f"{step.ready.id}.log"
    log.touch()
    for attempt in range(retry.times + 1):
        if attempt:
            if site.cancel.wait(retry.delay(attempt)):
                return Done(CANCELED)
            with log.open("a") as out:
                out.write(f"== attempt {attempt + 1}\n")
        done = _run(site, step, log)
        if done.state != FAILED:
            break
    log.unlink()
    return replace(done, attempts=attempt + 1)


def _run(site: Site, step: _Step, log: Path) -> Done:
    ready = step.ready
    folder = site.scratch / str(ready.id)
    shutil.rmtree(folder, ignore_errors=True)
    provisioned = files.executor_input(ready.task.component.interface, ready.inputs, folder, site.blobs)
    resolver = Resolver(provisioned, step.early.context, ready.extra)
    pod = {
        "metadata.name": step.early.context["pipeline_task_uuid"],
        "metadata.uid": site.run_id,
        "metadata.namespace": "local",
    }
    local = kubernetes.local(step.container.kubernetes, ready.settings, site.host, folder, pod)
    limits = read_limits(step.container.resources, resolver.text, local.seconds)
    given = Given(
        site.run_id, ready.path, site.host, site.blobs.store.uri, folder, resolver, local, limits,
        _threads(site, limits), ready.task.component.interface, log,
    )  # fmt: skip
    job = make_job(given, step.container, step.asked, step.python)
    secrets = forms(local.secrets)
    code, stopped = _wait(site, ready.path, job, limits, secrets)
    redact_file(log, secrets)
    key = site.runs.write_log(site.run_id, ready.path, log)
    if site.cancel.is_set():
        done = Done(CANCELED, log=key)
    elif stopped or code:
        done = Done(FAILED, error=redact_error(stopped or files.failure(folder, log, code), secrets), log=key)
    else:
        done = _collected(site, ready, provisioned, key)
    shutil.rmtree(folder, ignore_errors=True)
    return done


def _collected(site: Site, ready: Ready, provisioned: Mapping[str, Any], log: str) -> Done:
    try:
        return Done(SUCCEEDED, files.collect(ready.task.component.interface, provisioned, site.blobs), log=log)
    except StepFailed as e:
        return Done(FAILED, error=e.as_json(), log=log)


def _threads(site: Site, limits: Limits) -> int:
    """The cores' share of one running step, unless the user said how many threads there shall be."""
    if (said := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        return int(said)
    share = max(1, (os.cpu_count() or 1) // max(1, len(site.running)))
    return max(1, min(share, int(limits.cores))) if limits.cores else share


def _wait(
    site: Site, path: str, job: Job, limits: Limits, secrets: tuple[str, ...]
) -> tuple[int, dict[str, Any] | None]:
    """Wait for a step's end, passing on what it logs; kill it when the run is cancelled or it goes beyond a limit."""
    stopped: dict[str, Any] | None = None
    started = time.monotonic()
    with job.log.open("rb") as log:
        log.seek(0, os.SEEK_END)  # what earlier attempts wrote was passed on
        process = site.launcher.start(job)
        while (code := process.wait(POLL)) is None:
            _pass_on(site, path, log, secrets)
            stopped = stopped or _beyond(limits, time.monotonic() - started, process)
            if site.cancel.is_set() or stopped:
                process.kill()
        _pass_on(site, path, log, secrets, ended=True)
    return code, stopped


def _beyond(limits: Limits, seconds: float, process: Process) -> dict[str, Any] | None:
    if limits.seconds and seconds > limits.seconds:
        return {"code": "step-timeout", "message": f"the step ran longer than its {limits.seconds:g} s"}
    if limits.memory and process.pid and (used := memory_of(process.pid)) > limits.memory:
        found = f"the step used {used / 2**20:.0f} MiB of memory, its limit is {limits.memory / 2**20:.0f} MiB"
        return {"code": "step-memory", "message": found, "hint": "Raise set_memory_limit, or use less."}
    return None


def _pass_on(site: Site, path: str, log: Any, secrets: tuple[str, ...], *, ended: bool = False) -> None:
    # a step that writes faster than it can be shown must not keep the run from hearing that it was cancelled
    while not site.cancel.is_set() and (line := log.readline(LONGEST_LINE)):
        if not line.endswith(b"\n") and len(line) < LONGEST_LINE and not ended:
            log.seek(-len(line), os.SEEK_CUR)  # the rest of the line is still to come
            return
        site.report(StepLog(path, redacted(line.decode(errors="replace").rstrip("\n"), secrets)))
