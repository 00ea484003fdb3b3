"""The evaluation artifact, as ``tidegate.registry.evaluation`` reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.data.profile import Profile
from tidegate.store.blobs import digest_path

SCHEMA = "tidegate/evaluation/1"


@dataclass(frozen=True)
class Measured:
    """What was measured, and how."""

    metrics: Mapping[str, float]
    confusion: Sequence[Sequence[int]]
    classes: Sequence[Any]
    procedure: Mapping[str, Any]
    rows: int
    of_artifact: bool
    profile: Profile
    comparison: Mapping[str, Any] | None = None


def write(path: Path, measured: Measured, data: Path, model: Path) -> None:
    """Write the evaluation with the digests of what was evaluated."""
    body = {
        "schema": SCHEMA,
        "model": {"digest": digest_path(model).digest} if measured.of_artifact else None,
        "procedure": dict(measured.procedure),
        "data": {"digest": digest_path(data).digest, "rows": measured.rows},
        "metrics": numbers(measured.metrics),
        "profile": json.loads(measured.profile.json()),
        "comparison": measured.comparison,
    }
    path.write_text(json.dumps(body, indent=1, sort_keys=True, allow_nan=False))


def numbers(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """Metrics as JSON says them: what is not finite as text, never left out."""
    return {name: _number(value) for name, value in metrics.items()}


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
