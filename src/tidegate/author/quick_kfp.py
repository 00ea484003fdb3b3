"""kfp without its client of a server: that takes longer to import than all the rest; neither tracing nor a step needs it."""

from __future__ import annotations

import contextlib
import importlib
import sys
from types import ModuleType
from typing import Any

_CLIENT = "kfp.client"


def import_kfp() -> None:
    """Import kfp where nobody has yet; ``kfp.client`` and ``kfp.Client`` are imported when they are first asked for."""
    if "kfp" in sys.modules or _CLIENT in sys.modules:
        return
    sys.modules[_CLIENT] = stand_in = ModuleType(_CLIENT)
    stand_in.Client = None  # type: ignore[attr-defined]
    try:
        with contextlib.suppress(ImportError):  # the pipeline says it, with its own line
            kfp = importlib.import_module("kfp")
            vars(kfp).pop("Client", None)
            kfp.__getattr__ = _asked_for  # type: ignore[method-assign]
    finally:
        del sys.modules[_CLIENT]


def _asked_for(name: str) -> Any:
    if name not in ("client", "Client"):
        raise AttributeError(f"module 'kfp' has no attribute {name!r}", name=name, obj=sys.modules["kfp"])
    module = importlib.import_module(_CLIENT)
    return module if name == "client" else module.Client
