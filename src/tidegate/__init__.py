"""tidegate: version control and CI/CD for machine-learning models on Kubeflow and Argo.

The public face is the sorted list ``__all__``; each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate.api import Options, Run, run
    from tidegate.author.component import component
    from tidegate.errors import TidegateError
    from tidegate.registry.policy import policy

__all__ = ["Options", "Run", "TidegateError", "component", "policy", "run"]
__version__ = "0.1.0"

_HOME = {
    "Options": "tidegate.api",
    "Run": "tidegate.api",
    "TidegateError": "tidegate.errors",
    "component": "tidegate.author.component",
    "policy": "tidegate.registry.policy",
    "run": "tidegate.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tidegate' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
