"""What a worker counts of one version: answers by code, latency, predictions, labels, inputs.

The hot path only appends what it has in hand; ``fold`` adds it up in numpy, many batches at once, a few times a second.
Predictions and inputs are counted by the edges of the version's own profile, so that they can be held against the rows of
its evaluation. A bin holds the values up to and including its edge.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tidegate.serve.ruler import CODES, LATENCY, TEXT, Measured, Ruler
from tidegate.serve.sheet import Numbers, Sheet, new_sheet

# That wait to be added up, for which requests wait: about a millisecond. More at once are slower each, beyond the cache.
MOST_BATCHES, MOST_ROWS = 128, 4096
Column = np.ndarray[Any, Any]


class Counts:
    """The counts of one worker and one version.

    Args:
        ruler: by what it counts.
    """

    def __init__(self, ruler: Ruler) -> None:
        self.ruler = ruler
        self.fd = new_sheet(ruler.layout())  # to be given to whoever reads
        self._sheet = Sheet(os.dup(self.fd), ruler.layout())
        self._rows = self._sheet.rows()
        self._edges = np.array(ruler.edges, np.float64)
        self._bins = [np.array(c.edges, np.float64) for c in ruler.inputs]
        self._numeric = [i for i, c in enumerate(ruler.inputs) if c.kind != TEXT]
        self._codes = {c: i for i, c in enumerate(CODES)}
        self._batches: list[tuple[Mapping[str, Column], Column, Column, Sequence[float], float]] = []
        self._waiting = 0

    def batch(
        self, columns: Mapping[str, Column], label: Column, probabilities: Column, starts: Sequence[float], end: float
    ) -> None:
        """Note a scored batch.

        Args:
            columns: what was scored.
            label: ``[n]``.
            probabilities: ``[n, K]``.
            starts: when each of its requests came, in seconds of ``time.perf_counter``.
            end: when they were answered.
        """
        self._batches.append((columns, label, probabilities, starts, end))
        self._waiting += len(label)
        if len(self._batches) >= MOST_BATCHES or self._waiting >= MOST_ROWS:
            self.fold()

    def answered(self, code: int, seconds: float | None = None) -> None:
        """Count an answer without a prediction."""
        self._rows["codes"][self._codes.get(code, len(CODES))] += 1
        if seconds is not None:
            self._rows["latency"][np.searchsorted(LATENCY, seconds)] += 1
            self._rows["seconds"][0] += seconds

    def beside(self, lines: int, kept: int, lost: int) -> None:
        """Count lines of the log that were lost, rows of the prediction log that were kept, and lost."""
        self._rows["beside"] += (lines, kept, lost)

    def fold(self) -> None:
        """Add up what was noted."""
        batches, self._batches, self._waiting = self._batches, [], 0
        if not batches:
            return
        rows = self._rows
        took = np.concatenate([b[4] - np.array(b[3]) for b in batches])
        rows["codes"][0] += len(took)
        rows["latency"] += _binned(np.array(LATENCY), took)
        rows["seconds"][0] += took.sum()
        rows["batches"][0] += len(batches)
        self._predictions(np.concatenate([b[2] for b in batches]))
        columns = {c.name: np.concatenate([b[0][c.name] for b in batches]) for c in self.ruler.inputs}
        self._numbers([columns[self.ruler.inputs[i].name] for i in self._numeric])
        for i, column in enumerate(self.ruler.inputs):
            if column.kind == TEXT:
                self._text(i, column, columns[column.name])

    def read(self) -> Numbers:
        """The numbers now, without what waits to be added up."""
        return self._sheet.read()

    def _predictions(self, probabilities: Column) -> None:
        best = probabilities.argmax(1)
        values = probabilities[:, 1].astype(np.float64) if self.ruler.of == "probability" else best.astype(np.float64)
        self._rows["predictions"] += _binned(self._edges, values)
        self._rows["prediction_sum"][0] += values[np.isfinite(values)].sum()
        self._rows["labels"] += np.bincount(best, minlength=len(self.ruler.classes))

    def _numbers(self, columns: list[Column]) -> None:
        """All numeric columns at once: many small calls of numpy cost more than their work."""
        if not columns:
            return
        data = np.array(columns, np.float64)
        finite = np.isfinite(data)
        missing = data.shape[1] - finite.sum(1)
        there = data if finite.all() else np.where(finite, data, 0.0)
        with np.errstate(over="ignore"):
            sums, squares = there.sum(1), np.einsum("ij,ij->i", there, there)
        for row, i in enumerate(self._numeric):
            self._rows[f"input{i}"] += (data.shape[1], sums[row], squares[row], missing[row])
            values = data[row] if not missing[row] else data[row][finite[row]]
            edges = self._bins[i]
            if columns[row].dtype == np.float32:  # as the values: 14.02 in single precision is above 14.02
                with np.errstate(over="ignore"):
                    edges = edges.astype(np.float32).astype(np.float64)
            self._rows[f"bins{i}"] += _binned(edges, values) if len(edges) else len(values)

    def _text(self, i: int, column: Measured, values: Column) -> None:
        texts = values.tolist()
        lengths = np.array([len(t) for t in texts], np.float64)
        summary = self._rows[f"input{i}"]
        summary += (len(texts), lengths.sum(), lengths @ lengths, 0)
        self._rows[f"bins{i}"] += _binned(self._bins[i], lengths)
        if column.frequent:
            seen = Counter(texts)
            self._rows[f"frequent{i}"] += [seen[t] for t in column.frequent]


def _binned(edges: Column, values: Column) -> Column:
    """How many values are in each bin; what is no number is in the last."""
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
