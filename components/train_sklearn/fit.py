"""Fit a scikit-learn pipeline whose input is the raw columns of the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from sklearn.base import ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from components import dataset
from components.train_sklearn import table
from tidegate.errors import ParameterError

ESTIMATORS: Mapping[str, tuple[type[ClassifierMixin], Mapping[str, Any]]] = {
    "logistic_regression": (LogisticRegression, {"max_iter": 1000}),
    "random_forest": (RandomForestClassifier, {"n_estimators": 200, "n_jobs": 1}),
    "hist_gradient_boosting": (HistGradientBoostingClassifier, {"early_stopping": False}),
}


def fit(frame: pl.DataFrame, label: str, estimator: str, hyper_parameters: Mapping[str, Any], seed: int) -> Pipeline:
    """Fit and return a pipeline.

    Categories are one-hot encoded in the graph: gradient boosting's own categoricals are not, because skl2onnx converts
    them to a graph that gives other answers.

    Raises:
        ParameterError: an unknown estimator, label or hyper-parameter, or data that the estimator cannot learn from.
    """
    truth = dataset.column(frame, label)
    features = frame.drop(label)
    table.check(features, truth)
    steps = [("prepare", _preparation(features, scale=estimator == "logistic_regression"))]
    pipeline = Pipeline([*steps, ("classify", build(estimator, hyper_parameters, seed))])
    try:
        return pipeline.fit(table.features(features), truth.to_numpy())
    except (ValueError, TypeError) as e:  # a hyper-parameter's value, missing numbers, one class only
        raise ParameterError(f"{estimator} cannot be fitted: {str(e).splitlines()[0]}") from e


def build(estimator: str, hyper_parameters: Mapping[str, Any], seed: int) -> Any:
    """Make an unfitted estimator by name."""
    if estimator not in ESTIMATORS:
        raise ParameterError(f"there is no estimator {estimator!r}", allowed=f"One of {', '.join(ESTIMATORS)}.")
    kind, defaults = ESTIMATORS[estimator]
    made = kind(**defaults, random_state=seed)
    if "random_state" in hyper_parameters:
        raise ParameterError("random_state is no hyper-parameter here", allowed="It is the parameter `seed`.")
    if unknown := sorted(set(hyper_parameters) - set(made.get_params())):
        raise ParameterError(
            f"{estimator} has no hyper-parameter {unknown[0]!r}",
            allowed=f"Its own: {', '.join(sorted(made.get_params()))}.",
        )
    return made.set_params(**hyper_parameters)


def _preparation(features: pl.DataFrame, *, scale: bool) -> ColumnTransformer:
    texts = [n for n, t in features.schema.items() if t == pl.String]
    numbers = [n for n in features.columns if n not in texts]
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    parts = [("numbers", StandardScaler() if scale else "passthrough", numbers)]
    return ColumnTransformer([*parts, *([("categories", categories, texts)] if texts else [])])
