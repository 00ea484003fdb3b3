"""What tidegate asks of a KFP backend: a handful of verbs on plain data.

``client.py`` has the real one, through kfp's own client; ``memory.py`` one in memory, which is used wherever a test
needs one. Every verb raises ``ClusterError`` when the API cannot be reached, does not let us, or refuses something,
and ``NotFound`` for what is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

PENDING, CANCELING = "PENDING", "CANCELING"
FINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


@dataclass(frozen=True)
class Version:
    """A pipeline version: its pipeline, its id and its name there."""

    pipeline_id: str
    id: str
    name: str


@dataclass(frozen=True)
class Detail:
    """A node of a run as the API tells of it; ``pods`` are those below it, times are seconds since the epoch, 0 for none."""

    name: str
    state: str
    id: str = ""
    started: float = 0.0
    ended: float = 0.0
    pods: Sequence[str] = ()
    error: str = ""


@dataclass(frozen=True)
class Start:
    """A run as it is wanted.

    Attributes:
        name: its display name, by which it is found again.
        experiment: the experiment's id.
        version: the pipeline version.
        parameters: JSON values.
        service_account: of the steps; the server's default where empty.
    """

    name: str
    experiment: str
    version: Version
    parameters: Mapping[str, Any] = field(default_factory=dict)
    service_account: str = ""


@dataclass(frozen=True)
class BackendRun:
    """A run as it stands; ``details`` only where it was asked for by its id."""

    id: str
    name: str
    state: str
    created: float = 0.0
    finished: float = 0.0
    error: str = ""
    schedule: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    details: Sequence[Detail] = ()


@dataclass(frozen=True)
class Recurrence:
    """When a recurring run starts: six fields of cron, seconds first, or every so many seconds; one of them."""

    cron: str = ""
    every: int = 0
    concurrency: int = 1
    catch_up: bool = False


@dataclass(frozen=True)
class Recurring:
    """A recurring run as it stands.

    Attributes:
        enabled: whether it starts runs.
        description: what we wrote there.
        trouble: what the server says is wrong with it.
    """

    id: str
    name: str
    experiment: str
    version: Version
    when: Recurrence
    enabled: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)
    service_account: str = ""
    description: str = ""
    created: float = 0.0
    trouble: str = ""


class Backend(Protocol):
    """A KFP backend, as somebody who may do something there."""

    host: str

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, which is made where it is not there."""

    def find_experiment(self, name: str) -> str | None:
        """Return the id of an experiment, None where it is not there."""

    def version(self) -> str:
        """The version of the server, empty where it does not tell."""

    def find_version(self, pipeline: str, prefix: str) -> Version | None:
        """Return the newest version of a pipeline whose name begins so, None where there is none."""

    def upload(self, pipeline: str, name: str, package: str, description: str = "") -> Version:
        """Make a version of a pipeline, and the pipeline where it is not there; ``package`` is IR as YAML."""

    def start(self, start: Start) -> BackendRun:
        """Start a run."""

    def find_run(self, experiment: str, name: str) -> BackendRun | None:
        """Return the newest run of this name in an experiment, None where there is none."""

    def run(self, run_id: str) -> BackendRun:
        """Return a run with its details."""

    def terminate(self, run_id: str) -> None:
        """End a run now."""

    def retry(self, run_id: str) -> None:
        """Go on with a run that failed: what succeeded stays."""

    def runs(self, schedule: str, limit: int) -> Iterator[BackendRun]:
        """Yield the newest runs of a recurring run first."""

    def recurring(self, experiment: str) -> Iterator[Recurring]:
        """Yield the recurring runs of an experiment."""

    def recur(self, wanted: Recurring) -> Recurring:
        """Make a recurring run; its id is the server's to give."""

    def enable(self, recurring_id: str, enabled: bool) -> None:
        """Let a recurring run start runs, or not."""

    def remove(self, recurring_id: str) -> None:
        """Delete a recurring run; absent is fine."""
