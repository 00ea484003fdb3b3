"""Evaluate this very model on held-out rows, with the code that serves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components import dataset
from components.evaluate import measures, profiles
from components.evaluate.measures import Predictions
from components.evaluate.report import Measured
from components.evaluate.trusted import load_pipeline
from components.train_sklearn import table
from tidegate.serve.onnx import Scorer
from tidegate.store.blobs import digest_path

PARITY_ROWS, BATCH = 10_000, 8192


@dataclass(frozen=True)
class Champion:
    """The model to compare with: its folder (an empty one is none), version, and the edges its predictions have live."""

    path: Path
    version: int = 0
    edges: Sequence[float] | None = None


def measure(model: Path, frame: pl.DataFrame, label: str, champion: Champion | None = None) -> Measured:
    """Score every row; compare with a champion on the same rows; check the graph against scikit-learn.

    Args:
        model: the model's folder.
        frame: the held-out rows.
        label: the column with the true classes.
        champion: what to compare with.

    Raises:
        ParameterError: a column is not there, or a row's class is none the model knows.
    """
    said = _predict(model, frame, label)
    metrics = measures.measure(said)
    if (model / "model.skops").is_file():
        metrics |= parity(model, frame.drop(label), said)
    compared = None
    if champion and (champion.path / "model.onnx").exists():
        compared = _compared(said, _predict(champion.path, frame, label), champion)
    found = metrics, measures.confusion(said), said.classes, {"kind": "holdout"}, frame.height
    described = profiles.describe(frame.drop(label), said.probabilities)
    return Measured(*found, of_artifact=True, profile=described, comparison=compared)


def _compared(mine: Predictions, theirs: Predictions, champion: Champion) -> dict[str, Any]:
    against = {"version": champion.version, "digest": digest_path(champion.path).digest}
    found = dict(compare(mine, theirs, against))
    if champion.edges is not None:
        found["predictions"] = profiles.moved(mine.probabilities, theirs.probabilities, champion.edges)
    return found


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
