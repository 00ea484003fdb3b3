"""The plan of a pipeline: what kfp's PipelineSpec means, as frozen data, with conditions and placeholders parsed.

A ``Plan`` has a root ``Component``. A component has an ``Interface`` and a body: a ``Dag`` of tasks, or the digest of
an executor in ``Plan.executors`` (identical executors are stored once). A ``Task`` calls a component with ``Source``s,
perhaps under a ``Condition``, in a ``Loop``, with a ``Retry``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.ir.condition import Condition
from tidegate.ir.placeholder import Template


@dataclass(frozen=True)
class Parameter:
    """A declared parameter. ``default`` is None where there is none; ``literals`` are the only values allowed."""

    type: str
    optional: bool = False
    default: Any = None
    literals: tuple[Any, ...] = ()


@dataclass(frozen=True)
class ArtifactSlot:
    """A declared artifact, or list of artifacts."""

    type: str
    optional: bool = False
    is_list: bool = False


@dataclass(frozen=True)
class Interface:
    """What goes into a component and what comes out of it."""

    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactSlot] = field(default_factory=dict)
    output_parameters: Mapping[str, Parameter] = field(default_factory=dict)
    output_artifacts: Mapping[str, ArtifactSlot] = field(default_factory=dict)


@dataclass(frozen=True)
class Constant:
    """A value known when compiling; it may hold placeholders."""

    value: Any
    has_placeholder: bool = False


@dataclass(frozen=True)
class FromInput:
    """An input of the surrounding component; ``path`` picks keys out of a JSON value."""

    name: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class FromTask:
    """An output of a sibling task."""

    task: str
    output: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class FinalStatus:
    """How a sibling task ended, for exit handlers."""

    task: str


Source = Constant | FromInput | FromTask | FinalStatus


@dataclass(frozen=True)
class Loop:
    """A task run once per item.

    Attributes:
        over: ``parameter`` or ``artifact``.
        item: the component input that holds the item.
        raw: the items where they are constant, else None.
        source: the task input that holds the items, where they are not.
        limit: iterations at a time; 0 means no limit.
    """

    over: str
    item: str
    raw: tuple[Any, ...] | None = None
    source: str = ""
    limit: int = 0


@dataclass(frozen=True)
class Retry:
    """How often a failed task is tried again, and the pauses between, in seconds."""

    times: int = 0
    pause: float = 0.0
    factor: float = 2.0
    longest: float = 3600.0

    def delay(self, attempt: int) -> float:
        """The pause before try ``attempt`` (1 = the first retry)."""
        return min(self.pause * self.factor ** (attempt - 1), self.longest) if self.pause else 0.0


@dataclass(frozen=True)
class Task:
    """One call of a component inside a dag.

    Attributes:
        always: run when everything upstream has ended, however it ended (exit handlers, ignore_upstream_failure).
        after: every sibling that must end first, data or not.
        settings: where those Kubernetes settings of its container come from that are known only when it runs, by
            their place (``secretAsEnv.0.secretNameParameter``).
    """

    name: str
    component: Component
    parameters: Mapping[str, Source] = field(default_factory=dict)
    artifacts: Mapping[str, Source] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    always: bool = False
    condition: Condition | None = None
    loop: Loop | None = None
    retry: Retry = Retry()
    cache: bool = True
    cache_key: str = ""
    settings: Mapping[str, Source] = field(default_factory=dict)


@dataclass(frozen=True)
class Dag:
    """Tasks by name, and where the outputs come from: the first source whose task ran."""

    tasks: Mapping[str, Task]
    output_parameters: Mapping[str, tuple[FromTask, ...]] = field(default_factory=dict)
    output_artifacts: Mapping[str, tuple[FromTask, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Container:
    """A command in an image, by template.

    Attributes:
        resources: the proto's ResourceSpec; amounts may hold placeholders.
        kubernetes: the KubernetesExecutorConfig of this executor, as kfp's platform document has it.
        passthroughs: the fields that a TaskConfig input of the component is told, and whether they apply to the
            task itself too.
    """

    image: Template
    command: tuple[Template, ...] = ()
    args: tuple[Template, ...] = ()
    env: Mapping[str, Template] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    kubernetes: Mapping[str, Any] = field(default_factory=dict)
    passthroughs: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Importer:
    """An artifact that is already somewhere: its address is a constant, or the importer's input of this name."""

    type: str
    uri: Template | None = None
    parameter: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    reimport: bool = False


Executor = Container | Importer


@dataclass(frozen=True)
class Component:
    """An interface with a body: a dag, or the digest of an executor."""

    name: str
    interface: Interface
    body: Dag | str


@dataclass(frozen=True)
class Plan:
    """A pipeline, ready for any engine.

    Attributes:
        digest: sha256 of its canonical IR, platform settings included.
        settings: the Kubernetes settings of the pipeline as a whole (``pipelineConfig`` of kfp's platform document).
    """

    name: str
    digest: str
    root: Component
    executors: Mapping[str, Executor]
    settings: Mapping[str, Any] = field(default_factory=dict)
