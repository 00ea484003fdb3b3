"""How Argo replaces ``{{tags}}``: in the JSON text of a whole template or task, not in its values (util/template).

A value that holds a tag is therefore expanded where it lands, in the next pass.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.engines.argo.expression import FUNCTIONS, evaluate
from tests.engines.argo.govalue import ExpressionError, go_json
from tests.engines.argo.syntax import identifiers

Values = Mapping[str, Any]
EVERYTHING = re.compile("")
REFERENCES = re.compile(r"^(tasks|steps)(\.|$)")
# not there yet when templates are first looked at, so expressions with them wait
LATE = {"item", "retries", "lastRetry.exitCode", "lastRetry.status", "lastRetry.duration", "lastRetry.message"}
LATE |= {"workflow.status", "workflow.failures"}


class SubstitutionError(Exception):
    """A tag cannot be replaced."""

    @property
    def missing(self) -> bool:
        """Whether Argo takes it for something that will be there later, and tries again for ever."""
        return any(words in str(self) for words in ("failed to resolve {{", " is missing", "variable not in env"))


def marshalled(document: Any) -> str:
    """json.Marshal."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def replaced(document: Any, values: Values, strict: re.Pattern[str] | None = None) -> Any:
    """A document with its tags replaced; unknown ones stay, unless they are ``strict``."""
    text = replaced_text(marshalled(document), values, strict, artifacts_later=strict is not EVERYTHING)
    try:
        return json.loads(text, parse_constant=str)
    except ValueError:
        raise SubstitutionError("cannot finish template replacement because the result was invalid JSON") from None


def replaced_text(text: str, values: Values, strict: re.Pattern[str] | None, artifacts_later: bool) -> str:
    """The text with each tag replaced, once."""
    names: dict[str, Any] | None = None
    made, (pieces, rest) = [], tags(text)
    for before, tag in pieces:
        made.append(before)
        if tag.startswith("="):
            names = {**expanded(values), **FUNCTIONS} if names is None else names
            made.append(expression(tag[1:], names, strict))
        else:
            made.append(simple(tag, values, strict, artifacts_later))
    return "".join([*made, rest])


def tags(text: str) -> tuple[list[tuple[str, str]], str]:
    """What stands before each ``{{``, and between it and the next ``}}``; then the rest (fasttemplate)."""
    found = []
    while "{{" in text:
        before, text = text.split("{{", 1)
        if "}}" not in text:
            raise SubstitutionError(f"Cannot find end tag in {text!r}")
        tag, text = text.split("}}", 1)
        found.append((before, tag))
    return found, text


def simple(tag: str, values: Values, strict: re.Pattern[str] | None, artifacts_later: bool) -> str:
    """simple_template.go."""
    name = tag.strip()
    if name not in values:
        return unknown(tag, name, values, strict, artifacts_later)
    value = values[name]
    if value is None:
        raise SubstitutionError(f"unable to substitute {{{{{tag}}}}}: output is an absent optional")
    return quoted(value)


def unknown(tag: str, name: str, values: Values, strict: re.Pattern[str] | None, artifacts_later: bool) -> str:
    at = tag.rfind("{{")
    if at > 0 and tag[at + 2 :] in values:
        if values[tag[at + 2 :]] is None:
            raise SubstitutionError(f"unable to substitute nested tag {{{{{tag}}}}}: absent optional")
        return "{{" + tag[:at] + quoted(values[tag[at + 2 :]])
    if strict and strict.search(name) and not (artifacts_later and ".outputs.artifacts." in name):
        raise SubstitutionError(f"failed to resolve {{{{{tag}}}}}")
    return "{{" + tag + "}}"


def expression(tag: str, names: dict[str, Any], strict: re.Pattern[str] | None) -> str:
    """expression_template.go: what fails, or is nil, stays as it is where something in it is not known, or all may be."""
    text = tag.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&")
    try:
        text = json.loads(f'"{text}"')
        found = [i for i in identifiers(text) if not has(names, i)]
    except (ValueError, ExpressionError) as e:
        raise SubstitutionError(f"failed to evaluate expression: {e}") from None
    if strict and (wanted := [i for i in found if strict.search(i)]):
        raise SubstitutionError(f"failed to evaluate expression: {wanted[0]} is missing")
    lenient = bool(found) or strict is None
    if lenient and LATE & set(found):
        return "{{=" + tag + "}}"
    try:
        value = evaluate(text, {n: v for n, v in names.items() if n not in FUNCTIONS})
        if value is None:
            raise ExpressionError(f"{text!r} is nil")
        result = go_json(value)
    except ExpressionError as e:
        if lenient:
            return "{{=" + tag + "}}"
        raise SubstitutionError(f"failed to evaluate expression: {e}") from None
    return result[1:-1] if isinstance(value, str) else quoted(result)


def has(names: Any, path: str) -> bool:
    """Whether a name is there, if only as nil."""
    *parents, last = path.split(".")
    for part in parents:
        names = names.get(part) if isinstance(names, dict) else None
    return isinstance(names, dict) and last in names


def expanded(values: Values) -> dict[str, Any]:
    """``{"a.b": 1}`` as ``{"a": {"b": 1}}``; of ``a`` and ``a.b`` the first gives way (util/expand)."""
    made: dict[str, Any] = {}
    for key in sorted(values):
        *parents, last = key.split(".")
        below = made
        for part in parents:
            if not isinstance(below.get(part), dict):
                below[part] = {}
            below = below[part]
        below[last] = values[key]
    return made


def quoted(text: str) -> str:
    """strconv.Quote without its quotes: not JSON where it writes \\x, \\a, \\v or \\U."""
    return "".join(map(escaped, text))


SHORT = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}


def escaped(character: str) -> str:
    if character in SHORT:
        return SHORT[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
