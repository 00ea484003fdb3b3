"""skops without torch, which it imports where it is installed: it looks through all of scikit-learn, adapters included."""

from __future__ import annotations

import sys
from typing import Any

_ADAPTER = "sklearn.externals.array_api_compat.torch"


def skops_io() -> Any:
    """Return ``skops.io``; no model of ours is made of tensors, and torch takes as long to import as all the rest."""
    kept_out = _ADAPTER not in sys.modules
    if kept_out:
        sys.modules[_ADAPTER] = None  # type: ignore[assignment]
    try:
        import skops.io
    finally:
        if kept_out:
            del sys.modules[_ADAPTER]
    return skops.io
