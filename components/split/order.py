"""Cut a table in two along a column."""

from __future__ import annotations

import polars as pl

from components import dataset
from tidegate.errors import ParameterError


def cut(frame: pl.DataFrame, by: str, fraction: float) -> list[tuple[pl.DataFrame, str]]:
    """Return the earlier and the later part, and how each was chosen.

    Raises:
        ParameterError: the column is not there, or one part would be empty.
    """
    dataset.column(frame, by)
    if not 0 < fraction < 1 or not frame.height:
        raise ParameterError(
            f"cannot split {frame.height} rows at {fraction}", allowed="A fraction in (0, 1) of some rows."
        )
    frame = frame.sort(by, maintain_order=True)
    at = frame[by][int(frame.height * fraction)]
    earlier, later = frame.filter(pl.col(by) < at), frame.filter(pl.col(by) >= at)
    if not earlier.height:
        raise ParameterError(
            f"no row has a {by!r} before {at}", allowed="A column with two values or more, a larger fraction."
        )
    return [(earlier, f"{by} < {at}"), (later, f"{by} >= {at}")]
