"""Placeholders ``{{$…}}`` in commands, arguments, environment variables and constants, parsed once into trees.

A template is text and placeholders in order; ``Concat`` and ``IfPresent`` structures nest templates. Text in double
braces that is none of kfp's placeholders stays what it is, as on the KFP backend.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_PLACEHOLDER = re.compile(r"\{\{\$(.*?)\}\}")
_NAME = r"\[(?:'([^']*)'|\"([^\"]*)\")\]"
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("executor_input", re.compile("")),
    ("input_parameter", re.compile(r"\.inputs\.parameters" + _NAME)),
    (
        "input_artifact",
        re.compile(r"\.inputs\.artifacts" + _NAME + r"(?:\.(uri|path|name|metadata)(?:" + _NAME + ")?)?"),
    ),
    (
        "output_artifact",
        re.compile(r"\.outputs\.artifacts" + _NAME + r"(?:\.(uri|path|name|metadata)(?:" + _NAME + ")?)?"),
    ),
    ("output_parameter", re.compile(r"\.outputs\.parameters" + _NAME + r"\.output_file")),
    ("output_file", re.compile(r"\.outputs\.output_file|\.outputMetadataUri")),
    (
        "context",
        re.compile(
            r"\.(pipeline_(?:job_(?:name|resource_name|uuid|create_time_utc|schedule_time_utc)"
            r"|task_(?:name|uuid)|root)|workspace_path)"
        ),
    ),
)


@dataclass(frozen=True)
class Placeholder:
    """One placeholder: its form, the name it speaks of, an artifact's field, a metadata key."""

    form: str
    name: str = ""
    attribute: str = ""
    key: str = ""


@dataclass(frozen=True)
class Text:
    """Text and placeholders, joined when rendered."""

    parts: tuple[str | Placeholder, ...]


@dataclass(frozen=True)
class Concat:
    """Templates joined without a space."""

    items: tuple[Template, ...]


@dataclass(frozen=True)
class IfPresent:
    """``then`` when the input was given, else ``otherwise``."""

    input: str
    then: tuple[Template, ...]
    otherwise: tuple[Template, ...]


Template = Text | Concat | IfPresent
Resolve = Callable[[Placeholder], Any]


def parse(text: str) -> Template:
    """Parse one command element, argument or constant."""
    if text.startswith('{"') and ('"Concat"' in text or '"IfPresent"' in text):
        try:
            found = _structure(json.loads(text))
        except (ValueError, RecursionError):
            found = None
        if found:
            return found
    return _text(text)


def _structure(value: Any) -> Template | None:
    if isinstance(value, str):
        return parse(value)
    if isinstance(value, dict) and set(value) == {"Concat"} and isinstance(value["Concat"], list):
        return Concat(tuple(t for v in value["Concat"] if (t := _structure(v))))
    if isinstance(value, dict) and set(value) == {"IfPresent"}:
        body = value["IfPresent"]
        return IfPresent(body["InputName"], _branch(body.get("Then")), _branch(body.get("Else")))
    return None


def _branch(value: Any) -> tuple[Template, ...]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(t for v in values if (t := _structure(v)))


def _text(text: str) -> Text:
    parts: list[str | Placeholder] = []
    at = 0
    for found in _PLACEHOLDER.finditer(text):
        if placeholder := _placeholder(found[1]):
            parts += [text[at : found.start()], placeholder]
            at = found.end()
    return Text(tuple(p for p in (*parts, text[at:]) if p))


def _placeholder(body: str) -> Placeholder | None:
    for form, pattern in _FORMS:
        if found := pattern.fullmatch(body):
            if form == "context":
                return Placeholder(form, found[1])
            groups = [*found.groups(), None, None, None, None, None]
            return Placeholder(form, groups[0] or groups[1] or "", groups[2] or "", groups[3] or groups[4] or "")
    return None


def placeholders(template: Template) -> frozenset[Placeholder]:
    """Return every placeholder of a template."""
    match template:
        case Text(parts):
            return frozenset(p for p in parts if isinstance(p, Placeholder))
        case Concat(items):
            return frozenset().union(*map(placeholders, items))
        case IfPresent(_, then, otherwise):
            return frozenset().union(*map(placeholders, (*then, *otherwise)))


def render(template: Template, resolve: Resolve, present: Callable[[str], bool]) -> list[str]:
    """Render a template to the words it stands for: one, or several or none for ``IfPresent``."""
    match template:
        case Text(parts):
            return ["".join(p if isinstance(p, str) else as_text(resolve(p)) for p in parts)]
        case Concat(items):
            return ["".join(word for i in items for word in render(i, resolve, present))]
        case IfPresent(name, then, otherwise):
            return [word for t in (then if present(name) else otherwise) for word in render(t, resolve, present)]


def as_text(value: Any) -> str:
    """A parameter value as it stands in a command line: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def substitute(value: Any, resolve: Resolve) -> Any:
    """Resolve the placeholders inside a constant of any JSON type; a string that is one placeholder keeps its type."""
    if isinstance(value, str):
        template = _text(value)
        if len(template.parts) == 1 and isinstance(template.parts[0], Placeholder):
            return resolve(template.parts[0])
        return "".join(p if isinstance(p, str) else as_text(resolve(p)) for p in template.parts)
    if isinstance(value, Mapping):
        return {as_text(substitute(k, resolve)): substitute(v, resolve) for k, v in value.items()}
    if isinstance(value, list):
        return [substitute(v, resolve) for v in value]
    return value


def placeholders_in(value: Any) -> frozenset[Placeholder]:
    """Return the placeholders that a constant of any JSON type holds, at any depth."""
    if isinstance(value, str):
        return placeholders(_text(value)) if "{{$" in value else frozenset()
    if isinstance(value, Mapping):
        return frozenset().union(*map(placeholders_in, [*value, *value.values()]))
    return frozenset().union(*map(placeholders_in, value)) if isinstance(value, list) else frozenset()
