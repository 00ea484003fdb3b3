"""An evaluation: what was measured, on what, by which procedure. Read strictly; judged by the gate.

::

    {"schema": "tidegate/evaluation/1",
     "model": {"digest": "sha256:…"} or null (the procedure was evaluated, not this artifact),
     "procedure": {"kind": "holdout" | "cross-validation", …},
     "data": {"digest": "sha256:…", "rows": 150},
     "metrics": {"accuracy": 0.97, "loss": "NaN"},
     "comparison": null or {"champion": {"version": 1, "digest": "sha256:…"}, "metric": "accuracy", "rows": 2000,
                            "table": {"both_right": …, "only_candidate": …, "only_champion": …, "both_wrong": …}}}
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import NotFound, UsageError

SCHEMA = "tidegate/evaluation/1"
MAX_BYTES = 4 << 20
MAX_COUNT = 10**9
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_CELLS = ("both_right", "only_candidate", "only_champion", "both_wrong")


@dataclass(frozen=True)
class Comparison:
    """Candidate and champion on the same rows: how many each got right alone."""

    champion: str
    metric: str
    rows: int
    both_right: int
    only_candidate: int
    only_champion: int
    both_wrong: int


@dataclass(frozen=True)
class Evaluation:
    """A checked evaluation; ``model`` is empty where the procedure was evaluated."""

    model: str
    procedure: Mapping[str, Any]
    data: str
    rows: int
    metrics: Mapping[str, float]
    comparison: Comparison | None
    digest: str


def read(path: Path) -> Evaluation:
    """Read an evaluation file.

    Raises:
        NotFound: nothing is there.
        UsageError: it is no evaluation (code ``evaluation-invalid``).
    """
    try:
        with path.open("rb") as f:
            return parse(f.read(MAX_BYTES + 1))
    except FileNotFoundError:
        raise NotFound(f"there is no evaluation at {path}") from None
    except OSError as e:
        raise _invalid(f"{path} cannot be read: {e.strerror}") from e


def parse(data: bytes) -> Evaluation:
    """Check an evaluation's bytes."""
    if len(data) > MAX_BYTES:
        raise _invalid(f"it is larger than {MAX_BYTES >> 20} MiB")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise _invalid(f"it is no JSON: {e}") from e
    if not isinstance(body, dict) or body.get("schema") != SCHEMA:
        raise _invalid("it has another schema")
    try:
        return Evaluation(
            _digest(body["model"]["digest"]) if body["model"] is not None else "",
            dict(body["procedure"]),
            _digest(body["data"]["digest"]),
            _count(body["data"]["rows"]),
            {str(k): _metric(k, v) for k, v in body["metrics"].items()},
            _comparison(body["comparison"]) if body.get("comparison") is not None else None,
            "sha256:" + hashlib.sha256(data).hexdigest(),
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as e:
        raise _invalid(f"{type(e).__name__} at {e}") from e


def _comparison(body: Mapping[str, Any]) -> Comparison:
    cells = [_count(body["table"][c]) for c in _CELLS]
    if sum(cells) != _count(body["rows"]):
        raise _invalid(f"the comparison's cells add up to {sum(cells)}, its rows are {body['rows']}")
    return Comparison(_digest(body["champion"]["digest"]), str(body["metric"]), body["rows"], *cells)


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise _invalid(f"{str(value)[:80]!r} is no digest")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise _invalid(f"{str(value)[:40]} is no count")
    return value


def _metric(name: str, value: Any) -> float:
    if isinstance(value, str) and value in _SPECIAL:
        return _SPECIAL[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(f"the metric {name!r} is {value!r}")
    return float(value)


def _invalid(found: str) -> UsageError:
    return UsageError(f"the evaluation cannot be used: {found}", allowed=SCHEMA, code="evaluation-invalid")
