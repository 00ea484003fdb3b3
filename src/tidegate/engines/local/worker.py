"""Perform one step: look in the cache, else run it as a process, and keep what it made."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tidegate.author.step import ERROR_FILE
from tidegate.engines.local import files
from tidegate.engines.local.command import PythonStep, python_step
from tidegate.engines.local.graph import Ready, Values
from tidegate.engines.local.process import Job, Launcher
from tidegate.errors import StepFailed, TidegateError
from tidegate.ir.placeholder import Placeholder, Template, as_text, render, substitute
from tidegate.plan.events import CANCELED, FAILED, SUCCEEDED, Notice, Report, StepLog
from tidegate.plan.key import key_parts, named_key
from tidegate.plan.model import Container, Executor, Importer
from tidegate.plan.value import Artifact, artifact_from_json
from tidegate.store.blobs import Blobs
from tidegate.store.cache import Cache, Miss
from tidegate.store.runs import Runs

POLL = 0.05
LONGEST_LINE = 65536
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


@dataclass(frozen=True)
class Done:
    """How one step ended."""

    state: str
    outputs: Values = field(default_factory=Values)
    cached: bool = False
    seconds: float = 0.0
    error: Mapping[str, Any] | None = None
    key: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    attempts: int = 1


@dataclass(frozen=True)
class Site:
    """Everything a step needs of the run around it."""

    run_id: str
    blobs: Blobs
    cache: Cache
    runs: Runs
    launcher: Launcher
    root: Path
    scratch: Path
    report: Report
    cancel: threading.Event
    context: Mapping[str, str]
    pipeline: str
    use_cache: bool = True
    running: set[int] = field(default_factory=set)


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
        if isinstance(executor, Importer):
            done = Done(SUCCEEDED, Values({}, {"artifact": [_import(site, ready, executor)]}))
        else:
            done = _cached(site, ready, executor)
    except TidegateError as e:
        done = Done(FAILED, error=e.as_json())
    except OSError as e:
        hint = "Free space there, or set TMPDIR to another folder."
        done = Done(
            FAILED, error={"code": "scratch", "message": f"the scratch folder {site.scratch}: {e}", "hint": hint}
        )
    return replace(done, seconds=time.monotonic() - started)


def _cached(site: Site, ready: Ready, container: Container) -> Done:
    task = ready.task
    env = {n: _words(t, site, ready)[0] for n, t in container.env.items()}
    command = (*container.command, *container.args)
    parts = key_parts(task.component.interface, command, env, ready.inputs.parameters, ready.inputs.artifacts)
    key = named_key(site.pipeline, task.component, task.cache_key) if task.cache_key else parts.key
    if site.use_cache and task.cache:
        found = site.cache.lookup(key, site.blobs)
        if not isinstance(found, Miss):
            return Done(SUCCEEDED, _from_cache(found.outputs), True, key=key, parts=parts.digests())
        if found.damaged:
            site.report(Notice(f"{ready.path}: a cache entry was damaged and is set aside: {found.reason}"))
    done = _attempts(site, ready, python_step(container), env)
    if done.state == SUCCEEDED and task.cache:
        site.cache.put(key, _to_cache(done.outputs), run=site.run_id, step=ready.path)
    return replace(done, key=key, parts=parts.digests())


def _attempts(site: Site, ready: Ready, step: PythonStep, env: Mapping[str, str]) -> Done:
    retry = ready.task.retry
    for attempt in range(retry.times + 1):
        if attempt and site.cancel.wait(retry.delay(attempt)):
            return Done(CANCELED)
        done = _run(site, ready, step, env)
        if done.state != FAILED:
            break
    return replace(done, attempts=attempt + 1)


def _run(site: Site, ready: Ready, step: PythonStep, env: Mapping[str, str]) -> Done:
    folder = site.scratch / str(ready.id)
    shutil.rmtree(folder, ignore_errors=True)
    provisioned = files.executor_input(ready.task.component.interface, ready.inputs, folder, site.blobs)
    log = folder / "log.txt"
    log.touch()
    job = Job(
        _arguments(step, provisioned, folder),
        folder,
        _env(site, ready, env),
        log,
        step.imports(site.root),
        _threads(site),
    )
    code = _wait(site, ready.path, job)
    key = site.runs.write_log(site.run_id, ready.path, log)
    if site.cancel.is_set():
        done = Done(CANCELED, log=key)
    elif code:
        done = Done(FAILED, error=_failure(folder, log, code), log=key)
    else:
        done = _collected(site, ready, provisioned, key)
    shutil.rmtree(folder, ignore_errors=True)
    return done


def _collected(site: Site, ready: Ready, provisioned: Mapping[str, Any], log: str) -> Done:
    try:
        return Done(SUCCEEDED, files.collect(ready.task.component.interface, provisioned, site.blobs), log=log)
    except StepFailed as e:
        return Done(FAILED, error=e.as_json(), log=log)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        found = f"what the step left cannot be read: {type(e).__name__}: {e}"
        return Done(FAILED, error={"code": "output-unreadable", "message": found}, log=log)


def _arguments(step: PythonStep, provisioned: Mapping[str, Any], folder: Path) -> list[str]:
    input_file = folder / "executor_input.json"
    input_file.write_text(json.dumps(provisioned))
    arguments = ["--executor_input", f"@{input_file}", "--function_to_execute", step.function]
    if step.source:
        source = folder / "ephemeral_component.py"
        source.write_text(step.source)
        return [*arguments, "--component_module_path", str(source)]
    return [*arguments, "--code_digest", step.code_digest] if step.code_digest else arguments


def _env(site: Site, ready: Ready, env: Mapping[str, str]) -> dict[str, str]:
    limits = {v: os.environ.get(v, str(_threads(site))) for v in _THREAD_VARIABLES}
    ours = {
        "TIDEGATE_RUN_ID": site.run_id,
        "TIDEGATE_STEP": ready.path,
        "TIDEGATE_PROJECT": str(site.root),
        "TIDEGATE_STORE": site.blobs.store.uri,
    }
    return {**os.environ, **limits, "PYTHONUNBUFFERED": "1", **env, **ours}


def _threads(site: Site) -> int:
    """The cores' share of one running step, unless the user said how many threads there shall be."""
    if (said := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        return int(said)
    return max(1, (os.cpu_count() or 1) // max(1, len(site.running)))


def _wait(site: Site, path: str, job: Job) -> int:
    """Wait for a step's end, passing on what it logs; kill it when the run is cancelled."""
    process = site.launcher.start(job)
    with job.log.open("rb") as log:
        while (code := process.wait(POLL)) is None:
            _pass_on(site, path, log)
            if site.cancel.is_set():
                process.kill()
        _pass_on(site, path, log, ended=True)
    return code


def _pass_on(site: Site, path: str, log: Any, *, ended: bool = False) -> None:
    # a step that writes faster than it can be shown must not keep the run from hearing that it was cancelled
    while not site.cancel.is_set() and (line := log.readline(LONGEST_LINE)):
        if not line.endswith(b"\n") and len(line) < LONGEST_LINE and not ended:
            log.seek(-len(line), os.SEEK_CUR)  # the rest of the line is still to come
            return
        site.report(StepLog(path, line.decode(errors="replace").rstrip("\n")))


def _failure(folder: Path, log: Path, code: int) -> dict[str, Any]:
    left = folder / "outputs" / ERROR_FILE
    if left.exists():
        said: dict[str, Any] = json.loads(left.read_text())
        inner = said.get("tidegate")
        if inner:
            return {**inner}
        return {"code": "step-failed", "message": f"{said['type']}: {said['message']}", "frames": said["frames"]}
    how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
    tail = log.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()[-5:]
    return {"code": "step-died" if code < 0 else "step-failed", "message": f"the step {how}", "tail": tail}


def _words(template: Template, site: Site, ready: Ready) -> list[str]:
    parameters = ready.inputs.parameters
    return render(template, lambda p: _placeholder(p, site, ready), lambda n: n in parameters) or [""]


def _placeholder(placeholder: Placeholder, site: Site, ready: Ready) -> Any:
    if placeholder.form == "input_parameter":
        return ready.inputs.parameters.get(placeholder.name, "")
    if placeholder.form == "context":
        context = {
            **site.context,
            "pipeline_task_name": ready.task.name,
            "pipeline_task_uuid": f"{site.run_id}-{ready.id}",
        }
        return context.get(placeholder.name, "")
    raise StepFailed(f"an environment variable of {ready.path} holds a placeholder of form {placeholder.form}")


def _import(site: Site, ready: Ready, importer: Importer) -> Artifact:
    parameters = ready.inputs.parameters
    uri = as_text(parameters[importer.parameter]) if importer.parameter else ""
    if importer.uri:
        uri = _words(importer.uri, site, ready)[0]
    metadata = substitute(importer.metadata, lambda p: _placeholder(p, site, ready))
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        return Artifact(uri.rstrip("/").rpartition("/")[2], uri, importer.type, metadata=metadata)
    path = site.root / unquote(parts.path) if parts.scheme else site.root / uri
    if not path.exists():
        raise StepFailed(
            f"there is nothing to import at {uri}", allowed="A file or folder that exists.", code="import-missing"
        )
    content = site.blobs.add(path)
    return Artifact(path.name, uri, importer.type, content.digest, content.kind, content.size, metadata)


def _to_cache(outputs: Values) -> dict[str, Any]:
    artifacts = [{"output": n, **a.as_json()} for n, found in outputs.artifacts.items() for a in found]
    return {"parameters": dict(outputs.parameters), "artifacts": artifacts}


def _from_cache(body: Mapping[str, Any]) -> Values:
    artifacts: dict[str, list[Artifact]] = {}
    for said in body["artifacts"]:
        artifacts.setdefault(said["output"], []).append(
            artifact_from_json({k: v for k, v in said.items() if k != "output"})
        )
    return Values(body["parameters"], artifacts)
