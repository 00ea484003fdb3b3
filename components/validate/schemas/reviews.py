"""Reviews with a sentiment."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

schema = pa.DataFrameSchema(
    {
        "text": pa.Column(pl.String, pa.Check.str_length(1, 2000)),
        "label": pa.Column(pl.Int64, pa.Check.isin([0, 1])),
    },
    strict=True,
)
