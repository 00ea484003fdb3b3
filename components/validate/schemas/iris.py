"""The Iris table (Fisher 1936): four measurements in cm, three species."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

_cm = [pa.Check.in_range(0.05, 15.0)]
schema = pa.DataFrameSchema(
    {
        "sepal_length": pa.Column(pl.Float64, _cm),
        "sepal_width": pa.Column(pl.Float64, _cm),
        "petal_length": pa.Column(pl.Float64, _cm),
        "petal_width": pa.Column(pl.Float64, _cm),
        "species": pa.Column(pl.String, pa.Check.isin(["setosa", "versicolor", "virginica"])),
    },
    strict=True,
    checks=pa.Check(lambda d: d.lazyframe.select(pl.len() >= 30), error="30 rows or more"),
)
