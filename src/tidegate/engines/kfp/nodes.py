"""What KFP calls a step: Argo's name of its node, read as the step's path.

KFP compiles a dag to nested templates, a loop to ``iteration-iterations(2:2).iteration-item``, and a task's container
to ``TASK.executor``: ``fraud-x7k.root.for-loop-1.iteration-iterations(2:2).iteration-item.train.executor(1)`` is the
second try of ``for-loop-1[2]/train``. A task that runs when another has ended, however it did, is a hook of that one:
``root.exit-handler-1.onExit.told.executor`` is ``told``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tidegate.errors import StepFailed

_ITERATION = re.compile(r"iteration-iterations\((\d+):.*\)")
_EXECUTOR = re.compile(r"executor(?:\((\d+)\))?")
_ITEM = "iteration-item"
ON_EXIT = "onExit"  # KFP makes a hook of a task that runs however another ended, and names it below that one


@dataclass(frozen=True)
class Node:
    """A step by its path, and which try of it this is: 0 is the first."""

    path: str
    attempt: int = 0


def node_of(name: str) -> Node:
    """Read the name of the node of a step's container.

    Raises:
        StepFailed: it names none (code ``kfp-node``).
    """
    _, root, inner = name.partition(".root.")
    parts = inner.split(".")
    executor = _EXECUTOR.fullmatch(parts.pop())
    if not root or not executor or not parts:
        raise StepFailed(
            f"the pod belongs to the node {name[:200]!r}",
            allowed="A container of a task, as KFP compiles it: WORKFLOW.root.TASK.executor.",
            code="kfp-node",
        )
    return Node("/".join(_steps(parts)), int(executor[1] or 0))


def _steps(parts: list[str]) -> list[str]:
    path: list[str] = []
    for part in parts:
        if path and (turn := _ITERATION.fullmatch(part)):
            path[-1] += f"[{turn[1]}]"
        elif path and part == ON_EXIT:
            path.pop()
        elif not (path and part == _ITEM and path[-1].endswith("]")):
            path.append(part)
    return path
