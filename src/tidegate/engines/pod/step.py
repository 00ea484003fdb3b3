"""One step inside a pod, from its inputs to its record. Nothing half-written is ever visible: bytes first, the record last.

What differs between engines is where a step's inputs come from and who else is told how it ended: ``Place`` is the one,
what ``recorded`` tells the other.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tidegate.engines import files
from tidegate.engines.early import cache_key, early_resolver, environment_read
from tidegate.engines.graph import Ready
from tidegate.engines.importer import imported
from tidegate.engines.kept import kept_outputs
from tidegate.engines.own import own_step
from tidegate.engines.pod.child import Child
from tidegate.engines.redact import forms, redact_error, redact_file
from tidegate.engines.resolve import Resolver
from tidegate.engines.task_config import task_env, with_task_config
from tidegate.engines.values import Values, from_cache, to_cache
from tidegate.errors import StepFailed, TidegateError
from tidegate.plan.events import CANCELED, FAILED, SUCCEEDED
from tidegate.plan.key import KeyParts, key_parts
from tidegate.plan.model import Container, Importer, Plan
from tidegate.store.blobs import Blobs
from tidegate.store.cache import Cache, Miss
from tidegate.store.runs import Runs, StepRecord, iso

TERMINATED, BROKEN = 143, 70
KILLED = (-9, 137)
MASKED = "TIDEGATE_MASK_"  # secrets of a command in another container, which are taken out of its log


class Place(Protocol):
    """Where a step is: its run and its name there, the store, a folder of its own."""

    @property
    def run_id(self) -> str:
        """The run."""

    @property
    def step(self) -> str:
        """The step's path."""

    @property
    def attempt(self) -> int:
        """0 for the first try."""

    @property
    def begun(self) -> str:
        """When the run was begun, or begun again; ISO 8601. What was recorded before is kept."""

    @property
    def folder(self) -> Path:
        """Where the step's files may be."""

    @property
    def plan(self) -> Plan:
        """The plan."""

    @property
    def use_cache(self) -> bool:
        """Whether results of earlier runs count."""

    @property
    def context(self) -> Mapping[str, str]:
        """Names of the run, for placeholders."""

    @property
    def blobs(self) -> Blobs:
        """The run's view of the blobs."""

    @property
    def cache(self) -> Cache:
        """The cache."""

    @property
    def runs(self) -> Runs:
        """The records of runs."""

    def ready(self) -> Ready:
        """The step with its inputs."""


@dataclass(frozen=True)
class Step:
    """A step of a container with what was found out before it runs."""

    ready: Ready
    container: Container
    context: Mapping[str, str]
    key: str
    parts: Mapping[str, str]


@dataclass(frozen=True)
class Done:
    """How a step ended."""

    state: str
    outputs: Values = field(default_factory=Values)
    cached: bool = False
    error: Mapping[str, Any] | None = None
    log: str = ""
    code: int = 0
    kept: StepRecord | None = None


Perform = Callable[[Ready], tuple[Step | None, Done]]


def recorded(
    place: Place,
    perform: Perform,
    tell: Callable[[Done], None],
    ready: Ready | None = None,
    started: float | None = None,
) -> int:
    """Perform a step, record how it ended, whatever it was, and return its exit code.

    Args:
        place: where the step is.
        perform: does the step, or a part of it; a state of '' says that it has not ended yet.
        tell: tells the engine what it wants to know of how the step ended.
        ready: the step with its inputs, where they are known already.
        started: when it began, where that was before.
    """
    started, step = started or time.time(), None
    try:
        ready = ready or place.ready()
        step, done = perform(ready)
        tell(done)
    except TidegateError as e:
        done = Done(FAILED, error=e.as_json(), code=say(e))
    except OSError as e:
        found = StepFailed(f"the pod's own disk: {e}", hint="Is an emptyDir full?", code="scratch")
        done = Done(FAILED, error=found.as_json(), code=say(found))
    except Exception as e:  # a bug of ours is told, not lost with the pod
        traceback.print_exc()
        done = Done(FAILED, error={"code": "internal", "message": f"{type(e).__name__}: {e}"}, code=BROKEN)
    if done.state:
        _record(place, ready, step, done, time.time() - started)
    return done.code


