"""Argo's expressions (expr-lang) for sources and conditions: values are operands, never text that is read again.

A *text* expression gives the control text of a value (see ``control``), a *value* expression the JSON value itself and
an error where there is none. Argo finds the end of an expression by its two closing braces, so none may stand in one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tidegate.engines.argo.argument import REFERS
from tidegate.engines.argo.control import control
from tidegate.errors import DefinitionError
from tidegate.ir.condition import MAX_EXACT, And, Compare, Condition, Input, Literal, Not
from tidegate.plan.value import BOOLEAN, DOUBLE, INTEGER, STRING

ABSENT = '"{}"'
NO_VALUE = 'fromJSON("no value")'  # an error whenever it is evaluated
_PLAIN = re.compile(r"[ !#-&(-\[\]-z|~]")
Operand = Callable[[str], tuple[str, str]]


def literal(text: str) -> str:
    """A string literal; what JSON, YAML or Argo could read otherwise is written by its code point."""
    return '"' + "".join(c if _PLAIN.fullmatch(c) else _escaped(c) for c in text) + '"'


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def tag(expression: str) -> str:
    """An expression where Argo expects text."""
    if "}}" in expression or "{{" in expression:
        raise AssertionError(f"Argo would cut this expression: {expression}")
    return "{{=" + expression + "}}"


def constant(value: Any) -> str:
    """The control text of a constant."""
    return ABSENT if value is None else literal(control(value, what="a constant"))


def task_output(task: str, output: str, *, may_have_failed: bool = False) -> str:
    """The control text of a task's output; a task that did not run has none, and to ask one that failed is an error."""
    found = f"(tasks['{task}'].outputs.parameters['{output}'] ?? {ABSENT})"
    return f"(tasks['{task}'].status == \"Succeeded\" ? {found} : {ABSENT})" if may_have_failed else found


def template_input(name: str) -> str:
    """The control text of an input of the template around."""
    return f"inputs.parameters['{name}']"


def root_input(name: str, type_: str) -> str:
    """The control text of a run parameter, which stands as people write it (see ``argument``)."""
    said = f"workflow.parameters['{name}']"
    found = f"{wrapped_open()} + {said} + {wrapped_close()}"
    if type_ == STRING:
        found = f"({said} startsWith {literal(chr(34))} ? {found} : {wrapped_open()} + {safe_json(said)} + {wrapped_close()})"
    found = f"({said} startsWith {literal(REFERS)} ? {said} : {found})"
    return f'({said} == "null" ? {ABSENT} : {found})'


def wrapped_open() -> str:
    """The beginning of a control text with a value."""
    return literal('{"v":')


def wrapped_close() -> str:
    """The end of a control text."""
    return literal("}")


def safe_json(value: str) -> str:
    """JSON of a value expression in which Argo finds no tag."""
    return f"replace(toJson({value}), {literal('{{')}, {literal('{' + chr(92) + 'u007b')})"


def text_of(value: str) -> str:
    """The control text of a value expression."""
    return f"({wrapped_open()} + {safe_json(value)} + {wrapped_close()})"


def value_of(text: str) -> str:
    """The value in a control text."""
    return f"fromJSON({text}).v"


def as_string(value: str) -> str:
    """A value that is declared to be text: kfp gives items of unknown type to such inputs, and they become JSON."""
    return f'(type({value}) in ["string", "nil"] ? {value} : toJson({value}))'


def picked(value: str, path: tuple[str, ...]) -> str:
    """A value inside a value."""
    return value + "".join(f"[{literal(key)}]" for key in path)


def list_of(text: str, type_: str) -> str:
    """The items in a control text; a list may be given as JSON text."""
    value = value_of(text)
    return value if type_ == "LIST" else f'(type({value}) == "string" ? fromJSON({value}) : {value})'


def indexes(text: str, type_: str) -> str:
    """The indexes of the items in a control text, as a JSON list."""
    found = f"fromJSON({text})"
    items = f"len({list_of(text, type_)})"
    return f"toJson(map(0..(int({found}.v == nil ? {found}.n : {items}) - 1), #))"


def item(items: str, type_: str, index: str) -> str:
    """One item, by its index in text."""
    return f"{list_of(items, type_)}[int({index})]"


