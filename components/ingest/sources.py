"""Sources of tables by address: ``sklearn:NAME``, or ``file:PATH`` with or without ``#sha256:DIGEST``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from sklearn import datasets

from components import dataset
from tidegate.errors import Damaged, NotFound, ParameterError
from tidegate.store.blobs import digest_path

_ALLOWED = "sklearn:iris, or the path of a CSV file, a Parquet file, or a folder of Parquet files."
_BUNDLED: dict[str, Callable[[], Any]] = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
}


@dataclass(frozen=True)
class Table:
    """What was read, and the digest of the bytes it was read from (empty for bundled data)."""

    frame: pl.DataFrame
    digest: str = ""


def read(source: str) -> Table:
    """Read a source; relative paths start at the project's root.

    Raises:
        NotFound: nothing is there.
        ParameterError: it is no table.
        Damaged: the bytes are not those the address names.
    """
    if source.startswith("sklearn:"):
        return Table(_bundled(source.removeprefix("sklearn:")))
    place, _, pinned = source.removeprefix("file:").partition("#sha256:")
    path = Path(os.environ.get("TIDEGATE_PROJECT", ".")) / place
    if not path.exists():
        raise NotFound(f"there is no data at {place}", allowed=_ALLOWED)
    digest = digest_path(path).digest
    if pinned and digest != f"sha256:{pinned}":
        raise Damaged(
            f"{place} has the digest {digest}, the source names sha256:{pinned}", hint="Give the digest you mean."
        )
    return Table(_table(path, place), digest)


def _table(path: Path, place: str) -> pl.DataFrame:
    if path.is_dir():
        return dataset.read(path)
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {".csv": pl.read_csv, ".parquet": pl.read_parquet}
    if path.suffix not in readers:
        raise ParameterError(f"{place} is no table", allowed=_ALLOWED)
    try:
        return readers[path.suffix](path)
    except pl.exceptions.PolarsError as e:
        raise ParameterError(f"{place} cannot be read: {str(e).splitlines()[0][:200]}", allowed=_ALLOWED) from e


def _bundled(name: str) -> pl.DataFrame:
    if name not in _BUNDLED:
        known = ", ".join(f"sklearn:{n}" for n in _BUNDLED)
        raise ParameterError(f"scikit-learn's {name!r} is not known here", allowed=f"One of {known}.")
    bunch = _BUNDLED[name]()
    names = [re.sub(r"[^a-z0-9]+", "_", n.lower().replace("(cm)", "")).strip("_") for n in bunch.feature_names]
    columns = {n: bunch.data[:, i] for i, n in enumerate(names)}
    label = [str(bunch.target_names[t]) for t in bunch.target]
    return pl.DataFrame({**columns, "species" if name == "iris" else "label": label})
