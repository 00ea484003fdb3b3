"""What runs in the pods of a run: ``python -m tidegate.engines.argo.launcher [run|beside|end]``.

``run`` is a whole step in one container of an image of ours. Where the image is somebody else's, the command is wrapped
by the shim, and ``beside`` is a sidecar that finds the inputs, leaves the command for the shim, and takes what it made
into the store. ``end`` writes how the run ended.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tidegate.engines.argo import shim
from tidegate.engines.argo.control import control, count
from tidegate.engines.argo.nodes import STATES
from tidegate.engines.argo.outcome import Ended, outcome
from tidegate.engines.argo.pod import Pod, read_pod
from tidegate.engines.argo.site import Site
from tidegate.engines.graph import Ready
from tidegate.engines.pod import step as pod_step
from tidegate.engines.pod.step import BROKEN, Done, Step, recorded, say
from tidegate.engines.resolve import Resolver
from tidegate.engines.task_config import task_env
from tidegate.engines.values import Values
from tidegate.errors import ConfigError, TidegateError
from tidegate.plan.events import FAILED, SUCCEEDED
from tidegate.plan.model import Container
from tidegate.store.open import open_store
from tidegate.store.patient import PatientStore
from tidegate.store.runs import OutcomeRecord


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
        return say(e)


def _store_uri() -> str:
    if uri := os.environ.get("TIDEGATE_STORE"):
        return uri
    raise ConfigError(
        "the pod has no TIDEGATE_STORE", allowed="The Secret of the store, whole.", hint="tidegate doctor --engine argo"
    )


def run(site: Site) -> int:
    """Perform the pod's step from its inputs to its record."""
    return recorded(site, lambda ready: pod_step.perform(site, ready), partial(_tell_argo, site.pod))


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


def beside(site: Site) -> int:
    """Do what a step in somebody else's image needs, beside it; the step's end is the shim's to tell."""
    told = shim.listen()
    code, left = BROKEN, None
    shim.install(site.pod.shim, site.pod.folder)
    with shim.alive(site.pod.folder):
        try:
            code, left = prepare(site)
        finally:
            if not left:
                shim.release(site.pod.folder, code)
                shim.leave([], site.pod.folder)
        if left:
            keep(site, left, told)
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
        step = pod_step.of_container(site, ready, executor)
        if done := pod_step.kept(site, ready) or pod_step.cached(site, step):
            return step, done
        folder = pod_step.fresh(site.pod.folder / "work")
        pod_step.open_log(site, folder)
        given = pod_step.provision(site, step, folder)
        resolver = Resolver(given, step.context, ready.extra)
        command = shim.short(pod_step.command(step, resolver, folder), site.pod.folder)
        shim.open_to_others(site.pod.folder)
        shim.leave(command, site.pod.folder, task_env(executor, resolver))
        found.append(Left(step, given, time.time()))
        return step, Done("")

    return recorded(site, perform, partial(_tell_argo, site.pod)), found[0] if found else None


def keep(site: Site, left: Left, told: Sequence[float]) -> None:
    """Take what the command of somebody else's image left into the store, then let the shim end."""
    code, terminated = shim.ended(site.pod.folder, told)
    folder = site.pod.folder / "work"
    log = shim.plain(folder.with_name("log"))

    def perform(_: Ready) -> tuple[Step, Done]:
        if terminated:
            return left.step, pod_step.terminated(site, log)
        return left.step, pod_step.collected(site, left.step, left.given, folder, log, code, within=site.pod.folder)

    result = BROKEN
    try:
        result = recorded(site, perform, partial(_tell_argo, site.pod), left.step.ready, left.started)
    finally:
        shim.release(site.pod.folder, result)


def end(site: Site) -> int:
    """Write how the run ended, unless who started it was there to do so; a run is no failure for what this cannot do."""
    try:
        _end(site)
    except TidegateError as e:
        say(e)
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
