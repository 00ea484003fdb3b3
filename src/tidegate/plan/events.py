"""What an engine reports while it runs, and what it leaves: one vocabulary for every engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidegate.plan.value import Artifact

RUNNING, SUCCEEDED, FAILED, SKIPPED, CANCELED = "RUNNING", "SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"


@dataclass(frozen=True)
class StepStarted:
    """A step left the queue."""

    step: str


@dataclass(frozen=True)
class StepLog:
    """A line a running step wrote."""

    step: str
    line: str


@dataclass(frozen=True)
class StepFinished:
    """A step ended: state, seconds it took, why it failed or was skipped.

    Attributes:
        cached: this run did not do it: the cache had it, or an earlier try of the run.
        kept: an earlier try of the run had finished it.
    """

    step: str
    state: str
    cached: bool = False
    seconds: float = 0.0
    error: Mapping[str, Any] | None = None
    note: str = ""
    kept: bool = False


@dataclass(frozen=True)
class Notice:
    """Something the user should know that stops nothing (a damaged cache entry was set aside …)."""

    text: str


Event = StepStarted | StepLog | StepFinished | Notice
Report = Callable[[Event], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run_id: str
    state: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Sequence[Artifact]] = field(default_factory=dict)
    steps: Sequence[StepFinished] = ()
    error: Mapping[str, Any] | None = None
    seconds: float = 0.0
