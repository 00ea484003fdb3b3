"""Evaluate the procedure that made a model: out-of-fold predictions on fixed folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from components import dataset
from components.evaluate import measures
from components.evaluate.profiles import describe
from components.evaluate.report import Measured
from components.evaluate.trusted import load_pipeline
from components.train_sklearn import table
from tidegate.errors import ParameterError


def measure(model: Path, frame: pl.DataFrame, label: str, folds: int, seed: int) -> Measured:
    """Fit clones of the model's pipeline on all folds but one, predict that one.

    Raises:
        ParameterError: fewer than two folds, or more than the rarest class has rows.
    """
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    truth = dataset.column(frame, label).to_numpy()
    rarest = int(frame[label].value_counts()["count"].min())
    if not 2 <= folds <= rarest:
        raise ParameterError(f"folds={folds}", allowed=f"2 to {rarest}, the rows of the rarest class.")
    pipeline = load_pipeline(model)
    probabilities = cross_val_predict(
        clone(pipeline),
        table.features(frame.drop(label)),
        truth,
        cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
        method="predict_proba",
    )
    classes = np.unique(truth)
    said = measures.Predictions(truth, classes[probabilities.argmax(1)], probabilities, classes.tolist())
    evidence = {"kind": "cross-validation", "folds": folds, "seed": seed, "stratified": True}
    described = describe(frame.drop(label), probabilities)
    found = measures.measure(said), measures.confusion(said), said.classes, evidence, frame.height
    return Measured(*found, of_artifact=False, profile=described)
