"""Count rows of a dataset without reading them."""

from __future__ import annotations

from pathlib import Path

import polars as pl


def count(folder: Path) -> int:
    """Rows of every Parquet file below a folder."""
    return int(pl.scan_parquet(folder / "**" / "*.parquet").select(pl.len()).collect().item())
