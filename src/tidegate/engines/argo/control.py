"""Control values: what Argo itself has to know of a value, as text that survives its template language.

Operands of conditions and items of loops travel as Argo parameters, everything else through the store. The text is one of
``{"v": <json>}``, a value; ``{"n": 7}``, a list of 7 items that is too large to travel; ``{}``, none. It is ASCII without
control characters, and braces inside strings are escaped, so Argo finds no tag in it. Numbers that JSON readers change
(NaN, the infinities, integers beyond 2^53) are null in it: a condition on one is an error, as it is everywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.errors import StepFailed
from tidegate.ir.condition import MAX_EXACT

MAX_INLINE = 8 * 1024  # bytes
VALUE, COUNT = "value", "count"
ABSENT = "{}"


def control(value: Any, need: str = VALUE, what: str = "a value") -> str:
    """Return the text of a value; ``need`` says whether Argo reads the value or only counts its items.

    Raises:
        StepFailed: a condition or loop needs the value itself, and it is too large (code ``argo-control-too-large``).
    """
    found = '{"v":' + plain_json(value) + "}"
    if len(found) <= MAX_INLINE:
        return found
    if need == COUNT:
        return count(len(value) if isinstance(value, list) else 0)
    raise StepFailed(
        f"{what} takes {len(found)} bytes, and a condition or loop reads it",
        allowed=f"Up to {MAX_INLINE} bytes: Argo decides by it.",
        hint="Decide inside a component and return a short answer.",
        code="argo-control-too-large",
    )


def count(items: int) -> str:
    """The text of a list of which only the length is known."""
    return f'{{"n":{items}}}'


def plain_json(value: Any, *, exact: bool = False) -> str:
    """JSON in ASCII with braces in strings escaped.

    Args:
        value: any JSON value.
        exact: write numbers that JSON readers change as Python does, instead of leaving them out.
    """
    if isinstance(value, str):
        return json.dumps(value).replace("{", "\\u007b").replace("}", "\\u007d")
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{plain_json(str(k))}:{plain_json(v, exact=exact)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(plain_json(v, exact=exact) for v in value) + "]"
    if not exact and (
        (isinstance(value, float) and not math.isfinite(value)) or (type(value) is int and abs(value) > MAX_EXACT)
    ):
        return "null"
    return json.dumps(value)
