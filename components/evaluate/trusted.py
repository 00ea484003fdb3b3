"""Load a skops file by an allow-list of our own; what the file itself asks for is never trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tidegate.errors import ModelRefused

# types of scikit-learn's trees and losses that skops does not know by itself
ALLOWED = frozenset(
    {
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
        "sklearn._loss.link.Interval",
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn._loss._loss.CyHalfMultinomialLoss",
        "sklearn.tree._tree.Tree",
        "sklearn.compose._column_transformer._RemainderColsList",
        "numpy.dtype",
        "numpy.random.mtrand.RandomState",
        "numpy.random._mt19937.MT19937",
        "collections.defaultdict",
    }
)


def load_pipeline(model: Path) -> Any:
    """Load ``model.skops``.

    Raises:
        ModelRefused: there is none, or it holds a type that is not on the list.
    """
    import skops.io

    path = model / "model.skops"
    if not path.is_file():
        raise ModelRefused("the model has no model.skops", allowed="Cross-validation needs one; use folds=0.")
    data = path.read_bytes()
    unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - ALLOWED)
    if unknown:
        raise ModelRefused(f"model.skops holds the type {unknown[0]}", allowed="Types of scikit-learn that are listed.")
    return skops.io.loads(data, trusted=sorted(ALLOWED & set(skops.io.get_untrusted_types(data=data))))
