"""Conditions against a reference CEL, and against time: three results, in steps that grow with the text.

The reference gets the same tree, its strings escaped and its numbers given the types that kfp declares. Deliberate
differences, all of them errors of ours where CEL goes on: NaN, infinity and integers beyond 2^53; ``int(1.5)``; an
error to the left of a false term (Python's meaning of ``elif``; CEL's ``&&`` forgets it).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from random import Random
from types import FrameType
from typing import Any

import celpy
import pytest
from celpy import celtypes
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from conftest import LONG
from tidegate.errors import DefinitionError, StepFailed
from tidegate.ir import condition

TEXT = "it's|a\\b|two\nlines|true|5|' && '|') && !('|ünïcödé|\U0001f600|\x00|\r|\"|x' == 'x|".split("|")
NUMBERS = [0, 1, -1, 5, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1]
REALS = [0.0, -0.0, 1.0, 5.0, 0.1, -2.5, 1e16, 5e-324, 1e308, math.nan, math.inf, -math.inf]
# values by declared type of the channel
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "STRING": st.sampled_from(TEXT) | st.text(max_size=6),
    "BOOLEAN": st.booleans(),
    "NUMBER_INTEGER": st.sampled_from(NUMBERS) | st.integers(-(2**62), 2**62),
    "NUMBER_DOUBLE": st.sampled_from(REALS) | st.floats(),
}
# what has no place in text that kfp writes: a literal beyond what its channel can be compared with
CONSTANTS = {
    **VALUES,
    "NUMBER_INTEGER": st.integers(-9, 9) | st.integers(-(2**53), 2**53),
    "NUMBER_DOUBLE": st.floats(-9, 9) | st.floats(allow_nan=False, allow_infinity=False),
}
OPS = ("==", "!=", "<", "<=", ">", ">=")
Comparison = tuple[bool, str, str, str, str, Any]  # negated, channel, its type, op, type of the right, the right


def channel(name: str, type_: str, double: bool) -> str:
    text = f"inputs.parameter_values['{name}']"
    text = f"int({text})" if type_ == "NUMBER_INTEGER" else text
    return f"double({text})" if double and type_ == "NUMBER_INTEGER" else text


def constant(value: Any, double: bool, quote: Callable[[str], str]) -> str:
    if isinstance(value, str):
        return quote(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"double({text})" if double and isinstance(value, int) else text


def as_kfp_writes_it(terms: list[Comparison], quote: Callable[[str], str]) -> list[str]:
    found = []
    for negated, name, left, op, right, value in terms:
        double = {left, right} == {"NUMBER_INTEGER", "NUMBER_DOUBLE"}
        other = channel(value.name, right, double) if isinstance(value, condition.Input) else None
        text = f"{channel(name, left, double)} {op} {other or constant(value, double, quote)}"
        found.append(f"!({text})" if negated else text)
    return found


def as_kfp_quotes(text: str) -> str:
    return f"'{text}'"


def as_cel_quotes(text: str) -> str:
    return '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'


TYPES = {"a": "STRING", "b": "STRING", "flag": "BOOLEAN", "n": "NUMBER_INTEGER", "m": "NUMBER_INTEGER"} | {
    "x": "NUMBER_DOUBLE",
    "y": "NUMBER_DOUBLE",
}
# kfp compares text with text, booleans with booleans, numbers with numbers; the rest it quotes or refuses
COMPARABLE = [("STRING",), ("BOOLEAN",), ("NUMBER_INTEGER", "NUMBER_DOUBLE")]


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    name = draw(st.sampled_from(sorted(TYPES)))
    kinds = next(k for k in COMPARABLE if TYPES[name] in k)
    op = draw(st.sampled_from(OPS[:2] if kinds == ("BOOLEAN",) else OPS))
    right = draw(st.sampled_from(kinds))
    others = [n for n in sorted(TYPES) if TYPES[n] == right]
    value = draw(st.sampled_from(others).map(condition.Input) | CONSTANTS[right])
    return draw(st.booleans()), name, TYPES[name], op, right, value


def ours(text: str, values: dict[str, Any]) -> bool | str:
    tree = condition.parse(text)
    try:
        return condition.evaluate(tree, values)
    except StepFailed as e:
        return e.code.removeprefix("condition-")


AS_CEL = {"STRING": celtypes.StringType, "BOOLEAN": celtypes.BoolType, "NUMBER_DOUBLE": celtypes.DoubleType}
CEL = celpy.Environment()


def reference(text: str, values: dict[str, Any]) -> bool | str:
    # an integer channel holds a double, as JSON has it
    typed = {n: AS_CEL.get(TYPES[n], celtypes.IntType)(v) for n, v in values.items()}
    context = {"inputs": celtypes.MapType({"parameter_values": celtypes.MapType(typed)})}
    try:
        return bool(CEL.program(CEL.compile(text)).evaluate(context))
    except celpy.CELEvalError:
        return "error"


def incomparable(value: Any) -> bool:
    return (isinstance(value, float) and not math.isfinite(value)) or (type(value) is int and abs(value) > 2**53)


def expected(terms: list[Comparison], values: dict[str, Any]) -> bool | str:
    """The reference's result, but for the deliberate differences."""
    for term, text in zip(terms, as_kfp_writes_it([*terms], as_cel_quotes), strict=True):
        names = [term[1], *([term[5].name] if isinstance(term[5], condition.Input) else [])]
        result = "error" if any(incomparable(values.get(n)) for n in names) else reference(text, values)
        if result is not True:
            return result
    return True


