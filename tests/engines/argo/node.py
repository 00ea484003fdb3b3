"""What the controller keeps of a workflow: its nodes, and what became of their pods."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]
ENDED = ("Succeeded", "Failed", "Error")
FULFILLED = (*ENDED, "Skipped", "Omitted")
FAILED = ("Failed", "Error")


class ControllerError(Exception):
    """A node cannot go on."""


class Requeue(Exception):
    """Something is not there yet; the controller will look again."""


class Busy(Exception):
    """As many run as may."""


@dataclass(eq=False)
class Node:
    """One entry of ``status.nodes``; ``name`` is unique, ``children`` and ``outbound`` are names."""

    name: str
    display: str
    type: str
    template: str
    boundary: str
    phase: str
    message: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] | None = None
    artifacts: dict[str, Any] = field(default_factory=dict)
    children: list[str] = field(default_factory=list)
    outbound: list[str] = field(default_factory=list)
    retried: bool = False

    @property
    def fulfilled(self) -> bool:
        """Nothing more will come of it."""
        return self.phase in FULFILLED


@dataclass(frozen=True)
class PodResult:
    """What became of a pod: its phase, the files that its output parameters name, and its artifacts."""

    phase: str = "Succeeded"
    outputs: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Any] = field(default_factory=dict)


Pod = Callable[[str, Document, dict[str, str], Node], PodResult]
