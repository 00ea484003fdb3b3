"""The details of a run as its steps: KFP tells Argo's nodes by their last names, and the ids of those below them.

An id is the workflow's name and a hash of the node's whole name (Argo: ``workflow.NodeID``, FNV-1a of 32 bits), so a
node whose whole name is known is found again among those of the same last name by what is below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tidegate.engines.kfp.backend import Detail
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

    def detail(self, name: str, below: str) -> Detail | None:
        """The node of this whole name, known by one that is below it, or by being the only one of its last name."""
        named = self._named.get(name.rpartition(".")[2], [])
        child = node_id(self.workflow, f"{self.workflow}.{below}")
        return next((d for d in named if child in d.pods), named[0] if len(named) == 1 else None)

    def steps(self, plan: Plan) -> Iterator[StepDetail]:
        """Yield the steps that KFP has nodes for; those it has not come to are not there."""
        if self.workflow and isinstance(plan.root.body, Dag):
            yield from self._dag(plan.root.body, "root", "")

    def _dag(self, dag: Dag, name: str, path: str) -> Iterator[StepDetail]:
        for task in dag.tasks.values():
            inner, body = f"{name}.{task.name}", task.component.body
            if not isinstance(body, Dag):
                yield from self._step(task, inner, path + task.name)
            elif not task.loop:
                yield from self._dag(body, inner, f"{path}{task.name}/")
            else:
                for index in self._turns(inner):
                    turn = f"{inner}.iteration-iterations({index}:{index}).iteration-item"
                    yield from self._dag(body, turn, f"{path}{task.name}[{index}]/")

    def _turns(self, loop: str) -> Iterator[int]:
        index = 0
        while self.has(f"{loop}.iteration-iterations({index}:{index})"):
            yield index
            index += 1

    def _step(self, task: Task, name: str, path: str) -> Iterator[StepDetail]:
        driver = self.detail(f"{name}-driver", name)
        found = self.detail(name, f"{name}.executor")
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
