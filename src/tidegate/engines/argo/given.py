"""Run parameters on their way to Argo: as text, or, where that is long, as blobs in the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.engines.argo.argument import MAX_TOGETHER, argument, reference
from tidegate.engines.argo.control import ABSENT, MAX_INLINE, control, plain_json
from tidegate.store.blobs import Blobs


def given(parameters: Mapping[str, Any], blobs: Blobs, needs: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the texts of parameters; what is too long to travel, or no JSON to Argo, is stored, the longest first.

    Args:
        parameters: the values.
        blobs: where the others go.
        needs: what Argo reads of them by name, ``VALUE`` or ``COUNT``.
    """
    needs = needs or {}
    texts = {name: argument(value) for name, value in parameters.items()}
    for name in sorted(texts, key=lambda n: -len(texts[n])):
        value, need = parameters[name], needs.get(name)
        too_long = len(texts[name]) > MAX_INLINE or sum(map(len, texts.values())) > MAX_TOGETHER
        if too_long or (need and _changed(value)):
            known = control(value, need, f"the parameter {name!r}") if need else ABSENT
            texts[name] = reference(blobs.add_bytes(texts[name].encode()), known)
    return texts


def _changed(value: Any) -> bool:
    """Whether Argo's JSON reader has another number, or none, for one in a value."""
    return plain_json(value) != plain_json(value, exact=True)
