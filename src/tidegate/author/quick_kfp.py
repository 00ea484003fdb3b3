"""kfp without its client of a server: that takes longer to import than all the rest; neither tracing nor a step needs it.

Where ``kfp/__init__.py`` says ``from kfp.client import Client`` it is given a ``__getattr__`` instead, by whoever imports
kfp and in Python's own lock: no module stands for another, also not for a moment. A kfp of another form stays as it is.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

_CLIENT = "kfp.client"


def import_kfp_quickly() -> None:
    """From now on import kfp without its client, which comes when it is first asked for; one that is there stays."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)  # never removed: another thread that is looking would skip the one behind it


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "kfp" else None
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        spec.loader = _Loader(name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType | None:
        tree = ast.parse(self.get_data(self.path))
        if any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body):
            return super().get_code(fullname)  # it has its own way
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and ast.unparse(node) == f"from {_CLIENT} import Client":
                node.module = __name__
                node.names[0].name, node.names[0].asname = _asked_for.__name__, "__getattr__"
        return compile(tree, self.path, "exec", dont_inherit=True)


def _asked_for(name: str) -> Any:
    if name not in ("client", "Client"):
        raise AttributeError(f"module 'kfp' has no attribute {name!r}", name=name, obj=sys.modules["kfp"])
    module = importlib.import_module(_CLIENT)
    return module if name == "client" else module.Client
