"""Argo objects as YAML text: the same bytes each time, no aliases, no line ever broken, no text that looks like a number.

kubectl and argo read YAML as Go does, where ``y``, ``n`` and ``1e3`` are no text: whatever is not plainly a word is
quoted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from tidegate.engines.argo.cluster import Object

_WIDTH = 1 << 30  # a broken line could break a tag
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_NO_WORDS = set("y n yes no on off true false null nan inf".split())


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, _: Any) -> bool:
        """Write what occurs twice twice."""
        return True


def _text(dumper: yaml.CSafeDumper, value: str) -> yaml.ScalarNode:
    plain = _WORD.fullmatch(value) and value.lower() not in _NO_WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, None if plain else "'")


_Dumper.add_representer(str, _text)


def dump(objects: Sequence[Object]) -> str:
    """Return objects as a YAML stream."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=False)
