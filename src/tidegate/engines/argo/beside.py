"""The sidecar of a step in somebody else's image: ``python -m tidegate.engines.argo.beside``.

It finds the inputs, leaves the command for the shim that wraps it in its own container, and takes what it made into the
store.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tidegate.engines.argo import shim
from tidegate.engines.argo.launcher import launch, tell_argo
from tidegate.engines.argo.site import Site
from tidegate.engines.graph import Ready
from tidegate.engines.pod import step as pod_step
from tidegate.engines.pod.step import BROKEN, Done, Step, recorded
from tidegate.engines.resolve import Resolver
from tidegate.engines.task_config import task_env
from tidegate.plan.model import Container


@dataclass(frozen=True)
class Left:
    """What is known of a step while its command runs in another container, which must not be able to change it."""

    step: Step
    given: Mapping[str, Any]
    started: float


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

    return recorded(site, perform, partial(tell_argo, site.pod)), found[0] if found else None


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
        result = recorded(site, perform, partial(tell_argo, site.pod), left.step.ready, left.started)
    finally:
        shim.release(site.pod.folder, result)


if __name__ == "__main__":
    launch(beside)
