"""Trigger conditions: kfp's small part of CEL, parsed once into a tree, evaluated with operands that are values.

Grammar (what kfp's compiler emits, with its bugs, see ``parse``)::

    cond    := term (' && ' term)*
    term    := operand OP operand | '!(' cond ')' | '(' cond ')'
    OP      := == | != | <= | >= | < | >
    operand := [double(] [int(] inputs.parameter_values['NAME'] [)] [)] | 'text' | true | false | number

Evaluation has three values: true, false, error. An error stops the run. A number that is NaN, infinite, or an integer
beyond 2^53 (which JSON readers change) is an error, so it never passes a gate and never skips both branches.
"""

from __future__ import annotations

import contextlib
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.errors import DefinitionError, StepFailed

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_OP = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*")
_INPUT = re.compile(r"inputs\.(?:parameter_values|parameters)\[(?:'([^']+)'|\"([^\"]+)\")\]")
_CAST = re.compile(r"(double|int|string|bool)\(")
_WORD = re.compile(r"(true|false)\b|[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_QUOTED_CAST = re.compile(r"'(int|double)\(inputs\.parameter_values\['([^']+)'\]\)'")
MAX_LENGTH, MAX_DEPTH = 1_000_000, 50
MAX_EXACT = 2**53


@dataclass(frozen=True)
class Literal:
    """A constant operand."""

    value: bool | int | float | str


@dataclass(frozen=True)
class Input:
    """A task input by name, seen through casts (innermost first)."""

    name: str
    casts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compare:
    """``left OP right``."""

    op: str
    left: Literal | Input
    right: Literal | Input


@dataclass(frozen=True)
class Not:
    """``!(condition)``."""

    inner: Condition


@dataclass(frozen=True)
class And:
    """``a && b && …``."""

    terms: tuple[Condition, ...]


Condition = Compare | Not | And


def parse(text: str) -> Condition:
    """Parse a condition as kfp's compiler writes it.

    kfp does not escape string literals, so a literal ends at the first quote after which the rest of the condition
    still parses. It quotes the cast of an integer channel compared with a string (``'int(inputs…)' == '5'``); that
    operand is the integer's text.

    Raises:
        DefinitionError: the text is no such condition.
    """
    with contextlib.suppress(RecursionError):
        if tree := _whole(text):
            return tree
    raise DefinitionError(
        f"the condition {text[:120]!r} cannot be read",
        allowed="Comparisons of task outputs, parameters and constants, joined by &&, negated by !().",
        code="condition-unreadable",
    )


def _whole(text: str) -> Condition | None:
    readings: Iterator[tuple[Condition, int]] = _conjunction(text, 0, 0) if len(text) <= MAX_LENGTH else iter(())
    return next((tree for tree, end in readings if not text[end:].strip()), None)


# Each parser yields (tree, end) for every way to read the text at ``at``; the caller takes the first that fits.
def _conjunction(text: str, at: int, depth: int) -> Any:
    if depth > MAX_DEPTH:
        return
    for first, end in _term(text, at, depth):
        rest = re.compile(r"\s*&&\s*").match(text, end)
        if rest:
            for others, last in _conjunction(text, rest.end(), depth):
                terms = others.terms if isinstance(others, And) else (others,)
                yield And((first, *terms)), last
        yield first, end


def _term(text: str, at: int, depth: int) -> Any:
    for opening, wrap in (("!(", Not), ("(", lambda inner: inner)):
        if text.startswith(opening, at):
            for inner, end in _conjunction(text, at + len(opening), depth + 1):
                if text.startswith(")", end):
                    yield wrap(inner), end + 1
    for left, end in _operand(text, at):
        if op := _OP.match(text, end):
            for right, last in _operand(text, op.end()):
                yield Compare(op[1], left, right), last


def _operand(text: str, at: int) -> Any:
    if found := _QUOTED_CAST.match(text, at):
        yield Input(found[2], (found[1], "string")), found.end()
    if text.startswith("'", at) or text.startswith('"', at):
        end = text.find(text[at], at + 1)
        while end >= 0:
            yield Literal(text[at + 1 : end]), end + 1
            end = text.find(text[at], end + 1)
    if found := _WORD.match(text, at):
        yield Literal(_constant(found[0])), found.end()
    if found := _INPUT.match(text, at):
        yield Input(found[1] or found[2]), found.end()
    if cast := _CAST.match(text, at):
        for inner, end in _operand(text, cast.end()):
            if text.startswith(")", end):
                yield _cast_operand(cast[1], inner), end + 1


def _constant(word: str) -> bool | int | float:
    if word in ("true", "false"):
        return word == "true"
    return int(word) if re.fullmatch(r"[+-]?\d+", word) else float(word)


def _cast_operand(cast: str, operand: Literal | Input) -> Literal | Input:
    if isinstance(operand, Input):
        return Input(operand.name, (*operand.casts, cast))
    return Literal(_cast(cast, operand.value))


def inputs(condition: Condition) -> frozenset[str]:
    """Return the names of the task inputs that a condition reads."""
    match condition:
        case Compare(_, left, right):
            return frozenset(o.name for o in (left, right) if isinstance(o, Input))
        case Not(inner):
            return inputs(inner)
        case And(terms):
            return frozenset().union(*map(inputs, terms))


def evaluate(condition: Condition, values: Mapping[str, Any]) -> bool:
    """Evaluate a condition on values by input name.

    Raises:
        StepFailed: the condition has no truth value (code ``condition-error``).
    """
    match condition:
        case Compare(op, left, right):
            return _compare(op, _value(left, values), _value(right, values))
        case Not(inner):
            return not evaluate(inner, values)
        case And(terms):
            return False not in [evaluate(t, values) for t in terms]  # all of them: an error in any is an error


def _value(operand: Literal | Input, values: Mapping[str, Any]) -> Any:
    if isinstance(operand, Literal):
        return operand.value
    if operand.name not in values:
        raise _error(f"{operand.name!r} has no value")
    value = values[operand.name]
    for cast in operand.casts:
        value = _cast(cast, value)
    return value


def _cast(cast: str, value: Any) -> Any:
    try:
        if cast == "string":
            return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
        if cast == "bool":
            return {"true": True, "false": False, True: True, False: False}[value]
        if isinstance(value, bool):
            return int(value)
        return float(value) if cast == "double" else _integer(value)
    except (TypeError, ValueError, KeyError, OverflowError):
        raise _error(f"{value!r} is no {cast}") from None


def _integer(value: Any) -> int:
    if isinstance(value, str):
        value = float(value) if not re.fullmatch(r"[+-]?\d+", value) else int(value)
    if isinstance(value, float) and not value.is_integer():
        raise _error(f"{value!r} is no integer")
    return int(value)


def _compare(op: str, left: Any, right: Any) -> bool:
    for value in (left, right):
        _check_number(value)
    if _kind(left) != _kind(right):
        raise _error(f"{left!r} and {right!r} cannot be compared")
    return _OPERATORS[op](left, right)


def _kind(value: Any) -> str:
    kind = {bool: "boolean", int: "number", float: "number", str: "string"}.get(type(value))
    if not kind:
        raise _error(f"a {type(value).__name__} cannot be compared")
    return kind


def _check_number(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise _error(f"{value} is not a number that can be compared")
    if type(value) is int and abs(value) > MAX_EXACT:
        raise _error(f"{value} is beyond 2^53, where JSON readers change integers")


def _error(found: str) -> StepFailed:
    return StepFailed(
        f"a condition has no truth value: {found}",
        allowed="Finite numbers with numbers, text with text, true/false with true/false.",
        code="condition-error",
    )