def say(error: TidegateError) -> int:
    """Tell the pod's log what went wrong; return the exit code of that."""
    print(f"error[{error.code}]: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def perform(place: Place, ready: Ready) -> tuple[Step | None, Done]:
    """Do what a step is there for, unless it was done before."""
    executor = place.plan.executors[str(ready.task.component.body)]
    if isinstance(executor, Importer):
        return None, kept(place, ready) or _import(place, ready, executor)
    step = of_container(place, ready, executor)
    return step, kept(place, ready) or cached(place, step) or _run(place, step)


def kept(place: Place, ready: Ready) -> Done | None:
    """The step's end before the run was resumed, if it had the same inputs and its outputs are whole."""
    record = place.runs.find_step(place.run_id, place.step)
    before = record and record.state == SUCCEEDED and iso(record.ended) < place.begun
    record = record if before else None
    outputs, damage = kept_outputs(record, ready, place.blobs)
    if damage:
        print(f"tidegate: what the step made is damaged, it runs again: {damage}", file=sys.stderr)
    if not outputs:
        return None
    print("tidegate: this step finished before the run was resumed", flush=True)
    return Done(SUCCEEDED, outputs, kept=record)


def _import(place: Place, ready: Ready, importer: Importer) -> Done:
    cache = place.cache if place.use_cache else None
    resolver = early_resolver(ready, place.context)
    return Done(SUCCEEDED, imported(ready, importer, resolver, place.blobs, cache, Path.cwd()))


def of_container(place: Place, ready: Ready, container: Container) -> Step:
    """A step with its place in the cache."""
    early = early_resolver(ready, place.context)
    parts = _key_parts(ready, container, early)
    return Step(ready, container, early.context, cache_key(place.plan.name, ready, parts), parts.digests())


def _key_parts(ready: Ready, container: Container, early: Resolver) -> KeyParts:
    images = () if own_step(container) else (early.text(container.image),)
    settings = {"config": dict(container.kubernetes), "settings": dict(ready.settings)}
    return key_parts(
        ready.task.component.interface,
        [*container.command, *container.args, *images],
        environment_read(container, early),
        ready.inputs.parameters,
        ready.inputs.artifacts,
        distributions=images,
        settings=settings if container.kubernetes else {},
    )


def cached(place: Place, step: Step) -> Done | None:
    """What the same step left before, in this run or another."""
    if not place.use_cache or not step.ready.task.cache:
        return None
    found = place.cache.lookup(step.key, place.blobs)
    if isinstance(found, Miss):
        if found.damaged:
            print(f"tidegate: a cache entry was damaged and is set aside: {found.reason}", file=sys.stderr)
        return None
    print(f"tidegate: cached, made by {found.step} of run {found.run}", flush=True)
    return Done(SUCCEEDED, from_cache(found.outputs), cached=True)


def _run(place: Place, step: Step) -> Done:
    folder = fresh(place.folder / "work")
    log = open_log(place, folder)
    resolver = Resolver(provision(place, step, folder), step.context, step.ready.extra)
    env = {**os.environ, **task_env(step.container, resolver), "PYTHONUNBUFFERED": "1"}
    child = Child(command(step, resolver, folder), env, log)
    code = child.wait()
    if child.terminated:
        return terminated(place, log)
    return collected(place, step, resolver.files, folder, log, code)


def terminated(place: Place, log: Path) -> Done:
    """The end of a step that was told to end."""
    found = "the step was told to end: its pod was deleted, or a deadline passed"
    error = {"code": "step-terminated", "message": found}
    return Done(CANCELED, error=error, log=_keep_log(place, log), code=TERMINATED)


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def provision(place: Place, step: Step, folder: Path) -> Mapping[str, Any]:
    """Bring the inputs into the step's folder; return kfp's ExecutorInput with where everything is."""
    interface = step.ready.task.component.interface
    provisioned = files.executor_input(interface, step.ready.inputs, folder, place.blobs)
    resolver = Resolver(provisioned, step.context, step.ready.extra)
    return with_task_config(interface, step.container, resolver)


def open_log(place: Place, folder: Path) -> Path:
    """The log of this try, behind those of earlier ones."""
    log = folder.with_name("log")
    log.write_bytes(b"")
    if place.attempt:
        earlier = place.runs.find_log(place.run_id, place.step)
        log.write_bytes(earlier + f"== attempt {place.attempt + 1}\n".encode())
    return log


def command(step: Step, resolver: Resolver, folder: Path) -> list[str]:
    """The words of the step's command."""
    if own := own_step(step.container):
        said = folder / "executor_input.json"
        said.write_text(json.dumps(resolver.files))
        code = ["--code_digest", own.code_digest] if own.code_digest else []
        asked = ["--executor_input", f"@{said}", "--function_to_execute", own.function, *code]
        return [sys.executable, "-m", "tidegate.author.step", *asked]
    return [w for t in (*step.container.command, *step.container.args) for w in resolver.words(t)]


def collected(
    place: Place,
    step: Step,
    given: Mapping[str, Any],
    folder: Path,
    log: Path,
    code: int,
    *,
    within: Path | None = None,
) -> Done:
    """Take what a command left into the store."""
    secrets = masks(step.container)
    redact_file(log, secrets)
    kept_log = _keep_log(place, log)
    if code:
        error = redact_error(_with_memory(files.failure(folder, log, code), step.container, code), secrets)
        return Done(FAILED, error=error, log=kept_log, code=code if code > 0 else 128 - code)
    outputs = files.collect(step.ready.task.component.interface, given, place.blobs, within)
    if step.ready.task.cache:
        place.cache.put(step.key, to_cache(outputs), run=place.run_id, step=step.ready.path)
    return Done(SUCCEEDED, outputs, log=kept_log)


def _with_memory(error: dict[str, Any], container: Container, code: int) -> dict[str, Any]:
    """Say that it may have been memory where something was killed as the kernel kills beyond a limit."""
    limited = container.resources.get("resourceMemoryLimit") or container.resources.get("memoryLimit")
    if code not in KILLED or not limited or error.get("frames"):
        return error
    found = f"it was killed, as the kernel does beyond a limit of memory; the step's is {limited}"
    return {**error, "code": "step-memory", "message": found, "hint": "Raise set_memory_limit, or use less."}


def masks(container: Container) -> tuple[str, ...]:
    """The texts that no log of this container may hold."""
    pairs = [p for e in container.kubernetes.get("secretAsEnv", ()) for p in e.get("keyToEnv", ())]
    own = [os.environ[p["envVar"]] for p in pairs if p["envVar"] in os.environ]
    return forms(own + [value for name, value in os.environ.items() if name.startswith(MASKED)])


def _keep_log(place: Place, log: Path) -> str:
    return place.runs.write_log(place.run_id, place.step, log)


def _record(place: Place, ready: Ready | None, step: Step | None, done: Done, seconds: float) -> None:
    if done.kept:
        return
    record = StepRecord(
        path=place.step,
        state=done.state,
        cached=done.cached,
        seconds=round(seconds, 3),
        key=step.key if step else "",
        parts=dict(step.parts) if step else {},
        inputs=ready.inputs.as_json() if ready else {},
        outputs=done.outputs.as_json(),
        error=dict(done.error) if done.error else None,
        log=done.log,
        attempts=place.attempt + 1,
    )
    place.runs.step(place.run_id, record)
