"""The details of a run as its steps: KFP tells Argo's nodes by their last names, and the ids of those below them.

An id is the workflow's name and a hash of the node's whole name (Argo: ``workflow.NodeID``, FNV-1a of 32 bits), so a
node whose whole name is known is found again among those of the same last name by what is below it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tidegate.engines.kfp.backend import Detail
from tidegate.engines.kfp.nodes import ON_EXIT
from tidegate.plan.events import FAILED, RUNNING, SKIPPED, SUCCEEDED
from tidegate.plan.model import Dag, Plan, Task

CACHED = "CACHED"
_NONE = Detail("", "")
_STATES = {"SUCCEEDED": SUCCEEDED, "FAILED": FAILED, "RUNNING": RUNNING, "SKIPPED": SKIPPED, "CANCELED": FAILED}


@dataclass(frozen=True)
class StepDetail:
    """What KFP says of a step: its state ('' while it has not begun), and what it is served from, times in seconds."""

    path: str
    task: Task
    state: str
    started: float = 0.0
    ended: float = 0.0
    error: str = ""

    @property
    def seconds(self) -> float:
        """How long it took, 0 while it goes on."""
        return max(0.0, self.ended - self.started) if self.ended else 0.0


def node_id(workflow: str, name: str) -> str:
    """Argo's id of a node by its whole name."""
    found = 0x811C9DC5
    for byte in name.encode():
        found = ((found ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{workflow}-{found}"


@dataclass(frozen=True)
class Tree:
    """The nodes of a run."""

    details: Sequence[Detail]

    @cached_property
    def workflow(self) -> str:
        """The workflow's name, empty while it has no nodes."""
        prefixes = {pod.rpartition("-")[0] for pod in self._below}
        return next((d.name for d in self.details if d.name in prefixes), "")

    @cached_property
    def _below(self) -> set[str]:
        return {pod for d in self.details for pod in d.pods}

    @cached_property
    def _named(self) -> Mapping[str, list[Detail]]:
        found: dict[str, list[Detail]] = {}
        for detail in self.details:
            found.setdefault(detail.name, []).append(detail)
        return found

    def has(self, name: str) -> bool:
        """Whether some node has this one below it; ``name`` is without the workflow."""
        return node_id(self.workflow, f"{self.workflow}.{name}") in self._below

    def detail(self, name: str, below: str, *, alone: bool = True) -> Detail | None:
        """The node of this whole name, known by one that is below it.

        Args:
            name: the whole name, without the workflow.
            below: the whole name of what is below it.
            alone: no other node may ever have its last name, so that it is known by that too.
        """
        named = self._named.get(name.rpartition(".")[2], [])
        child = node_id(self.workflow, f"{self.workflow}.{below}")
        return next((d for d in named if child in d.pods), named[0] if alone and len(named) == 1 else None)

    def _childless(self, name: str, driver: Detail | None) -> Detail | None:
        """The node of a step that was served from KFP's cache: nothing is below it, and its driver has ended well."""
        below = node_id(self.workflow, f"{self.workflow}.{name}")
        named = [d for d in self._named.get(name.rpartition(".")[2], []) if not d.pods]
        known = driver and driver.state == "SUCCEEDED" and below in driver.pods
        return named[0] if known and {d.state for d in named} == {"SKIPPED"} else None

    def steps(self, plan: Plan) -> Iterator[StepDetail]:
        """Yield the steps that KFP has nodes for; those it has not come to are not there."""
        if self.workflow and isinstance(plan.root.body, Dag):
            yield from self._dag(plan.root.body, "root", "", Counter(_names(plan.root.body)))

    def _dag(self, dag: Dag, name: str, path: str, times: Mapping[str, int]) -> Iterator[StepDetail]:
        for task in dag.tasks.values():
            inner, body = self._name(task, name), task.component.body
            if not isinstance(body, Dag):
                alone = times[task.name] == 1 and "[" not in path
                yield from self._step(task, inner, path + task.name, alone=alone)
            elif not task.loop:
                yield from self._dag(body, inner, f"{path}{task.name}/", times)
            else:
                for index in self._turns(inner):
                    turn = f"{inner}.iteration-iterations({index}:{index}).iteration-item"
                    yield from self._dag(body, turn, f"{path}{task.name}[{index}]/", times)

    def _name(self, task: Task, dag: str) -> str:
        """The name of a task's node: that of a hook is below the task that ended."""
        hooks = [f"{dag}.{before}.{ON_EXIT}.{task.name}" for before in task.after] if task.always else []
        there = (n for n in hooks if self.has(n) or self.has(f"{n}-driver"))
        return next(there, (hooks or [f"{dag}.{task.name}"])[0])

    def _turns(self, loop: str) -> Iterator[int]:
        index = 0
        while self.has(f"{loop}.iteration-iterations({index}:{index})"):
            yield index
            index += 1

    def _step(self, task: Task, name: str, path: str, *, alone: bool) -> Iterator[StepDetail]:
        driver = self.detail(f"{name}-driver", name, alone=alone)
        found = self.detail(name, f"{name}.executor", alone=alone) or self._childless(name, driver)
        if not driver and not found:
            return
        state = _STATES.get(found.state, "") if found else ""
        if found and state == SKIPPED and driver and driver.state == "SUCCEEDED":
            state = CACHED  # its driver ran, and said that there is nothing to do
        if driver and driver.state == "FAILED":
            state = FAILED
        error = (found.error if found else "") or (driver.error if driver else "")
        started = (driver or found or _NONE).started
        yield StepDetail(path, task, state, started, (found or driver or _NONE).ended, error)


def _names(dag: Dag) -> Iterator[str]:
    for task in dag.tasks.values():
        yield task.name
        if isinstance(task.component.body, Dag):
            yield from _names(task.component.body)
