"""Values that flow between tasks: parameters of a declared type, and artifacts known by their digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.errors import ParameterError

INTEGER, DOUBLE, STRING, BOOLEAN = "NUMBER_INTEGER", "NUMBER_DOUBLE", "STRING", "BOOLEAN"
LIST, STRUCT = "LIST", "STRUCT"
WORDS = {
    INTEGER: "an integer",
    DOUBLE: "a number",
    STRING: "text",
    BOOLEAN: "true or false",
    LIST: "a list",
    STRUCT: "a mapping",
}


@dataclass(frozen=True)
class Artifact:
    """One artifact: where it is, what it is, and the digest of its bytes (empty where there are none).

    Attributes:
        name: the name it was produced or imported under.
        uri: ``<store>/blobs/…`` for stored bytes, else the address that was imported.
        type: ``schemaTitle@schemaVersion``.
        digest: ``sha256:…`` of the file, or of the manifest of a directory.
        kind: ``file``, ``directory``, or empty without bytes.
        size: bytes in all.
        metadata: kfp metadata; metrics live here.
    """

    name: str
    uri: str = ""
    type: str = "system.Artifact@0.0.1"
    digest: str = ""
    kind: str = ""
    size: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The artifact as records and caches keep it."""
        return {**self.__dict__, "metadata": dict(self.metadata)}


def artifact_from_json(body: Mapping[str, Any]) -> Artifact:
    """Read what ``Artifact.as_json`` wrote."""
    return Artifact(**body)


def coerce(value: Any, type_: str, what: str) -> Any:
    """Return ``value`` as a parameter of the declared kfp type.

    Integers stay integers at every depth; a whole number stands for an integer; a list or mapping may come as JSON
    text; text takes anything (as JSON).

    Raises:
        ParameterError: the value is of another type (code ``parameter-type``).
    """
    if type_ in (LIST, STRUCT) and isinstance(value, str):
        value = _parsed(value)
    if type_ == STRING:
        return value if isinstance(value, str) else json.dumps(value)
    if type_ == BOOLEAN and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if type_ in (INTEGER, DOUBLE):
        return _number(value, type_, what)
    if isinstance(value, {BOOLEAN: bool, LIST: list}.get(type_, dict)):
        return value
    raise _mismatch(value, type_, what)


def _number(value: Any, type_: str, what: str) -> int | float:
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _mismatch(value, type_, what)
    if type_ == DOUBLE:
        return float(value)
    if isinstance(value, float) and not value.is_integer():
        raise _mismatch(value, type_, what)
    return int(value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _mismatch(value: Any, type_: str, what: str) -> ParameterError:
    shown = repr(value)
    return ParameterError(
        f"{what} is {shown if len(shown) <= 80 else shown[:77] + '...'}",
        allowed=f"It must be {WORDS.get(type_, type_)}.",
        code="parameter-type",
    )
