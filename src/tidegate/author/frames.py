"""Frames of a traceback: which are of what calls a component's function."""

from __future__ import annotations

import re

_MACHINERY = re.compile(
    r"<frozen .*|.*/runpy\.py|.*/tidegate/author/step\.py|.*/kfp/(v2/)?(dsl|components)/executor(_main)?\.py"
)


def is_machinery(file: str) -> bool:
    """Whether a frame's file is of what calls a component's function, not of what its author wrote."""
    return bool(_MACHINERY.fullmatch(file))
