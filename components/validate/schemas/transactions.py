"""Card transactions with the features that look back."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

_flag = pa.Check.isin([0, 1])
schema = pa.DataFrameSchema(
    {
        "time": pa.Column(pl.Datetime),
        "customer": pa.Column(pl.Int64, pa.Check.ge(0)),
        "merchant": pa.Column(pl.Int64, pa.Check.ge(0)),
        "category": pa.Column(
            pl.String,
            pa.Check.isin(["grocery", "fuel", "restaurant", "travel", "electronics", "gaming", "clothing", "health"]),
        ),
        "amount": pa.Column(pl.Float64, pa.Check.in_range(0.5, 20_000)),
        "distance_km": pa.Column(pl.Float64, pa.Check.in_range(0, 20_000)),
        "online": pa.Column(pl.Int64, _flag),
        "new_device": pa.Column(pl.Int64, _flag),
        "age_days": pa.Column(pl.Int64, pa.Check.ge(0)),
        "is_fraud": pa.Column(pl.Int64, _flag),
        "count_1h": pa.Column(pl.Int64, pa.Check.ge(1)),
        "count_24h": pa.Column(pl.Int64, pa.Check.ge(1)),
        "sum_24h": pa.Column(pl.Float64, pa.Check.ge(0)),
        "since_last_h": pa.Column(pl.Float64, pa.Check.ge(0)),
        "amount_ratio": pa.Column(pl.Float64, pa.Check.in_range(0, 100)),
        "hour": pa.Column(pl.Int64, pa.Check.in_range(0, 23)),
        "weekday": pa.Column(pl.Int64, pa.Check.in_range(1, 7)),
        "date": pa.Column(pl.String),
    },
    strict=True,
)
