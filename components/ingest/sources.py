"""Sources of tables by address."""

from __future__ import annotations

import os
import re
from pathlib import Path

import polars as pl

from tidegate.errors import NotFound, UsageError


def read(source: str) -> pl.DataFrame:
    """Read ``sklearn:NAME`` or a path; relative paths start at the project's root.

    Raises:
        NotFound: nothing is there.
        UsageError: a source of another kind.
    """
    if source.startswith("sklearn:"):
        return _bundled(source.removeprefix("sklearn:"))
    path = Path(os.environ.get("TIDEGATE_PROJECT", ".")) / source.removeprefix("file:")
    if not path.exists():
        raise NotFound(f"there is no data at {source}", allowed="sklearn:iris, or a CSV or Parquet file or folder.")
    if path.is_dir():
        return pl.read_parquet(path / "**" / "*.parquet", hive_partitioning=True)
    if path.suffix in (".csv", ".parquet"):
        return pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
    raise UsageError(f"{source} is no table", allowed="sklearn:iris, or a CSV or Parquet file or folder.")


def _bundled(name: str) -> pl.DataFrame:
    from sklearn import datasets

    known = {"iris": datasets.load_iris, "wine": datasets.load_wine, "breast_cancer": datasets.load_breast_cancer}
    if name not in known:
        raise UsageError(f"scikit-learn bundles no {name!r} that is known here", allowed=f"One of {', '.join(known)}.")
    bunch = known[name]()
    names = [re.sub(r"[^a-z0-9]+", "_", n.lower().replace("(cm)", "")).strip("_") for n in bunch.feature_names]
    columns = {n: bunch.data[:, i] for i, n in enumerate(names)}
    label = [str(bunch.target_names[t]) for t in bunch.target]
    return pl.DataFrame({**columns, "species" if name == "iris" else "label": label})
