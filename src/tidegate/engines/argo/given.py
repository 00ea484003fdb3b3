"""Run parameters on their way to Argo: as text, or, where that is long, as blobs in the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.engines.argo.argument import MAX_INLINE, MAX_TOGETHER, argument, reference
from tidegate.store.blobs import Blobs


def given(parameters: Mapping[str, Any], blobs: Blobs) -> dict[str, str]:
    """Return the texts of parameters; what is too long to travel is stored, the longest first."""
    texts = {name: argument(value) for name, value in parameters.items()}
    for name in sorted(texts, key=lambda n: -len(texts[n])):
        if len(texts[name]) > MAX_INLINE or sum(map(len, texts.values())) > MAX_TOGETHER:
            texts[name] = reference(blobs.add_bytes(texts[name].encode()))
    return texts