def collected(text: str) -> str:
    """The control text of what the iterations of a loop made, from Argo's list of their texts."""
    return (
        f'let made = filter(fromJSON({text}), "v" in # || "n" in #); '
        f'any(made, "n" in #) ? {literal(chr(123) + chr(34) + "n" + chr(34) + ":")} + string(len(made)) + {wrapped_close()} '
        f": {text_of('map(made, #.v)')}"
    )


def counted(text: str) -> str:
    """The control text of artifacts that the iterations of a loop made: how many there are."""
    made = f'filter(fromJSON({text}), "n" in #)'
    return (
        f"{literal(chr(123) + chr(34) + 'n' + chr(34) + ':')} + string(sum(map({made}, int(#.n)))) + {wrapped_close()}"
    )


def condition(found: Condition, operand: Operand) -> str:
    """A condition as an expression that is true, false, or an error.

    Args:
        found: the parsed condition.
        operand: gives the value expression of a task input and its declared type ("" where it is not known).
    """
    match found:
        case Compare(op, left, right):
            return _compare(op, _side(left, operand), _side(right, operand))
        case Not(inner):
            return f"!({condition(inner, operand)})"
        case And(terms):
            return " && ".join(f"({condition(t, operand)})" for t in terms)


def _side(side: Literal | Input, operand: Operand) -> tuple[str, str]:
    if isinstance(side, Literal):
        value = side.value
        if isinstance(value, str):
            return literal(value), "string"
        return (str(value).lower(), "bool") if isinstance(value, bool) else (_number(value), "float")
    text, type_ = operand(side.name)
    for cast in side.casts:
        text, type_ = _cast(cast, text, type_)
    return text, {STRING: "string", BOOLEAN: "bool", INTEGER: "float", DOUBLE: "float"}.get(type_, type_)


def _number(value: float) -> str:
    text = repr(float(value))
    return f"({text})" if value < 0 else text


def _cast(cast: str, text: str, type_: str) -> tuple[str, str]:
    if cast == "text":
        if type_ not in (STRING, INTEGER, BOOLEAN):
            raise DefinitionError(
                f"a condition compares the text of a value of type {type_ or 'unknown'}",
                allowed="Text, integers, true and false; Argo writes other numbers in its own way.",
                code="argo-condition",
            )
        return (text, type_) if type_ == STRING else (f"({text} == nil ? {NO_VALUE} : toJson({text}))", "string")
    if type_ in (INTEGER, DOUBLE):
        return (text, type_) if cast == "double" or type_ == INTEGER else (_whole(text), INTEGER)
    pattern = literal("^-?[0-9]+$" if cast == "int" else r"^-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$")
    number, read = (_whole(x) if cast == "int" else x for x in (text, f"float({text})"))
    of_text = f"({text} matches {pattern} ? {read} : {NO_VALUE})"
    return f'(type({text}) == "string" ? {of_text} : type({text}) == "float" ? {number} : {NO_VALUE})', INTEGER


def _whole(text: str) -> str:
    return f"(floor({text}) == {text} && {text} <= {MAX_EXACT} && {text} >= -{MAX_EXACT} ? {text} : {NO_VALUE})"


def _compare(op: str, left: tuple[str, str], right: tuple[str, str]) -> str:
    (a, kind_a), (b, kind_b) = left, right
    kinds = {k for k in (kind_a, kind_b) if k in ("string", "bool", "float")}
    if len(kinds) > 1:
        raise DefinitionError(
            f"a condition compares a {kind_a} with a {kind_b}", allowed="Values of one kind.", code="condition-error"
        )
    kind = next(iter(kinds), "")
    alike = [f'type({x}) == "{kind}"' for x in (a, b) if not _is_literal(x)] if kind else [
        f"type({a}) == type({b})", f'type({a}) in ["string", "bool", "float"]'
    ]  # fmt: skip
    compared = f"{a} {op} {b}"
    if op not in ("==", "!=") and kind in ("", "bool"):  # Argo has no order of true and false
        numbers = f"({a} ? 1 : 0) {op} ({b} ? 1 : 0)"
        compared = numbers if kind else f'(type({a}) == "bool" ? {numbers} : {compared})'
    return f"({' && '.join(alike)} ? {compared} : {NO_VALUE})" if alike else compared


def _is_literal(text: str) -> bool:
    return bool(re.fullmatch(r'"[^"]*"|true|false|\(?-?[0-9][0-9.e+-]*\)?', text))
