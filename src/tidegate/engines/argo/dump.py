"""Argo objects as YAML text: the same bytes each time, no aliases, no line ever broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from tidegate.engines.argo.cluster import Object

_WIDTH = 1 << 30  # a broken line could break a tag


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, _: Any) -> bool:
        """Write what occurs twice twice."""
        return True


def dump(objects: Sequence[Object]) -> str:
    """Return objects as a YAML stream."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=False)
