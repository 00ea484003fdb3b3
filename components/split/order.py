"""Cut a table in two along a column."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tidegate.errors import UsageError


def read(path: str) -> pl.DataFrame:
    """Read every Parquet file below a folder, in the order of their names."""
    return pl.read_parquet(Path(path) / "**" / "*.parquet", hive_partitioning=True, try_parse_hive_dates=False)


def cut(path: str, by: str, fraction: float) -> list[tuple[pl.DataFrame, str]]:
    """Return the earlier and the later part, and how each was chosen.

    Raises:
        UsageError: the column is not there, or one part would be empty.
    """
    frame = read(path)
    if by not in frame.columns or not 0 < fraction < 1:
        known = ", ".join(frame.columns)
        raise UsageError(f"cannot split by {by!r} at {fraction}", allowed=f"A fraction in (0, 1) of a column: {known}.")
    frame = frame.sort(by, maintain_order=True)
    at = frame[by][int(frame.height * fraction)]
    earlier, later = frame.filter(pl.col(by) < at), frame.filter(pl.col(by) >= at)
    if not earlier.height:
        raise UsageError(f"every row has the same {by!r}", allowed="A column with at least two values.")
    return [(earlier, f"{by} < {at}"), (later, f"{by} >= {at}")]
