"""Features as scikit-learn gets them: floats in single precision, as the ONNX graph computes."""

from __future__ import annotations

from typing import Any

import polars as pl
import polars.selectors as cs


def features(frame: pl.DataFrame) -> Any:
    """Return a pandas frame; training and every comparison with the graph see the same numbers."""
    return frame.with_columns(cs.float().cast(pl.Float32), cs.boolean().cast(pl.Int64)).to_pandas()
