"""Trigger conditions: kfp's small part of CEL, parsed once into a tree, evaluated with operands that are values.

What kfp's compiler writes, and no other text, is read with its bugs mended (strings without escapes)::

    cond    := term (' && ' term)*          term := cmp | '!(' cmp ')'
    cmp     := channel ' OP ' operand       OP   := == | != | <= | >= | < | >
    channel := [double(] [int(] inputs.parameter_values['NAME'] [)] [)], or that in quotes: its text
    operand := channel | 'text' | true | false | number | double(number)

Other writers may nest terms, space them freely, put constants first and use double quotes; their strings are CEL's own.

Evaluation has three values: true, false, error. An error stops the run. A number that is NaN, infinite, or an integer
beyond 2^53 (which JSON readers change) is an error, so it never passes a gate and never skips both branches. Terms are
evaluated left to right up to the first that is false, as Python's ``elif`` does.
"""

from __future__ import annotations

import math
import operator
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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
_NUMBER = r"-?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?"
_CONSTANT = re.compile(rf"(?:true|false|{_NUMBER})(?![\w.])")
# what the compiler writes
_JOIN = " && "
_COMPILED_OP = re.compile(r" (==|!=|<=|>=|<|>) ")
_COMPILED_CONSTANT = re.compile(rf"(double\()?({_CONSTANT.pattern})(?(1)\))")
_CHANNEL = re.compile(r"('?)(double\()?(int\()?inputs\.parameter_values\['([^']+)'\](?(3)\))(?(2)\))(?(1)\1)")
_CHANNEL_PREFIX = "pipelinechannel--"
_SWALLOWED = re.compile(r"'\s*+\)*+\s*+(?:&&|\|\||\?)")
# what others write
_SPACE, _AND, _CLOSE = re.compile(r"\s*+"), re.compile(r"\s*+&&"), re.compile(r"\s*+\)")
_OP = re.compile(r"\s*+(==|!=|<=|>=|<|>)")
_INPUT = re.compile(r"inputs\.(?:parameter_values|parameters)\[(?:'([^']+)'|\"([^\"]+)\")\]")
_CASTS = re.compile(r"(?:(?:double|int)\(\s*+)*+")
_STRING = re.compile(r"'([^'\\]*+)'|\"([^\"\\]*+)\"")
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


class _Unreadable(Exception):
    pass


def parse(text: str) -> Condition:
    """Parse a condition.

    kfp does not escape string literals. In text that its compiler can have written, a literal ends at the first quote
    after which the rest are terms of the compiler's. It also quotes the channel that it compares with a string
    (``'int(inputs…)' == '5'``); that operand is the value's text. One that it inverts cannot be known: ``== false`` is
    what it writes for a boolean channel ``== 1``.

    Raises:
        DefinitionError: the text is no such condition (code ``condition-unreadable``), can never have a truth value
            (``condition-error``), or may be one literal as well as several terms (``condition-ambiguous``).
    """
    try:
        if len(text) > MAX_LENGTH:
            raise _Unreadable
        tree = _compiled(text) or _written(text)
    except (_Unreadable, StepFailed, ValueError):
        raise DefinitionError(
            f"the condition {text[:120]!r} cannot be read",
            allowed="Comparisons of task outputs, parameters and constants, joined by &&, negated by !().",
            code="condition-unreadable",
        ) from None
    _check_literals(tree, text)
    return tree


@dataclass
class _Ends:
    """Where terms may end, from the last to the first: before a term that was read, or at the end of the text."""

    text: str
    known: set[int] = field(default_factory=set)
    behind: dict[str, list[int]] = field(default_factory=lambda: {"'": [], "')": []})

    def add(self, end: int) -> None:
        self.known.add(end)
        for closing, ends in self.behind.items():
            if self.text.endswith(closing, 0, end):
                ends.append(-end)

    def first(self, closing: str, at: int) -> int | None:
        ends = self.behind[closing]
        found = bisect_right(ends, -(at + len(closing)))
        return -ends[found - 1] if found else None


def _compiled(text: str) -> Condition | None:
    """Read what the compiler wrote, from the last term to the first, so that each place is looked at once."""
    terms: dict[int, tuple[Condition, int]] = {}
    ends = _Ends(text)
    ends.add(len(text))
    joins = [found.start() for found in re.finditer(f"(?={_JOIN})", text)]
    for start in [*(j + len(_JOIN) for j in reversed(joins)), 0]:
        if read := _compiled_term(text, start, ends):
            terms[start] = read
            ends.add(start - len(_JOIN))
    chain: list[Condition] = []
    at = 0
    while at in terms:
        term, end = terms[at]
        chain.append(term)
        at = end + len(_JOIN)
    return And(tuple(chain)) if len(chain) > 1 else chain[0] if chain else None


def _compiled_term(text: str, start: int, ends: _Ends) -> tuple[Condition, int] | None:
    opening, closing = ("!(", ")") if text.startswith("!(", start) else ("", "")
    left = _channel(text, start + len(opening))
    op = left and _COMPILED_OP.match(text, left[1])
    if not left or not op:
        return None
    for right, end in _compiled_operands(text, op.end(), closing, ends):
        if text.startswith(closing, end) and end + len(closing) in ends.known:
            made = Compare(op[1], left[0], right)
            return Not(made) if opening else made, end + len(closing)
    return None


