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
        (f"'{P('a')}' == 'true'", {"a": True}, True),
        (f"{P('a')} == '{P('x')}'", {"a": P("x")}, True),
        (f"{P('a')} == ''a' && 'b' == 'c''", {"a": "'a' && 'b' == 'c'"}, True),
        (f"{P('a')} == 'x' && {P('b')} == 'y'", {"a": "x", "b": "y"}, True),
        (f'({P("a")} == "x") && 5 > int( {P("b")} )', {"a": "x", "b": 4}, True),
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
        (f"int({P('a')}) == 1", True),
        (f"double({P('a')}) == 1.0", True),
        (f"int({P('a')}) == 10", "1_0"),
        (f"int({P('a')}) == 3", "٣"),
        (f"double({P('a')}) > 1.0", "inf"),
        (f"double(int({P('a')})) == {2.0**53}", 2**53 + 1),
        (f"'int({P('a')})' == '{2**53 + 1}'", 2**53 + 1),
        (f"'{P('a')}' == '0.9'", math.nan),
        pytest.param(f"int({P('a')}) == 1", 10**5000, id="huge"),
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


BRANCHES = [  # if a > 0.5, elif b == 'x', else, as the compiler writes them
    f"{P('a')} > 0.5",
    f"!({P('a')} > 0.5) && {P('b')} == 'x'",
    f"!({P('a')} > 0.5) && !({P('b')} == 'x')",
]


@pytest.mark.parametrize("a", [0.4, 0.6, math.nan, None, "text"])
@pytest.mark.parametrize("b", ["x", "y", 1, math.nan])
def test_of_an_if_elif_else_exactly_one_branch_runs_or_one_has_no_truth_value(a: object, b: object) -> None:
    def outcome(text: str) -> bool | str:
        try:
            return condition.evaluate(condition.parse(text), {"a": a, "b": b})
        except StepFailed as e:
            return e.code

    outcomes = [outcome(text) for text in BRANCHES]
    assert outcomes.count(True) == 1 or "condition-error" in outcomes
    assert (outcomes[0] is True) == (a == 0.6)


def test_an_elif_is_not_looked_at_where_its_if_is_true_as_in_python_and_in_kfp() -> None:
    assert condition.evaluate(condition.parse(BRANCHES[1]), {"a": 0.6, "b": math.nan}) is False


def test_an_error_before_a_false_term_is_an_error() -> None:
    with pytest.raises(StepFailed):
        condition.evaluate(condition.parse(f"{P('a')} > 0.5 && 1 == 2"), {"a": math.nan})


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_value_is_an_operand_never_text_to_evaluate(left: str, right: str) -> None:
    tree = condition.parse(f"{P('a')} == {P('b')}")
    assert condition.evaluate(tree, {"a": left, "b": right}) is (left == right)


@given(st.text(max_size=40))
def test_any_unescaped_string_literal_compares_equal_to_itself(text: str) -> None:
    assert condition.evaluate(condition.parse(f"{P('a')} == '{text}'"), {"a": text}) is (True)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("1" * 5000 + " == 1", id="long-number"),
        pytest.param("int(" * 9000 + "1", id="casts"),
        pytest.param("!(" * 1000 + "1 == 1" + ")" * 1000, id="deep"),
        pytest.param("(" * 5000 + "1 == 1", id="open"),
        pytest.param(f"{P('a')} == '{'x' * 1_000_000}'", id="long"),
        *["int('x') == 1", f"{P('a')} == inf", "1 == 'a\\n'", "", "1", "== 1", "a == 1", f"{P('a')} = 1", "!(1 == 1"],
        "import os",
    ],
)
def test_anything_else_is_refused_with_a_code(text: str) -> None:
    with pytest.raises(DefinitionError) as e:
        condition.parse(text)
    assert e.value.code == "condition-unreadable"


@pytest.mark.parametrize("operator", ["||", "&& 'z' !=", "&& !", "?"])
def test_text_that_may_be_one_literal_or_an_expression_of_another_language_is_refused(operator: str) -> None:
    with pytest.raises(DefinitionError) as e:
        condition.parse(f"{P('a')} == 'x' {operator} {P('b')} in 'y'")
    assert e.value.code == "condition-ambiguous"


@pytest.mark.parametrize("number", [str(2**53 + 1), "1e999"])
def test_a_constant_that_can_never_be_compared_is_refused_before_the_run(number: str) -> None:
    with pytest.raises(DefinitionError) as e:
        condition.parse(f"{P('a')} < {number}")
    assert e.value.code == "condition-error"


def test_the_inputs_of_a_condition_are_known() -> None:
    assert condition.inputs(condition.parse(f"!({P('a')} == 'x') && int({P('b')}) > 1")) == {"a", "b"}
