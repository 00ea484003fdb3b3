"""Evaluate this very model on held-out rows, with the code that serves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components import dataset
from components.evaluate import measures
from components.evaluate.measures import Predictions
from components.evaluate.report import Measured
from components.evaluate.trusted import load_pipeline
from components.train_sklearn import table
from tidegate.serve.onnx import Scorer
from tidegate.store.blobs import digest_path

PARITY_ROWS, BATCH = 10_000, 8192


def measure(model: Path, frame: pl.DataFrame, label: str, champion: Path | None = None, version: int = 0) -> Measured:
    """Score every row; compare with a champion on the same rows; check the graph against scikit-learn.

    Args:
        model: the model's folder.
        frame: the held-out rows.
        label: the column with the true classes.
        champion: the folder of the model to compare with; an empty folder is none.
        version: the champion's version.

    Raises:
        ParameterError: a column is not there, or a row's class is none the model knows.
    """
    said = _predict(model, frame, label)
    metrics = measures.measure(said)
    if (model / "model.skops").is_file():
        metrics |= parity(model, frame.drop(label), said)
    compared = None
    if champion and (champion / "model.onnx").exists():
        against = {"version": version, "digest": digest_path(champion).digest}
        compared = compare(said, _predict(champion, frame, label), against)
    return Measured(metrics, measures.confusion(said), said.classes, {"kind": "holdout"}, frame.height, True, compared)


def _predict(model: Path, frame: pl.DataFrame, label: str) -> Predictions:
    truth = dataset.column(frame, label).to_numpy()
    scorer = Scorer.load(model, threads=2)
    columns = {t.name: dataset.column(frame, t.name).to_numpy() for t in scorer.signature.inputs}
    parts = [
        scorer.predict({n: c[at : at + BATCH] for n, c in columns.items()}) for at in range(0, frame.height, BATCH)
    ]
    joined = {name: np.concatenate([p[name] for p in parts]) for name in ("label", "probabilities")}
    return Predictions(truth, joined["label"], joined["probabilities"], list(scorer.signature.classes))


def parity(model: Path, features: pl.DataFrame, said: Predictions) -> dict[str, float]:
    """How far the served graph is from the scikit-learn pipeline it was made of, on up to ``PARITY_ROWS`` rows."""
    own = load_pipeline(model).predict_proba(table.features(features.head(PARITY_ROWS)))
    served, truth = said.probabilities[:PARITY_ROWS], said.truth[:PARITY_ROWS]
    found = {"onnx_max_abs_diff": float(np.abs(own - served).max())}
    if len(said.classes) == 2:
        before, after = (measures.binary(truth == said.classes[1], p[:, 1])["pr_auc"] for p in (own, served))
        found["onnx_pr_auc_diff"] = abs(before - after)
    return found


def compare(mine: Predictions, theirs: Predictions, champion: Mapping[str, Any]) -> Mapping[str, Any]:
    """Count the rows that both, one or neither got right, for a paired test."""
    right, other = mine.label == mine.truth, theirs.label == theirs.truth
    counts = {
        "both_right": int((right & other).sum()),
        "only_candidate": int((right & ~other).sum()),
        "only_champion": int((~right & other).sum()),
        "both_wrong": int((~right & ~other).sum()),
    }
    return {"champion": dict(champion), "metric": "accuracy", "rows": len(right), "table": counts}
