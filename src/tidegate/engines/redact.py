"""Keep secrets out of what is shown and stored: their values are replaced in logs and errors.

Plain, base64, hexadecimal and URL-encoded values are found; one that a step transforms in another way is not. Values
shorter than four characters are left alone: replacing them would make every log unreadable.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
_SHORTEST = 4


def forms(values: Iterable[str]) -> tuple[str, ...]:
    """The texts as which secrets may appear, the longest first."""
    found: set[str] = set()
    for value in (v for v in values if len(v) >= _SHORTEST):
        data = value.encode("utf-8", "surrogateescape")
        encoded = base64.b64encode(data).decode().rstrip("=")
        found |= {value, encoded, data.hex(), data.hex().upper(), quote(value, safe=""), quote_plus(value)}
        found |= {json.dumps(value)[1:-1], *(line for line in value.splitlines() if len(line) >= _SHORTEST)}
    return tuple(sorted(found, key=len, reverse=True))


def redacted(text: str, secrets: Iterable[str]) -> str:
    """A text without secrets."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def redact_file(path: Path, secrets: tuple[str, ...]) -> None:
    """Take secrets out of a file."""
    if secrets:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        path.write_bytes(redacted(text, secrets).encode("utf-8", "surrogateescape"))


def redact_error(error: Mapping[str, Any] | None, secrets: tuple[str, ...]) -> Mapping[str, Any] | None:
    """An error without secrets, at any depth."""
    return _walk(error, secrets) if error and secrets else error


def _walk(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return redacted(value, secrets)
    if isinstance(value, Mapping):
        return {k: _walk(v, secrets) for k, v in value.items()}
    return [_walk(v, secrets) for v in value] if isinstance(value, list) else value
