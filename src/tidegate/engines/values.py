"""What goes into a step and what comes out of it, as records and caches keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidegate.plan.value import Artifact, artifact_from_json


@dataclass(frozen=True)
class Values:
    """Parameters and artifacts by name, going in or coming out. Lists of artifacts have any length."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Sequence[Artifact]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The values as records keep them."""
        artifacts = {n: [a.as_json() for a in found] for n, found in self.artifacts.items()}
        return {"parameters": dict(self.parameters), "artifacts": artifacts}


NOTHING = Values()


def values_from_json(body: Mapping[str, Any]) -> Values:
    """Read what ``Values.as_json`` wrote."""
    artifacts = {n: [artifact_from_json(a) for a in found] for n, found in body.get("artifacts", {}).items()}
    return Values(body.get("parameters", {}), artifacts)


def to_cache(outputs: Values) -> dict[str, Any]:
    """Outputs as a cache entry keeps them."""
    artifacts = [{"output": n, **a.as_json()} for n, found in outputs.artifacts.items() for a in found]
    return {"parameters": dict(outputs.parameters), "artifacts": artifacts}


def from_cache(body: Mapping[str, Any]) -> Values:
    """Read what ``to_cache`` wrote."""
    artifacts: dict[str, list[Any]] = {}
    for said in body["artifacts"]:
        artifacts.setdefault(said["output"], []).append(
            artifact_from_json({k: v for k, v in said.items() if k != "output"})
        )
    return Values(body["parameters"], artifacts)
