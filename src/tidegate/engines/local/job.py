"""The process of one step: its command line, its environment, and what its end says."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tidegate.engines.local.command import Asked, PythonStep, Shell
from tidegate.engines.local.host import Host, python_first
from tidegate.engines.local.kubernetes import Local
from tidegate.engines.local.limits import Limits
from tidegate.engines.local.packages import shared_modules
from tidegate.engines.local.process import Job
from tidegate.engines.resolve import Resolver
from tidegate.engines.task_config import task_env, with_task_config
from tidegate.plan.model import Container, Interface

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


@dataclass(frozen=True)
class Given:
    """What a step's process is made of, apart from its command."""

    run_id: str
    path: str
    host: Host
    store: str
    folder: Path
    resolver: Resolver
    local: Local
    limits: Limits
    threads: int
    interface: Interface
    log: Path


def make_job(given: Given, container: Container, asked: Asked, python: Path | None) -> Job:
    """Make the process of a step.

    Args:
        given: its folder, limits and settings.
        container: its command and environment, by template.
        asked: what the command is; never a claim.
        python: the interpreter of an environment of its own, where it has one.
    """
    env = _task_env(given, container)
    if isinstance(asked, PythonStep):
        args, imports = _python_arguments(given, container, asked), asked.imports(given.host.root)
        job = _job(given, _env(given, env), args=args, imports=imports)
        return _elsewhere(job, python) if python else job
    assert isinstance(asked, Shell)
    command, args = ([w for t in part for w in given.resolver.words(t)] for part in (container.command, container.args))
    if asked.runtime:
        return _container_job(given, asked, command, args, env)
    full = _env(given, env)
    full["PATH"] = python_first(full, Path(sys.executable).parent)
    return _job(given, full, program=[*asked.prefix, *command, *args])


def _task_env(given: Given, container: Container) -> dict[str, str]:
    return {**task_env(container, given.resolver), **given.local.env}


def _job(given: Given, env: Mapping[str, str], **more: Any) -> Job:
    mounts = tuple((str(m.source), m.target, m.read_only) for m in given.local.mounts)
    return Job(given.folder, env, given.log, given.threads, mounts=mounts, cores=given.limits.cores, **more)


def _elsewhere(job: Job, python: Path) -> Job:
    """The same Python step in another environment."""
    own = {"PYTHONPATH": str(shared_modules(python)), "VIRTUAL_ENV": str(python.parents[1])}
    env = {**job.env, **own, "PATH": python_first(job.env, python.parent)}
    return replace(job, env=env, program=[str(python), "-m", "tidegate.author.step", *job.args])


def _container_job(given: Given, asked: Shell, command: list[str], args: list[str], env: Mapping[str, str]) -> Job:
    name = f"tidegate-{given.run_id}-{given.folder.name}"
    volumes = [(str(given.folder), str(given.folder), False)]
    volumes += [(str(m.source), m.target, m.read_only) for m in given.local.mounts]
    said = [asked.runtime, "run", "--rm", "--name", name]
    said += [w for s, t, read_only in volumes for w in ("--volume", f"{s}:{t}{':ro' if read_only else ''}")]
    said += [w for n in env for w in ("--env", n)]  # values come from the client's environment, not its arguments
    said += [f"--memory={int(given.limits.memory)}"] if given.limits.memory else []
    said += [f"--cpus={given.limits.cores:g}"] if given.limits.cores else []
    said += ["--entrypoint", command[0]] if command else []
    program = [*said, asked.image, *command[1:], *args]
    cleanup = [asked.runtime, "kill", name]
    return Job(given.folder, {**os.environ, **env}, given.log, given.threads, program=program, cleanup=cleanup)


def _python_arguments(given: Given, container: Container, step: PythonStep) -> list[str]:
    provisioned = with_task_config(given.interface, container, given.resolver)
    input_file = given.folder / "executor_input.json"
    input_file.write_text(json.dumps(provisioned))
    arguments = ["--executor_input", f"@{input_file}", "--function_to_execute", step.function]
    if step.source:
        source = given.folder / "ephemeral_component.py"
        source.write_text(given.resolver.text(step.source))
        return [*arguments, "--component_module_path", str(source)]
    return [*arguments, "--code_digest", step.code_digest] if step.code_digest else arguments


def _env(given: Given, env: Mapping[str, str]) -> dict[str, str]:
    limits = {v: os.environ.get(v, str(given.threads)) for v in _THREAD_VARIABLES}
    ours = {
        "TIDEGATE_RUN_ID": given.run_id,
        "TIDEGATE_STEP": given.path,
        "TIDEGATE_PROJECT": str(given.host.root),
        "TIDEGATE_STORE": given.store,
    }
    return {**os.environ, **limits, "PYTHONUNBUFFERED": "1", **env, **ours}
