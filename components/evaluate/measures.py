"""Metrics of classification from labels and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import metrics as sk

from tidegate.errors import ParameterError


@dataclass(frozen=True)
class Predictions:
    """What a model said about rows whose classes are known.

    Args:
        truth: the true classes, ``[n]``.
        label: the predicted classes, ``[n]``.
        probabilities: float, ``[n, K]``, in the order of ``classes``.
        classes: the classes the model knows.
    """

    truth: np.ndarray
    label: np.ndarray
    probabilities: np.ndarray
    classes: Sequence[Any]


def measure(said: Predictions) -> dict[str, float]:
    """Accuracy, macro-F1, log-loss, and for two classes PR-AUC, ROC-AUC, recall at 1 % false positives, Brier score, ECE.

    Raises:
        ParameterError: a row's class is none the model knows.
    """
    order = list(said.classes)
    if strange := sorted(set(said.truth.tolist()) - set(order), key=str):
        raise ParameterError(f"the data has the class {strange[0]!r}", allowed=f"What the model knows: {order}.")
    truth, predicted, probabilities = said.truth, said.label, said.probabilities
    clipped = np.clip(probabilities.astype(float), 1e-12, 1)
    found = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "macro_f1": sk.f1_score(truth, predicted, average="macro", zero_division=0.0),
        "log_loss": sk.log_loss(truth, clipped / clipped.sum(1, keepdims=True), labels=order),
    }
    found |= binary(truth == order[1], probabilities[:, 1]) if len(order) == 2 else {}
    return {k: float(v) for k, v in found.items()}


def binary(truth: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Metrics of the positive class's probability; NaN where the rows hold one class only."""
    if truth.all() or not truth.any():
        return dict.fromkeys(("pr_auc", "roc_auc", "recall_at_fpr_1pct", "brier", "ece"), float("nan"))
    rate, recall, _ = sk.roc_curve(truth, score, drop_intermediate=False)
    return {
        "pr_auc": sk.average_precision_score(truth, score),
        "roc_auc": sk.roc_auc_score(truth, score),
        "recall_at_fpr_1pct": recall[rate <= 0.01].max(),
        "brier": sk.brier_score_loss(truth, score),
        "ece": calibration_error(truth, score),
    }


def calibration_error(truth: np.ndarray, score: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error over equal-mass bins: mean |observed rate - mean score|, weighted by rows."""
    parts = np.array_split(np.argsort(score, kind="stable"), bins)
    gaps = [len(p) * abs(truth[p].mean() - score[p].mean()) for p in parts if len(p)]
    return float(sum(gaps) / len(score))


def confusion(said: Predictions) -> list[list[int]]:
    """Counts with the true classes as rows."""
    matrix: list[list[int]] = sk.confusion_matrix(said.truth, said.label, labels=list(said.classes)).tolist()
    return matrix