@pytest.mark.timeout(3600)
@settings(max_examples=100_000 if LONG else 300)
@given(
    st.lists(comparisons(), min_size=1, max_size=4),
    st.fixed_dictionaries({n: VALUES[t] for n, t in TYPES.items()}),
    st.sets(st.sampled_from(sorted(TYPES)), max_size=1),
)
@example([(False, "a", "STRING", "==", "STRING", "' && '")], {"a": "' && '"}, set())
def test_a_condition_has_the_result_of_the_reference_or_is_an_error(
    terms: list[Comparison], values: dict[str, Any], missing: set[str]
) -> None:
    # the compiler negates all terms but the last
    terms = [(True, *t[1:]) for t in terms[:-1]] + terms[-1:]
    values = {n: v for n, v in values.items() if n not in missing}
    result = ours(" && ".join(as_kfp_writes_it(terms, as_kfp_quotes)), values)
    event(f"result {result}")
    assert result == expected(terms, values)


@settings(max_examples=10_000 if LONG else 100)
@given(st.lists(comparisons(), min_size=1, max_size=4), st.fixed_dictionaries({n: VALUES[t] for n, t in TYPES.items()}))
def test_the_reference_says_true_to_a_whole_condition_where_we_do_and_only_then(
    terms: list[Comparison], values: dict[str, Any]
) -> None:
    values = {n: v for n, v in values.items() if not incomparable(v)}
    terms = [(True, *t[1:]) for t in terms[:-1]] + terms[-1:]
    whole = " && ".join(as_kfp_writes_it(terms, as_cel_quotes))
    result, theirs = ours(" && ".join(as_kfp_writes_it(terms, as_kfp_quotes)), values), reference(whole, values)
    assert result == theirs or (result, theirs) == ("error", False)


FRAGMENTS = [
    *("'", '"', " && ", "&&", "!(", "(", ")", " == ", "==", " <= ", "int(", "double(", "true", "1", "-", "1e999", " "),
    *("inputs.parameter_values['", "inputs.parameter_values['a']", "'int(inputs.parameter_values['a'])'", "\\", "\n"),
    *(
        "!(inputs.parameter_values['a'] == '",
        "') && !(inputs.parameter_values['a'] == '",
        " && ' == '' && ",
        "''",
        "||",
    ),
]


def hostile(random: Random, fragments: int) -> str:
    unit = [random.choice(FRAGMENTS) for _ in range(random.randint(1, 6))]
    if random.random() < 0.7:  # a pattern again and again is what makes a parser go back
        return "".join(unit * (fragments // len(unit)) + [random.choice(FRAGMENTS) for _ in range(3)])
    return "".join(random.choice(FRAGMENTS) for _ in range(fragments))


def steps(text: str) -> tuple[int, str]:
    """Lines of the parser run for a text, and what became of it."""
    count = 0

    def line(frame: FrameType, what: str, _: Any) -> Any:
        nonlocal count
        count += what == "line"
        return line

    def call(frame: FrameType, what: str, _: Any) -> Any:
        return line if frame.f_code.co_filename == condition.__file__ else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        condition.parse(text)
        outcome = "read"
    except DefinitionError as e:
        outcome = e.code
    finally:
        sys.settrace(before)
    return count, outcome


def test_ten_thousand_hostile_texts_are_read_or_refused_in_steps_that_grow_with_the_text() -> None:
    outcomes = set()
    for seed in range(10_000):
        text = hostile(Random(seed), 100 if seed % 100 == 0 else 12)
        count, outcome = steps(text)
        assert count <= 300 + 20 * len(text), text
        outcomes.add(outcome)
    assert outcomes == {"read", "condition-unreadable", "condition-ambiguous"}


@pytest.mark.parametrize("seed", range(20))
def test_a_text_twice_as_long_takes_about_twice_the_steps(seed: int) -> None:
    once, twice = (steps(hostile(Random(seed), size))[0] for size in (2_000, 4_000))
    assert twice <= 2.5 * once + 1000
