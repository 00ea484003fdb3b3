"""What runs in the pods of a run: ``python -m tidegate.engines.argo.launcher [run|beside|end]``.

``run`` is a whole step in one container of an image of ours. Where the image is somebody else's, the command is wrapped
by the shim, and ``beside`` is a sidecar that finds the inputs, leaves the command for the shim, and takes what it made
into the store. ``end`` writes how the run ended. Nothing half-written is ever visible: bytes first, the record last.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.engines import files
from tidegate.engines.argo import shim
from tidegate.engines.argo.child import Child
from tidegate.engines.argo.control import control, count
from tidegate.engines.argo.nodes import STATES
from tidegate.engines.argo.outcome import Ended, outcome
from tidegate.engines.argo.pod import MASKED, Pod, read_pod
from tidegate.engines.argo.site import Site
from tidegate.engines.early import cache_key, early_resolver, environment_read
from tidegate.engines.graph import Ready
from tidegate.engines.importer import imported
from tidegate.engines.kept import kept_outputs
from tidegate.engines.own import own_step
from tidegate.engines.redact import forms, redact_error, redact_file
from tidegate.engines.resolve import Resolver
from tidegate.engines.task_config import task_env, with_task_config
from tidegate.engines.values import Values, from_cache, to_cache
from tidegate.errors import ConfigError, StepFailed, TidegateError
from tidegate.plan.events import CANCELED, FAILED, SUCCEEDED
from tidegate.plan.key import KeyParts, key_parts
from tidegate.plan.model import Container, Importer
from tidegate.store.cache import Miss
from tidegate.store.open import open_store
from tidegate.store.patient import PatientStore
from tidegate.store.runs import OutcomeRecord, StepRecord, iso

TERMINATED, BROKEN = 143, 70
KILLED = (-9, 137)


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


@dataclass(frozen=True)
class Left:
    """What is known of a step while its command runs in another container, which must not be able to change it."""

    step: Step
    given: Mapping[str, Any]
    started: float


def main(argv: Sequence[str] | None = None) -> int:
    """Do one container's part of a step; return its exit code."""
    [part] = (sys.argv[1:] if argv is None else argv) or ["run"]
    parts: dict[str, Callable[[Site], int]] = {"run": run, "beside": beside, "end": end}
    try:
        return parts[part](Site(read_pod(), PatientStore(open_store(_store_uri()))))
    except TidegateError as e:
        return _say(e)


def _store_uri() -> str:
    if uri := os.environ.get("TIDEGATE_STORE"):
        return uri
    raise ConfigError(
        "the pod has no TIDEGATE_STORE", allowed="The Secret of the store, whole.", hint="tidegate doctor --engine argo"
    )


