"""Conditions: operands are values, three results, errors stop the run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import DefinitionError, StepFailed
from tidegate.ir import condition

P = "inputs.parameter_values['{}']".format


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        (f"int({P('a')}) > 3", {"a": 4}, True),
        (f"int({P('a')}) > 3", {"a": 4.0}, True),
        (f"double(int({P('a')})) >= 0.5", {"a": 0}, False),
        (f"{P('a')} == 'it's'", {"a": "it's"}, True),
        (f"{P('a')} == 'a\\b'", {"a": "a\\b"}, True),
        (f"{P('a')} == 'two\nlines'", {"a": "two\nlines"}, True),
        (f"{P('a')} == true", {"a": True}, True),
        (f"!({P('a')} == 'x') && {P('b')} == 'y'", {"a": "z", "b": "y"}, True),
        (f"!({P('a')} == 'x') && {P('b')} == 'y'", {"a": "x", "b": "y"}, False),
        (f"{P('a')} == 'x' && y'", {"a": "x' && y"}, True),
        (f"'int({P('a')})' == '5'", {"a": 5}, True),
        (f"{P('a')} < 1.5", {"a": 1}, True),
        (f"{P('a')} != -1e-3", {"a": -0.001}, False),
    ],
)
def test_what_kfp_writes_means_what_its_author_meant(text: str, values: dict[str, object], expected: bool) -> None:
    assert condition.evaluate(condition.parse(text), values) is expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f"{P('a')} > 0.9", math.nan),
        (f"{P('a')} > 0.9", math.inf),
        (f"int({P('a')}) > 3", 2**53 + 1),
        (f"{P('a')} == 'x'", 1),
        (f"{P('a')} == 1", "1"),
        (f"{P('a')} == true", 1),
        (f"int({P('a')}) == 1", "one"),
        (f"int({P('a')}) == 1", 1.5),
        (f"{P('a')} == 1", [1]),
        (f"{P('b')} == 1", 1),
    ],
)
@pytest.mark.parametrize("negated", [False, True])
def test_a_comparison_without_a_truth_value_is_an_error_on_both_branches(
    text: str, value: object, negated: bool
) -> None:
    tree = condition.parse(f"!({text})" if negated else text)
    with pytest.raises(StepFailed) as e:
        condition.evaluate(tree, {"a": value})
    assert e.value.code == "condition-error"


def test_an_error_in_any_term_is_an_error_even_beside_a_false_one() -> None:
    with pytest.raises(StepFailed):
        condition.evaluate(condition.parse(f"1 == 2 && {P('a')} > 0.5"), {"a": math.nan})


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_value_is_an_operand_never_text_to_evaluate(left: str, right: str) -> None:
    tree = condition.parse(f"{P('a')} == {P('b')}")
    assert condition.evaluate(tree, {"a": left, "b": right}) is (left == right)


@given(st.text(max_size=40))
def test_any_unescaped_string_literal_compares_equal_to_itself(text: str) -> None:
    assert condition.evaluate(condition.parse(f"{P('a')} == '{text}'"), {"a": text}) is (True)


@pytest.mark.parametrize(
    "text", ["", "1", "== 1", "a == 1", f"{P('a')} = 1", "!(1 == 1", "import os", "(" * 5000 + "1 == 1"]
)
def test_anything_else_is_refused_with_a_code(text: str) -> None:
    with pytest.raises(DefinitionError) as e:
        condition.parse(text)
    assert e.value.code == "condition-unreadable"


def test_the_inputs_of_a_condition_are_known() -> None:
    assert condition.inputs(condition.parse(f"!({P('a')} == 'x') && int({P('b')}) > 1")) == {"a", "b"}
