"""A profile: what rows looked like, column by column, and how a model's predictions on them were spread.

It is what is kept of the rows of an evaluation, so that live rows and predictions can be held against them later
without the rows. A bin holds the values up to and including its edge; the last one holds what is greater than all edges
and what is no number. Columns keep no value that fewer than ``SEEN`` rows have, and no long text.

::

    {"schema": "tidegate/profile/1", "rows": 15000,
     "prediction": {"of": "probability" | "label", "edges": [0.001, …], "counts": [1500, …]},
     "columns": {"amount": {"kind": "number", "missing": 0, "least": 0.5, "greatest": 950.0, "mean": 41.2, "sd": 38.0,
                            "edges": […], "counts": […]},
                 "category": {"kind": "text", "missing": 0, "frequent": {"grocery": 4000}, "rest": 12,
                              "edges": [8, …], "counts": […]}}}       # edges of a text are of its length

How far two counts by the same bins are apart: ``psi`` (population stability index, the symmetrised Kullback-Leibler
divergence of the shares) and ``ks`` (Kolmogorov and Smirnov's distance, at the edges).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from tidegate.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

SCHEMA = "tidegate/profile/1"
PROBABILITY, LABEL = "probability", "label"
BINS, SEEN, FREQUENT, LONGEST = 10, 5, 50, 64
MAX_BYTES, MAX_COLUMNS, MAX_EDGES, MAX_COUNT = 4 << 20, 10_000, 1000, 10**15


@dataclass(frozen=True)
class Bins:
    """Counts of numbers between edges.

    Attributes:
        edges: ascending; value ``v`` is in the bin of the first edge that is not below it.
        counts: one for each edge, and one for what is above all of them or no number.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def indices(self, values: np.ndarray) -> np.ndarray:
        """Return the bin of each value."""
        import numpy as np

        return np.searchsorted(np.asarray(self.edges, dtype=np.float64), np.asarray(values, dtype=np.float64))

    def count(self, values: np.ndarray) -> tuple[int, ...]:
        """Return how many of ``values`` are in each bin."""
        import numpy as np

        return tuple(np.bincount(self.indices(values), minlength=len(self.edges) + 1).tolist())


@dataclass(frozen=True)
class Number:
    """A numeric column; ``missing`` counts what is null, NaN or infinite, the rest is about finite values only."""

    missing: int
    least: float
    greatest: float
    mean: float
    sd: float
    bins: Bins


@dataclass(frozen=True)
class Text:
    """A column of texts or categories: its frequent values, how many rows hold others, how long its values are."""

    missing: int
    frequent: Mapping[str, int]
    rest: int
    lengths: Bins


@dataclass(frozen=True)
class Profile:
    """What rows and predictions looked like.

    Attributes:
        rows: how many.
        prediction: the model's predictions by the edges they are counted by live, too.
        of: what a prediction is: ``probability`` of the second of two classes, or the index of the ``label``.
        columns: by name.
    """

    rows: int
    prediction: Bins
    of: str = PROBABILITY
    columns: Mapping[str, Number | Text] = field(default_factory=dict)

    def json(self) -> str:
        """Canonical JSON: the same profile gives the same text."""
        body = {
            "schema": SCHEMA,
            "rows": self.rows,
            "prediction": {"of": self.of, **_bins(self.prediction)},
            "columns": {name: _column(c) for name, c in self.columns.items()},
        }
        return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def quantile_bins(values: np.ndarray, bins: int = BINS) -> Bins:
    """Count finite values between their own quantiles; equal quantiles are one edge.

    Args:
        values: float, ``[n]``, all finite.
        bins: how many, at most.
    """
    import numpy as np

    inner = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf") if len(values) else np.empty(0)
    empty = Bins(tuple(np.unique(inner).tolist()), ())
    return Bins(empty.edges, empty.count(values))


def predictions(probabilities: np.ndarray) -> np.ndarray:
    """Return the one number of each prediction that is counted, ``[n]``.

    Args:
        probabilities: float, ``[n, K]``. For two classes it is the second's probability, for more the index of the
            greatest.
    """
    import numpy as np

    two = probabilities.shape[1] == 2
    return np.asarray(probabilities[:, 1] if two else probabilities.argmax(1), dtype=np.float64)


def prediction_bins(probabilities: np.ndarray) -> tuple[Bins, str]:
    """Count predictions by the edges they are counted by live; return the bins and what they are of.

    Args:
        probabilities: see ``predictions``. The edges are deciles, for more than two classes between the classes.
    """
    said, classes = predictions(probabilities), probabilities.shape[1]
    if classes == 2:
        return quantile_bins(said), PROBABILITY
    bins = Bins(tuple(i + 0.5 for i in range(classes - 1)), ())
    return Bins(bins.edges, bins.count(said)), LABEL


def number(values: Sequence[float | None] | np.ndarray) -> Number:
    """Profile a numeric column."""
    import numpy as np

    data = np.asarray(values, dtype=np.float64)
    finite = data[np.isfinite(data)]
    missing = len(data) - len(finite)
    if not len(finite):
        return Number(missing, 0.0, 0.0, 0.0, 0.0, Bins((), (0,)))
    with np.errstate(over="ignore"):
        mean, sd = float(finite.mean()), float(finite.std())
    return Number(missing, float(finite.min()), float(finite.max()), _finite(mean), _finite(sd), quantile_bins(finite))


