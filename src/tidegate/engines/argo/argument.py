"""Run parameters as text: what stands in ``spec.arguments`` and behind ``argo submit -p``.

JSON, except that text which does not begin with a quotation mark is itself; ``null`` is a parameter that is not given.
What is too large to travel, or no JSON to Argo, is a blob, named by its digest; what Argo has to know of it stands
beside the digest, so that such a text is a control text too (see ``control``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tidegate.engines.argo.control import ABSENT, plain_json
from tidegate.plan.value import STRING

MAX_TOGETHER = 64 * 1024
REFERENCE = "tidegate:blob"
REFERS = f'{{"{REFERENCE}"'  # how the text of a reference begins, and no other


def argument(value: Any) -> str:
    """The text of a parameter; numbers that JSON readers change stand as Python writes them."""
    return plain_json(value, exact=True).replace(REFERS, REFERS.replace("t", "\\u0074", 1))


def reference(digest: str, known: str = ABSENT) -> str:
    """The text of a parameter that is in the store; ``known`` is the control text of what Argo reads of it."""
    rest = known[1:] if known == ABSENT else f",{known[1:]}"
    return f"{REFERS}:{json.dumps(digest)}{rest}"


def referenced(text: str) -> str:
    """The digest of a parameter that is in the store, empty where it travels itself."""
    if not text.startswith(REFERS):
        return ""
    found: Mapping[str, str] = json.loads(text)
    return found[REFERENCE]


def parsed(text: str, type_: str) -> Any:
    """Read the text of a parameter of a declared type; text that is no JSON is left as it is, for its type to refuse."""
    if type_ == STRING and not text.startswith('"'):
        return None if text == "null" else text
    try:
        return json.loads(text)
    except ValueError:
        return text
