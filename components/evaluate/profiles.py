"""What the evaluated rows looked like, and how a model's predictions on them were spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tidegate.data import profile
from tidegate.data.profile import Bins, Number, Profile, Text


def describe(features: pl.DataFrame, probabilities: np.ndarray) -> Profile:
    """Profile rows and predictions.

    Args:
        features: the rows without their label.
        probabilities: float, ``[n, K]``, of the same rows.
    """
    bins, of = profile.prediction_bins(probabilities)
    return Profile(features.height, bins, of, {c.name: _column(c) for c in features})


def _column(column: pl.Series) -> Number | Text:
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return profile.number(column.cast(pl.Float64).fill_null(float("nan")).to_numpy())
    return profile.text(column.to_list())


def moved(mine: np.ndarray, theirs: np.ndarray, edges: Sequence[float]) -> dict[str, Any]:
    """Say where the rows went whose predictions were in a bin of the champion's.

    Args:
        mine: the candidate's probabilities, ``[n, K]``.
        theirs: the champion's, ``[n, K']``, of the same rows.
        edges: those of the champion's profile, by which it is counted live.
    """
    own, _ = profile.prediction_bins(mine)
    champions = Bins(tuple(edges), ())
    before, after = champions.indices(profile.predictions(theirs)), own.indices(profile.predictions(mine))
    table = np.zeros((len(edges) + 1, len(own.counts)), dtype=int)
    np.add.at(table, (before, after), 1)
    said = champions.count(profile.predictions(mine))
    return {"edges": list(edges), "moved": list(said), "table": table.tolist()}