def _compiled_operands(text: str, at: int, closing: str, ends: _Ends) -> Iterator[tuple[Literal | Input, int]]:
    channel = _channel(text, at)
    if channel and (text[at] != "'" or channel[0].name.startswith(_CHANNEL_PREFIX)):
        yield channel
    if constant := _COMPILED_CONSTANT.match(text, at):
        value = _constant(constant[2])
        yield Literal(_cast("double", value) if constant[1] else value), constant.end()
    if text.startswith("'", at) and (end := ends.first("'" + closing, at + 1)):
        end -= len(closing)
        yield Literal(text[at + 1 : end - 1]), end


def _channel(text: str, at: int) -> tuple[Input, int] | None:
    if not (found := _CHANNEL.match(text, at)):
        return None
    casts = ("int" if found[3] else "", "double" if found[2] else "", "text" if found[1] else "")
    return Input(found[4], tuple(filter(None, casts))), found.end()


def _written(text: str) -> Condition:
    tree, end = _conjunction(text, 0, 0)
    if text[end:].strip():
        raise _Unreadable
    return tree


def _conjunction(text: str, at: int, depth: int) -> tuple[Condition, int]:
    if depth > MAX_DEPTH:
        raise _Unreadable
    terms: list[Condition] = []
    while True:
        term, end = _term(text, _skip(_SPACE, text, at), depth)
        terms.append(term)
        if not (joined := _AND.match(text, end)):
            return And(tuple(terms)) if len(terms) > 1 else term, end
        at = joined.end()


def _term(text: str, at: int, depth: int) -> tuple[Condition, int]:
    for opening in ("!(", "("):
        if text.startswith(opening, at):
            inner, end = _conjunction(text, at + len(opening), depth + 1)
            return Not(inner) if opening == "!(" else inner, _skip(_CLOSE, text, end)
    left, end = _operand(text, at)
    if not (op := _OP.match(text, end)):
        raise _Unreadable
    right, end = _operand(text, _skip(_SPACE, text, op.end()))
    return Compare(op[1], left, right), end


def _operand(text: str, at: int) -> tuple[Literal | Input, int]:
    casts = re.findall("double|int", text[at : (start := _skip(_CASTS, text, at))])
    if len(casts) > MAX_DEPTH:
        raise _Unreadable
    operand, end = _atom(text, start)
    for cast in reversed(casts):
        operand, end = _cast_operand(cast, operand), _skip(_CLOSE, text, end)
    return operand, end


def _atom(text: str, at: int) -> tuple[Literal | Input, int]:
    if found := _STRING.match(text, at):
        return Literal(found[1] or found[2] or ""), found.end()
    if found := _CONSTANT.match(text, at):
        return Literal(_constant(found[0])), found.end()
    if found := _INPUT.match(text, at):
        return Input(found[1] or found[2]), found.end()
    raise _Unreadable


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    if not (found := pattern.match(text, at)):
        raise _Unreadable
    return found.end()


def _constant(word: str) -> bool | int | float:
    if word in ("true", "false"):
        return word == "true"
    return int(word) if re.fullmatch(r"-?[0-9]+", word) else float(word)


def _cast_operand(cast: str, operand: Literal | Input) -> Literal | Input:
    if isinstance(operand, Input):
        return Input(operand.name, (*operand.casts, cast))
    return Literal(_cast(cast, operand.value))


def _check_literals(tree: Condition, text: str) -> None:
    for value in _literals(tree):
        if isinstance(value, str):
            last = value.rfind("inputs.parameter")
            if last >= 0 and _SWALLOWED.search(value, 0, last):
                raise DefinitionError(
                    f"the condition {text[:120]!r} may be one comparison with a long text, or several comparisons",
                    allowed="A text without a quote that an operator and an input follow.",
                    code="condition-ambiguous",
                )
        try:
            _check_number(value)
        except StepFailed as e:
            raise DefinitionError(f"{e.found} in {text[:120]!r}", allowed=e.allowed, code=e.code) from None


def _literals(tree: Condition) -> list[Any]:
    match tree:
        case Compare(_, left, right):
            return [o.value for o in (left, right) if isinstance(o, Literal)]
        case Not(inner):
            return _literals(inner)
        case And(terms):
            return [value for term in terms for value in _literals(term)]


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
            return all(evaluate(t, values) for t in terms)


def _value(operand: Literal | Input, values: Mapping[str, Any]) -> Any:
    if isinstance(operand, Literal):
        return operand.value
    if operand.name not in values:
        raise _error(f"{operand.name!r} has no value")
    value = values[operand.name]
    for cast in operand.casts:
        _check_number(value)  # before the cast hides what it was
        value = _cast(cast, value)
    return value


def _cast(cast: str, value: Any) -> Any:
    if cast == "text":
        _kind(value)
        return str(value).lower() if isinstance(value, bool) else str(value)
    number = isinstance(value, str) and re.fullmatch(r"-?[0-9]+" if cast == "int" else _NUMBER, value)
    try:
        if number or type(value) is int or (type(value) is float and (cast == "double" or value.is_integer())):
            return float(value) if cast == "double" else int(value)
    except (ValueError, OverflowError):
        pass
    raise _error(f"{_shown(value)} is no {cast}")


def _compare(op: str, left: Any, right: Any) -> bool:
    for value in (left, right):
        _check_number(value)
    if _kind(left) != _kind(right):
        raise _error(f"{_shown(left)} and {_shown(right)} cannot be compared")
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
        raise _error(f"{_shown(value)} is beyond 2^53, where JSON readers change integers")


def _shown(value: Any) -> str:
    shown = (
        f"an integer of {value.bit_length()} bits"
        if isinstance(value, int) and value.bit_length() > 99
        else repr(value)
    )
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _error(found: str) -> StepFailed:
    return StepFailed(
        f"a condition has no truth value: {found}",
        allowed="Finite numbers with numbers, text with text, true/false with true/false.",
        code="condition-error",
    )
