"""Features as scikit-learn gets them: floats in single precision, as the ONNX graph computes."""

from __future__ import annotations

from typing import Any

import polars as pl
import polars.selectors as cs

from tidegate.errors import ParameterError


def features(frame: pl.DataFrame) -> Any:
    """Return a pandas frame; training and every comparison with the graph see the same numbers."""
    return frame.with_columns(cs.float().cast(pl.Float32), cs.boolean().cast(pl.Int64)).to_pandas()


def check(columns: pl.DataFrame, label: pl.Series) -> None:
    """Refuse what a served model could not be asked about.

    Raises:
        ParameterError: a column that is no number, flag or text, a gap where the protocol knows none (only a float may
            be missing), or a label that is neither integers nor text.
    """
    if not columns.width:
        raise ParameterError(f"the data has no column beside {label.name!r}", allowed="One feature or more.")
    for column in columns:
        if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.String)):
            raise ParameterError(
                f"the column {column.name!r} is {column.dtype}",
                allowed="Numbers, flags and text; name others in `ignore`.",
            )
        if column.null_count() and not column.dtype.is_float():
            raise ParameterError(f"the column {column.name!r} has gaps", allowed="Gaps in columns of floats only.")
    if not (label.dtype.is_integer() or label.dtype == pl.String) or label.null_count():
        raise ParameterError(f"the label {label.name!r} is {label.dtype}", allowed="Integers or text, without gaps.")
