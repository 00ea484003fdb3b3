"""An evaluation: what was measured, on what, by which procedure. Read strictly; judged by the gate.

::

    {"schema": "tidegate/evaluation/1",
     "model": {"digest": "sha256:…"} or null (the procedure was evaluated, not this artifact),
     "procedure": {"kind": "holdout" | "cross-validation", …},
     "data": {"digest": "sha256:…", "rows": 150},
     "metrics": {"accuracy": 0.97, "loss": "NaN"},
     "profile": what rows and predictions looked like (tidegate.data.profile); may be missing,
     "comparison": null or {"champion": {"version": 1, "digest": "sha256:…"}, "metric": "accuracy", "rows": 2000,
                            "table": {"both_right": …, "only_candidate": …, "only_champion": …, "both_wrong": …},
                            "predictions": {"edges": […], "moved": […], "table": [[…], …]}; may be missing}}
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tidegate.errors import NotFound, UsageError

SCHEMA = "tidegate/evaluation/1"
MAX_BYTES = 4 << 20
MAX_COUNT = 10**9
MAX_EDGES = 1000
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_CELLS = ("both_right", "only_candidate", "only_champion", "both_wrong")


@dataclass(frozen=True)
class Transition:
    """Where rows went whose predictions were in a bin of the champion's.

    Attributes:
        edges: those by which the champion's predictions are counted, live too; a bin ends with its edge.
        moved: the candidate's predictions by these edges.
        table: rows by the champion's bin and, in it, by the candidate's own bin (that of its profile).
    """

    edges: tuple[float, ...]
    moved: tuple[int, ...]
    table: tuple[tuple[int, ...], ...]

    @property
    def shift(self) -> float:
        """Total variation: the share of rows that would have to be in another bin for both to be spread alike."""
        return sum(abs(sum(row) - n) for row, n in zip(self.table, self.moved, strict=True)) / (2 * sum(self.moved))

    def as_json(self) -> dict[str, Any]:
        """As evaluations and evidence say it."""
        return {"edges": list(self.edges), "moved": list(self.moved), "table": [list(row) for row in self.table]}


@dataclass(frozen=True)
class Comparison:
    """Candidate and champion on the same rows: how many each got right alone, and how predictions moved."""

    champion: str
    metric: str
    rows: int
    both_right: int
    only_candidate: int
    only_champion: int
    both_wrong: int
    predictions: Transition | None = None


@dataclass(frozen=True)
class Evaluation:
    """A checked evaluation; ``model`` is empty where the procedure was evaluated, ``profile`` is JSON, or empty."""

    model: str
    procedure: Mapping[str, Any]
    data: str
    rows: int
    metrics: Mapping[str, float]
    comparison: Comparison | None
    digest: str
    profile: str = ""


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
            _profile(body.get("profile")),
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as e:
        raise _invalid(f"{type(e).__name__} at {e}") from e


def _comparison(body: Mapping[str, Any]) -> Comparison:
    cells = tuple(_count(body["table"][c]) for c in _CELLS)
    if sum(cells) != _count(body["rows"]):
        raise _invalid(f"the comparison's cells add up to {sum(cells)}, its rows are {body['rows']}")
    digest, moved = _digest(body["champion"]["digest"]), body.get("predictions")
    found = transition(moved) if moved is not None else None
    if found and sum(found.moved) != body["rows"]:
        raise _invalid(f"the predictions of {sum(found.moved)} rows are compared, its rows are {body['rows']}")
    return Comparison(
        digest, str(body["metric"]), body["rows"], **dict(zip(_CELLS, cells, strict=True)), predictions=found
    )


def transition(body: Mapping[str, Any]) -> Transition:
    """Check what an evaluation or the evidence of a version says of how predictions moved.

    Raises:
        UsageError: it says nothing of the kind.
    """
    try:
        edges = tuple(_edge(e) for e in body["edges"])
        moved = tuple(_count(n) for n in body["moved"])
        table = tuple(tuple(_count(n) for n in row) for row in body["table"])
    except (KeyError, TypeError, AttributeError) as e:
        raise _invalid(f"{type(e).__name__} at {e} in its predictions") from e
    if len(edges) > MAX_EDGES or any(a >= b for a, b in pairwise(edges)):
        raise _invalid(f"the {len(edges)} edges of its predictions do not ascend, or are more than {MAX_EDGES}")
    if not len(edges) + 1 == len(table) == len(moved) or not 1 <= len(table[0]) <= MAX_EDGES + 1:
        raise _invalid(f"its predictions have {len(edges)} edges, {len(moved)} bins, a table of {len(table)} rows")
    if len({len(row) for row in table}) != 1 or not 0 < sum(moved) == sum(map(sum, table)):
        raise _invalid("the table of its predictions has rows of unequal length, or does not add up")
    return Transition(edges, moved, table)


def _profile(body: Any) -> str:
    if body is None:
        return ""
    if not isinstance(body, dict) or not str(body.get("schema")).startswith("tidegate/profile/"):
        raise _invalid("its profile has another schema")
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def _edge(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid(f"{str(value)[:40]} is no edge")
    return float(value)


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
