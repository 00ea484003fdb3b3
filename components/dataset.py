"""A dataset artifact: a folder of Parquet files, perhaps partitioned as ``date=2026-01-01/part-0.parquet``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from tidegate.errors import ParameterError


def read(path: str | Path) -> pl.DataFrame:
    """Read every Parquet file below a folder, in the order of their names; partition keys stay text.

    Raises:
        ParameterError: there is none, one cannot be read, or there are no rows.
    """
    try:
        frame = pl.read_parquet(Path(path) / "**" / "*.parquet", hive_partitioning=True, try_parse_hive_dates=False)
    except (OSError, pl.exceptions.PolarsError) as e:
        found = str(e).splitlines()[0][:200]
        raise ParameterError(f"the data cannot be read: {found}", allowed="A folder of Parquet files.") from e
    if frame.is_empty():
        raise ParameterError("the data has no rows", allowed="One row or more.")
    return frame


def write(frame: pl.DataFrame, path: str | Path) -> None:
    """Write a frame as a dataset of one file; the same frame gives the same bytes."""
    Path(path).mkdir(parents=True)
    frame.write_parquet(Path(path) / "part-0.parquet", statistics=False)


def column(frame: pl.DataFrame, name: str) -> pl.Series:
    """Return a column.

    Raises:
        ParameterError: it is not there.
    """
    if name not in frame.columns:
        raise ParameterError(f"the data has no column {name!r}", allowed=f"Its columns: {', '.join(frame.columns)}.")
    return frame[name]


def without(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return the frame without some columns.

    Raises:
        ParameterError: one of them is not there.
    """
    for name in names:
        column(frame, name)
    return frame.drop(names)
