"""Load a skops file by an allow-list of our own; what the file itself asks for is never trusted."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from components.skops_io import skops_io
from tidegate.errors import ModelRefused

# of scikit-learn's compiled types, the two that our estimators need and skops does not admit by itself
ALLOWED = frozenset({"sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"})


def load_pipeline(model: Path) -> Any:
    """Load ``model.skops``.

    Raises:
        ModelRefused: there is none, it is damaged, or it holds a type that is not on the list.
    """
    skops = skops_io()
    path = model / "model.skops"
    if not path.is_file():
        raise ModelRefused("the model has no model.skops", allowed="Cross-validation needs one; use folds=0.")
    data = path.read_bytes()
    try:
        asked = set(skops.get_untrusted_types(data=data))
        if unknown := sorted(asked - ALLOWED):
            raise ModelRefused(
                f"model.skops holds the type {unknown[0]}", allowed=f"Beside skops' own: {sorted(ALLOWED)}."
            )
        return skops.loads(data, trusted=sorted(asked))
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError) as e:
        raise ModelRefused(f"model.skops cannot be read: {str(e)[:200]}") from e
