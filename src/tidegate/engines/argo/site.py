"""The run around a pod: its store, plan, record and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tidegate.engines.argo.argument import parsed, referenced
from tidegate.engines.argo.packed import Packed, unpack
from tidegate.engines.argo.pod import STATES, Pod
from tidegate.engines.argo.trace import trace
from tidegate.engines.base import Arguments, check_arguments
from tidegate.engines.graph import Ready
from tidegate.engines.pod.context import run_context
from tidegate.errors import NotFound
from tidegate.plan.events import FAILED, SKIPPED, SUCCEEDED
from tidegate.plan.model import Plan
from tidegate.plan.value import artifact_from_json
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs
from tidegate.store.cache import Cache
from tidegate.store.runs import RunRecord, Runs


@dataclass(frozen=True)
class Site:
    """A run as one of its pods sees it."""

    pod: Pod
    store: Store

    @property
    def run_id(self) -> str:
        """The run, which is the Workflow's name."""
        return self.pod.run_id

    @property
    def step(self) -> str:
        """The step's path."""
        return self.pod.step

    @property
    def attempt(self) -> int:
        """0 for the first try."""
        return self.pod.attempt

    @property
    def begun(self) -> str:
        """When the Workflow was created."""
        return self.pod.created

    @property
    def folder(self) -> Path:
        """The volume that the pod's containers share."""
        return self.pod.folder

    @property
    def use_cache(self) -> bool:
        """Whether results of earlier runs count."""
        return self.packed.use_cache

    @cached_property
    def blobs(self) -> Blobs:
        """The run's view of the blobs."""
        return Blobs(self.store, self.pod.run_id)

    @cached_property
    def cache(self) -> Cache:
        """The cache."""
        return Cache(self.store)

    @cached_property
    def runs(self) -> Runs:
        """The records of runs."""
        return Runs(self.store)

    @cached_property
    def packed(self) -> Packed:
        """The definition that the Workflow carries."""
        return unpack(self.pod.plan.read_text())

    @cached_property
    def plan(self) -> Plan:
        """The plan."""
        return self.packed.plan

    @cached_property
    def record(self) -> RunRecord:
        """The run's first record: the submitter's, or, where Argo started the run by itself, that of the first pod."""
        try:
            return self.runs.read(self.pod.run_id)
        except NotFound:
            self.runs.keep_plan(self.plan.digest, self.packed.spec)
            self.runs.create(first_record(self.pod.run_id, self.packed, self.pod.arguments, self.blobs))
            return self.runs.read(self.pod.run_id)

    @property
    def arguments(self) -> Arguments:
        """What the run was given."""
        artifacts = {n: [artifact_from_json(a) for a in found] for n, found in self.record.artifacts.items()}
        return Arguments(self.record.parameters, artifacts)

    @property
    def context(self) -> dict[str, str]:
        """Names of the run, for placeholders."""
        return run_context(self.plan, self.record, self.store.uri)

    def ready(self) -> Ready:
        """This pod's step with its inputs."""
        return trace(self.plan, self.arguments, self.context, self.pod.step, self._record_of, self._status)

    def _record_of(self, path: str) -> Any:
        return self.runs.find_step(self.pod.run_id, path)

    def _status(self, path: str) -> Mapping[str, object]:
        """How a task ended, as kfp tells exit handlers: Argo knows the state, the records the reason."""
        name = path.rpartition("/")[2]
        below = [r for r in self.runs.steps(self.pod.run_id) if (r.path + "/").startswith((path + "/", path + "["))]
        error = next((r.error for r in below if r.state == FAILED and r.error), None)
        state = STATES.get(self.pod.statuses.get(name, ""), SKIPPED) if self.pod.statuses else None
        return {
            "state": state or (FAILED if error else SUCCEEDED),
            "pipelineJobResourceName": self.context["pipeline_job_resource_name"],
            "pipelineTaskName": name,
            "error": {"code": 1, "message": str(error.get("message", ""))} if error else {"code": 0, "message": ""},
        }


def first_record(run_id: str, packed: Packed, texts: Mapping[str, str], blobs: Blobs, user: str = "") -> RunRecord:
    """The record of a run that Argo starts: by the clock it is whoever's who made the schedule, else somebody's."""
    declared = packed.plan.root.interface.parameters
    given = {n: _value(text, declared[n].type, blobs) for n, text in texts.items() if n in declared}
    arguments = check_arguments(packed.plan, Arguments({n: v for n, v in given.items() if v is not None}))
    origin: dict[str, Any] = {**packed.origin, **({"user": user} if user else {})}
    return RunRecord(run_id, packed.plan.name, packed.plan.digest, dict(arguments.parameters), "argo", **origin)


def _value(text: str, type_: str, blobs: Blobs) -> Any:
    digest = referenced(text)
    return parsed(blobs.read_bytes(digest).decode() if digest else text, type_)