def text(values: Iterable[Any]) -> Text:
    """Profile a column of texts, categories or booleans; None is missing."""
    import numpy as np

    said = list(values)
    there = [str(v) for v in said if v is not None]
    frequent = {v: n for v, n in Counter(there).most_common(FREQUENT) if n >= SEEN and len(v) <= LONGEST}
    lengths = quantile_bins(np.array([len(v) for v in there], dtype=np.float64))
    return Text(len(said) - len(there), frequent, len(there) - sum(frequent.values()), lengths)


def psi(expected: Sequence[int], found: Sequence[int]) -> float:
    """Population stability index of two counts by the same bins, half a row added to each; NaN where one is empty."""
    if len(expected) != len(found) or not sum(expected) or not sum(found):
        return math.nan
    p, q = _shares(expected, 0.5), _shares(found, 0.5)
    return math.fsum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))


def ks(expected: Sequence[int], found: Sequence[int]) -> float:
    """The greatest distance of two distribution functions at the edges; NaN where one is empty."""
    if len(expected) != len(found) or not sum(expected) or not sum(found):
        return math.nan
    below, live = accumulate(_shares(expected)), accumulate(_shares(found))
    return max(abs(a - b) for a, b in zip(below, live, strict=True))


def _finite(value: float) -> float:
    """A mean or deviation that is too large for a float is not kept."""
    return value if math.isfinite(value) else 0.0


def _shares(counts: Sequence[int], more: float = 0.0) -> list[float]:
    whole = sum(counts) + more * len(counts)
    return [(n + more) / whole for n in counts]


def parse(data: bytes) -> Profile:
    """Read a profile, strictly.

    Raises:
        UsageError: it is none (code ``profile-invalid``).
    """
    if len(data) > MAX_BYTES:
        raise _invalid(f"it is larger than {MAX_BYTES >> 20} MiB")
    try:
        body = json.loads(data)
        if not isinstance(body, dict) or body.get("schema") != SCHEMA:
            raise _invalid("it has another schema")
        _keys(body, {"schema", "rows", "prediction", "columns"})
        if len(body["columns"]) > MAX_COLUMNS:
            raise _invalid(f"it has {len(body['columns'])} columns")
        prediction = dict(body["prediction"])
        of = prediction.pop("of")
        if of not in (PROBABILITY, LABEL):
            raise _invalid(f"its predictions are of {str(of)[:80]!r}")
        columns = {name: _read_column(dict(c)) for name, c in body["columns"].items()}
        return Profile(_count(body["rows"]), _read_bins(prediction), of, columns)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as e:
        raise _invalid(f"{type(e).__name__} at {str(e)[:80]}") from e


def _read_column(body: dict[str, Any]) -> Number | Text:
    kind, missing = body.pop("kind"), _count(body.pop("missing"))
    if kind == "number":
        least, greatest, mean, sd = (_number(body.pop(key)) for key in ("least", "greatest", "mean", "sd"))
        return Number(missing, least, greatest, mean, sd, _read_bins(body))
    if kind != "text":
        raise _invalid(f"a column is of the kind {str(kind)[:80]!r}")
    frequent = {str(v): _count(n) for v, n in body.pop("frequent").items()}
    return Text(missing, frequent, _count(body.pop("rest")), _read_bins(body))


def _read_bins(body: Mapping[str, Any]) -> Bins:
    _keys(body, {"edges", "counts"})
    edges, counts = [_number(e) for e in body["edges"]], [_count(n) for n in body["counts"]]
    if len(edges) > MAX_EDGES or len(counts) != len(edges) + 1:
        raise _invalid(f"it has {len(counts)} counts for {len(edges)} edges")
    if any(a >= b for a, b in pairwise(edges)):
        raise _invalid("its edges do not ascend")
    return Bins(tuple(edges), tuple(counts))


def _keys(body: Mapping[str, Any], wanted: set[str]) -> None:
    if set(body) != wanted:
        raise _invalid(f"it has the keys {', '.join(sorted(map(str, body)))[:200]}, not {', '.join(sorted(wanted))}")


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise _invalid(f"{str(value)[:40]} is no count")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid(f"{str(value)[:40]} is no finite number")
    return float(value)


def _bins(bins: Bins) -> dict[str, Any]:
    return {"edges": list(bins.edges), "counts": list(bins.counts)}


def _column(column: Number | Text) -> dict[str, Any]:
    if isinstance(column, Number):
        said = {"least": column.least, "greatest": column.greatest, "mean": column.mean, "sd": column.sd}
        return {"kind": "number", "missing": column.missing, **said, **_bins(column.bins)}
    said_text = {"frequent": dict(column.frequent), "rest": column.rest}
    return {"kind": "text", "missing": column.missing, **said_text, **_bins(column.lengths)}


def _invalid(found: str) -> UsageError:
    return UsageError(f"the profile cannot be used: {found}", allowed=SCHEMA, code="profile-invalid")
