"""Evaluate this very model on held-out rows, with the code that serves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.evaluate import measures
from components.evaluate.report import Measured
from components.evaluate.trusted import load_pipeline
from components.train_sklearn import table
from tidegate.errors import ParameterError
from tidegate.serve.onnx import Scorer
from tidegate.store.blobs import digest_path

PARITY_ROWS = 10_000


def measure(model: Path, frame: pl.DataFrame, label: str, champion: Path | None) -> Measured:
    """Score every row; compare with a champion on the same rows; check the graph against scikit-learn.

    Raises:
        ParameterError: the label is not there.
    """
    if label not in frame.columns:
        raise ParameterError(f"the data has no column {label!r}", allowed=f"Its columns: {', '.join(frame.columns)}.")
    truth = frame[label].to_numpy()
    scorer = Scorer.load(model, threads=2)
    probabilities = _score(scorer, frame)
    classes = list(scorer.signature.classes)
    metrics = measures.classification(truth, probabilities, classes)
    if (model / "model.skops").is_file():
        metrics |= _parity(model, frame.drop(label), truth, probabilities, classes)
    return Measured(
        metrics,
        measures.confusion(truth, probabilities, classes),
        classes,
        {"kind": "holdout"},
        frame.height,
        of_artifact=True,
        comparison=_comparison(champion, frame, truth, probabilities, classes) if champion else None,
    )


def _score(scorer: Scorer, frame: pl.DataFrame, batch: int = 8192) -> np.ndarray:
    names = [t.name for t in scorer.signature.inputs]
    parts = [frame.slice(i, batch) for i in range(0, frame.height, batch)]
    return np.concatenate([scorer.predict({n: p[n].to_numpy() for n in names})["probabilities"] for p in parts])


def _parity(
    model: Path, features: pl.DataFrame, truth: np.ndarray, probabilities: np.ndarray, classes: list[Any]
) -> dict[str, float]:
    rows = min(PARITY_ROWS, features.height)
    own = load_pipeline(model).predict_proba(table.features(features.head(rows)))
    found = {"onnx_max_abs_diff": float(np.abs(own - probabilities[:rows]).max())}
    if len(classes) == 2:
        positive = truth[:rows] == classes[1]
        pair = [measures.binary(positive, p[:, 1])["pr_auc"] for p in (own, probabilities[:rows])]
        found["onnx_pr_auc_diff"] = abs(pair[0] - pair[1])
    return found


def _comparison(
    champion: Path, frame: pl.DataFrame, truth: np.ndarray, probabilities: np.ndarray, classes: list[Any]
) -> Mapping[str, Any] | None:
    """How many rows each got right alone; None where there is no champion (an empty folder)."""
    if not (champion / "model.onnx").exists():
        return None
    other = Scorer.load(champion, threads=2)
    mine = np.array(classes)[probabilities.argmax(1)] == truth
    theirs = np.array(list(other.signature.classes))[_score(other, frame).argmax(1)] == truth
    table = {
        "both_right": int((mine & theirs).sum()),
        "only_candidate": int((mine & ~theirs).sum()),
        "only_champion": int((~mine & theirs).sum()),
        "both_wrong": int((~mine & ~theirs).sum()),
    }
    return {
        "champion": {"digest": digest_path(champion).digest},
        "metric": "accuracy",
        "rows": len(truth),
        "table": table,
    }