def _say(error: TidegateError) -> int:
    print(f"error[{error.code}]: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def run(site: Site) -> int:
    """Perform the pod's step from its inputs to its record."""
    return _recorded(site, lambda ready: _perform(site, ready))


def _recorded(
    site: Site,
    perform: Callable[[Ready], tuple[Step | None, Done]],
    ready: Ready | None = None,
    started: float | None = None,
) -> int:
    """Perform a step, of which a part may be over, and record how it ended, whatever it was."""
    started, step = started or time.time(), None
    try:
        ready = ready or site.ready()
        step, done = perform(ready)
        _tell_argo(site.pod, done)
    except TidegateError as e:
        done = Done(FAILED, error=e.as_json(), code=_say(e))
    except OSError as e:
        found = StepFailed(f"the pod's own disk: {e}", hint="Is an emptyDir full?", code="scratch")
        done = Done(FAILED, error=found.as_json(), code=_say(found))
    except Exception as e:  # a bug of ours is told, not lost with the pod
        traceback.print_exc()
        done = Done(FAILED, error={"code": "internal", "message": f"{type(e).__name__}: {e}"}, code=BROKEN)
    if done.state:
        _record(site, ready, step, done, time.time() - started)
    return done.code


def _perform(site: Site, ready: Ready) -> tuple[Step | None, Done]:
    executor = site.plan.executors[str(ready.task.component.body)]
    if isinstance(executor, Importer):
        return None, _kept(site, ready) or _import(site, ready, executor)
    step = _step(site, ready, executor)
    return step, _kept(site, ready) or _cached(site, step) or _run(site, step)


def _kept(site: Site, ready: Ready) -> Done | None:
    """The step's end before the run was resumed, if it had the same inputs and its outputs are whole."""
    record = site.runs.find_step(site.pod.run_id, site.pod.step)
    before = record and record.state == SUCCEEDED and iso(record.ended) < site.pod.created
    record = record if before else None
    outputs, damage = kept_outputs(record, ready, site.blobs)
    if damage:
        print(f"tidegate: what the step made is damaged, it runs again: {damage}", file=sys.stderr)
    if not outputs:
        return None
    print("tidegate: this step finished before the run was resumed", flush=True)
    return Done(SUCCEEDED, outputs, kept=record)


def _import(site: Site, ready: Ready, importer: Importer) -> Done:
    cache = site.cache if site.packed.use_cache else None
    resolver = early_resolver(ready, site.context)
    return Done(SUCCEEDED, imported(ready, importer, resolver, site.blobs, cache, Path.cwd()))


def _step(site: Site, ready: Ready, container: Container) -> Step:
    early = early_resolver(ready, site.context)
    parts = _key_parts(ready, container, early)
    return Step(ready, container, early.context, cache_key(site.plan.name, ready, parts), parts.digests())


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


def _cached(site: Site, step: Step) -> Done | None:
    if not site.packed.use_cache or not step.ready.task.cache:
        return None
    found = site.cache.lookup(step.key, site.blobs)
    if isinstance(found, Miss):
        if found.damaged:
            print(f"tidegate: a cache entry was damaged and is set aside: {found.reason}", file=sys.stderr)
        return None
    print(f"tidegate: cached, made by {found.step} of run {found.run}", flush=True)
    return Done(SUCCEEDED, from_cache(found.outputs), cached=True)


def _run(site: Site, step: Step) -> Done:
    folder = _fresh(site.pod.folder / "work")
    log = _log(site, folder)
    resolver = Resolver(_provision(site, step, folder), step.context, step.ready.extra)
    env = {**os.environ, **task_env(step.container, resolver), "PYTHONUNBUFFERED": "1"}
    child = Child(_command(step, resolver, folder), env, log)
    code = child.wait()
    if child.terminated:
        return _terminated(site, log)
    return _collected(site, step, resolver.files, folder, log, code)


def _terminated(site: Site, log: Path) -> Done:
    found = "the step was told to end: its pod was deleted, or a deadline passed"
    error = {"code": "step-terminated", "message": found}
    return Done(CANCELED, error=error, log=_keep_log(site, log), code=TERMINATED)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _provision(site: Site, step: Step, folder: Path) -> Mapping[str, Any]:
    interface = step.ready.task.component.interface
    provisioned = files.executor_input(interface, step.ready.inputs, folder, site.blobs)
    resolver = Resolver(provisioned, step.context, step.ready.extra)
    return with_task_config(interface, step.container, resolver)


def _log(site: Site, folder: Path) -> Path:
    """The log of this try, behind those of earlier ones."""
    log = folder.with_name("log")
    log.write_bytes(b"")
    if site.pod.attempt:
        earlier = site.runs.find_log(site.pod.run_id, site.pod.step)
        log.write_bytes(earlier + f"== attempt {site.pod.attempt + 1}\n".encode())
    return log


def _command(step: Step, resolver: Resolver, folder: Path) -> list[str]:
    if own := own_step(step.container):
        said = folder / "executor_input.json"
        said.write_text(json.dumps(resolver.files))
        code = ["--code_digest", own.code_digest] if own.code_digest else []
        asked = ["--executor_input", f"@{said}", "--function_to_execute", own.function, *code]
        return [sys.executable, "-m", "tidegate.author.step", *asked]
    return [w for t in (*step.container.command, *step.container.args) for w in resolver.words(t)]


def _collected(
    site: Site,
    step: Step,
    given: Mapping[str, Any],
    folder: Path,
    log: Path,
    code: int,
    *,
    within: Path | None = None,
) -> Done:
    secrets = forms(_secrets(step.container))
    redact_file(log, secrets)
    kept = _keep_log(site, log)
    if code:
        error = redact_error(_with_memory(files.failure(folder, log, code), step.container, code), secrets)
        return Done(FAILED, error=error, log=kept, code=code if code > 0 else 128 - code)
    outputs = files.collect(step.ready.task.component.interface, given, site.blobs, within)
    if step.ready.task.cache:
        site.cache.put(step.key, to_cache(outputs), run=site.pod.run_id, step=step.ready.path)
    return Done(SUCCEEDED, outputs, log=kept)


def _with_memory(error: dict[str, Any], container: Container, code: int) -> dict[str, Any]:
    """Say that it may have been memory where something was killed as the kernel kills beyond a limit."""
    limited = container.resources.get("resourceMemoryLimit") or container.resources.get("memoryLimit")
    if code not in KILLED or not limited or error.get("frames"):
        return error
    found = f"it was killed, as the kernel does beyond a limit of memory; the step's is {limited}"
    return {**error, "code": "step-memory", "message": found, "hint": "Raise set_memory_limit, or use less."}


def _secrets(container: Container) -> list[str]:
    pairs = [p for e in container.kubernetes.get("secretAsEnv", ()) for p in e.get("keyToEnv", ())]
    own = [os.environ[p["envVar"]] for p in pairs if p["envVar"] in os.environ]
    return own + [value for name, value in os.environ.items() if name.startswith(MASKED)]


def _keep_log(site: Site, log: Path) -> str:
    return site.runs.write_log(site.pod.run_id, site.pod.step, log)


def _tell_argo(pod: Pod, done: Done) -> None:
    """Leave what conditions and loops want to know where Argo fetches it."""
    if done.state != SUCCEEDED:
        return
    (pod.folder / "out").mkdir(exist_ok=True)
    for file, (kind, name, need) in pod.control.items():
        if kind == "artifact":
            text = count(len(done.outputs.artifacts.get(name, ())))
        else:
            text = control(done.outputs.parameters[name], need, f"the output {name!r} of {pod.step}")
        path = pod.folder / "out" / file
        path.unlink(missing_ok=True)  # a step could have left a link there
        path.write_text(text)


def _record(site: Site, ready: Ready | None, step: Step | None, done: Done, seconds: float) -> None:
    if done.kept:
        return
    record = StepRecord(
        path=site.pod.step,
        state=done.state,
        cached=done.cached,
        seconds=round(seconds, 3),
        key=step.key if step else "",
        parts=dict(step.parts) if step else {},
        inputs=ready.inputs.as_json() if ready else {},
        outputs=done.outputs.as_json(),
        error=dict(done.error) if done.error else None,
        log=done.log,
        attempts=site.pod.attempt + 1,
    )
    site.runs.step(site.pod.run_id, record)


def beside(site: Site) -> int:
    """Do what a step in somebody else's image needs, beside it; the step's end is the shim's to tell."""
    code, left = BROKEN, None
    with shim.alive(site.pod.folder):
        try:
            code, left = prepare(site)
        finally:
            if not left:
                shim.release(site.pod.folder, code)
                shim.leave([], site.pod.folder)
        if left:
            keep(site, left)
    return 0


def prepare(site: Site) -> tuple[int, Left | None]:
    """Find the inputs of a step in somebody else's image and leave its command for the shim.

    Returns:
        An exit code, and what ``keep`` has to know; None where there is nothing to run.
    """
    found: list[Left] = []

    def perform(ready: Ready) -> tuple[Step | None, Done]:
        executor = site.plan.executors[str(ready.task.component.body)]
        assert isinstance(executor, Container)
        step = _step(site, ready, executor)
        if done := _kept(site, ready) or _cached(site, step):
            return step, done
        folder = _fresh(site.pod.folder / "work")
        _log(site, folder)
        given = _provision(site, step, folder)
        resolver = Resolver(given, step.context, ready.extra)
        command = shim.short(_command(step, resolver, folder), site.pod.folder)
        shim.open_to_others(site.pod.folder)
        shim.leave(command, site.pod.folder, task_env(executor, resolver))
        found.append(Left(step, given, time.time()))
        return step, Done("")

    return _recorded(site, perform), found[0] if found else None


def keep(site: Site, left: Left) -> None:
    """Take what the command of somebody else's image left into the store, then let the shim end."""
    code, terminated = shim.ended(site.pod.folder)
    folder = site.pod.folder / "work"
    log = shim.plain(folder.with_name("log"))

    def perform(_: Ready) -> tuple[Step, Done]:
        if terminated:
            return left.step, _terminated(site, log)
        return left.step, _collected(site, left.step, left.given, folder, log, code, within=site.pod.folder)

    result = BROKEN
    try:
        result = _recorded(site, perform, left.step.ready, left.started)
    finally:
        shim.release(site.pod.folder, result)


def end(site: Site) -> int:
    """Write how the run ended, unless who started it was there to do so; a run is no failure for what this cannot do."""
    try:
        _end(site)
    except TidegateError as e:
        _say(e)
    return 0


def _end(site: Site) -> None:
    if site.runs.outcome(site.pod.run_id):
        return
    records = {r.path: r for r in site.runs.steps(site.pod.run_id)}
    found = outcome(site.plan, site.arguments, site.context, records, Ended(STATES.get(site.pod.phase, FAILED)))
    outputs = Values(found.parameters, found.artifacts).as_json()
    site.runs.finish(site.pod.run_id, OutcomeRecord(found.state, outputs, dict(found.error or {}) or None))
    print(f"tidegate: run {site.pod.run_id} ended {found.state}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
