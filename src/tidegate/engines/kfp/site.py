"""The run around a pod of KFP: what its environment and kfp's executor input say, and what the plan adds to that.

KFP resolves a step's inputs, but loses a little on the way: numbers inside texts of lists and mappings become text, types
and metadata of artifacts change. The plan and what earlier steps of the run handed over put that right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tidegate.engines.graph import Ready, task_context
from tidegate.engines.kfp.handover import local, recall
from tidegate.engines.kfp.nodes import Node
from tidegate.engines.pod.context import run_context
from tidegate.engines.values import Values
from tidegate.errors import NotFound, ParameterError, StepFailed
from tidegate.ir.placeholder import Placeholder, substitute
from tidegate.plan.build import build
from tidegate.plan.events import SUCCEEDED
from tidegate.plan.model import ArtifactSlot, Constant, Dag, FinalStatus, Interface, Plan, Task
from tidegate.plan.value import Artifact, coerce
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs, digest_path
from tidegate.store.cache import Cache
from tidegate.store.runs import RunRecord, Runs

FOLDER = "/tmp/tidegate"
_KFPS = ("display_name", "store_session_info")  # what KFP adds to the metadata of every artifact


@dataclass(frozen=True)
class Site:
    """A run as one of its pods sees it.

    Attributes:
        store: the store.
        run_id: KFP's id of the run.
        node: the step and its try.
        plan_digest: of the plan, whose definition is in the store.
        given: kfp's executor input.
        origin: commit, user and so on, where nobody of ours started the run.
        use_cache: whether results of earlier runs count.
        folder: where the step's files may be.
        root: the folder that stands for ``/`` where KFP's launcher puts artifacts.
    """

    store: Store
    run_id: str
    node: Node
    plan_digest: str
    given: Mapping[str, Any]
    origin: Mapping[str, str] = field(default_factory=dict)
    use_cache: bool = True
    folder: Path = Path(FOLDER)
    root: Path = Path("/")
    begun: str = ""  # a run that is tried again does not run what succeeded

    @property
    def step(self) -> str:
        """The step's path."""
        return self.node.path

    @property
    def attempt(self) -> int:
        """0 for the first try."""
        return self.node.attempt

    @cached_property
    def blobs(self) -> Blobs:
        """The run's view of the blobs."""
        return Blobs(self.store, self.run_id)

    @cached_property
    def cache(self) -> Cache:
        """The cache."""
        return Cache(self.store)

    @cached_property
    def runs(self) -> Runs:
        """The records of runs."""
        return Runs(self.store)

    @cached_property
    def plan(self) -> Plan:
        """The plan.

        Raises:
            StepFailed: the store does not have its definition (code ``kfp-plan``).
        """
        spec = self.runs.plan(self.plan_digest)
        plan = build(spec, self.runs.platforms(self.plan_digest)) if spec else None
        if plan and plan.digest == self.plan_digest:
            return plan
        raise StepFailed(
            f"the store {self.store.uri} does not have the definition {self.plan_digest[:19]}… of this run",
            allowed="Pods and whoever started the run use one store.",
            hint="Compare the Secret of the store with TIDEGATE_STORE where the run was started.",
            code="kfp-plan",
        )

    @cached_property
    def record(self) -> RunRecord:
        """The run's first record: the submitter's, or, where KFP started the run by itself, that of the first pod."""
        try:
            return self.runs.read(self.run_id)
        except NotFound:
            origin: dict[str, Any] = dict(self.origin)
            self.runs.create(RunRecord(self.run_id, self.plan.name, self.plan_digest, engine="kfp", **origin))
            return self.runs.read(self.run_id)

    @property
    def context(self) -> dict[str, str]:
        """Names of the run, for placeholders."""
        return run_context(self.plan, self.record, self.store.uri)

    def ready(self) -> Ready:
        """This pod's step with its inputs.

        Raises:
            StepFailed: the plan has no such step, or an input is of another type than it says.
        """
        task = find(self.plan, self.step)
        said = self.given.get("inputs", {})
        parameters, extra = self._parameters(task, said.get("parameterValues", {}))
        artifacts = self._artifacts(task.component.interface, said.get("artifacts", {}))
        return Ready(0, self.step, task, Values(parameters, artifacts), extra=extra)

    def _parameters(self, task: Task, said: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        declared = task.component.interface.parameters
        extra = {n: v for n, v in said.items() if n not in declared}
        found = {n: v for n, v in said.items() if n in declared} | self._again(task, said) | _statuses(task, said)
        try:
            values = {n: coerce(v, declared[n].type, f"the input {n!r}") for n, v in found.items() if v is not None}
        except ParameterError as e:
            raise StepFailed(e.found, allowed=e.allowed, code="input-type") from e
        return values, extra

    def _again(self, task: Task, said: Mapping[str, Any]) -> dict[str, Any]:
        """Constants that hold placeholders, resolved anew: KFP makes text of every value in one."""
        names = {**self.context, **task_context(self.context, self.step)}

        def resolve(placeholder: Placeholder) -> Any:
            return said.get(placeholder.name, "") if placeholder.form == "input_parameter" else names[placeholder.name]

        sources = {n: s for n, s in task.parameters.items() if isinstance(s, Constant) and s.has_placeholder}
        return {n: substitute(s.value, resolve) for n, s in sources.items() if n in said}

    def _artifacts(self, interface: Interface, said: Mapping[str, Any]) -> dict[str, list[Artifact]]:
        slots = {n: slot for n, slot in interface.artifacts.items() if n in said}
        return {n: [self._artifact(a, slot) for a in said[n].get("artifacts", ())] for n, slot in slots.items()}

    def _artifact(self, said: Mapping[str, Any], slot: ArtifactSlot) -> Artifact:
        """An input artifact: as the step of ours that made it recorded it, or as it lies there."""
        uri, path = str(said.get("uri", "")), local(str(said.get("uri", "")), self.root)
        known = recall(self.store, self.run_id, uri)
        if known and (not known.digest or (path.exists() and digest_path(path).digest == known.digest)):
            return known
        metadata = {k: v for k, v in said.get("metadata", {}).items() if k not in _KFPS}
        name = uri.rstrip("/").rpartition("/")[2]
        if not path.exists():
            return Artifact(name, uri, slot.type, metadata=metadata)
        content = self.blobs.add(path)
        return Artifact(
            name, self.blobs.uri(content.digest), slot.type, content.digest, content.kind, content.size, metadata
        )


def _statuses(task: Task, said: Mapping[str, Any]) -> dict[str, Any]:
    """How what an exit task waited for ended: KFP says COMPLETE, by MLMD's states, where its proto has SUCCEEDED."""
    given = {n: said[n] for n, s in task.parameters.items() if isinstance(s, FinalStatus) and n in said}
    return {n: {**v, "state": SUCCEEDED} for n, v in given.items() if v.get("state") == "COMPLETE"}


def find(plan: Plan, path: str) -> Task:
    """The task of a step.

    Raises:
        StepFailed: the plan has no such step (code ``step-unknown``).
    """
    body, task = plan.root.body, None
    for part in path.split("/"):
        name = part.partition("[")[0]
        task = body.tasks.get(name) if isinstance(body, Dag) else None
        body = task.component.body if task else ""
    if task and isinstance(body, str):
        return task
    raise StepFailed(f"nothing in the plan leads to the step {path!r}", code="step-unknown")
