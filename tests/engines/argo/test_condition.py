"""Conditions as Argo's expressions are true, false or an error where ``ir.condition`` says so.

One difference is known: the text 9007199254740993 as an integer, one beyond 2^53, is an error here and 2^53 on Argo.
(Numbers beyond are left out of control texts, so they are errors on both.)
"""

import math
from typing import Any

import hypothesis
from hypothesis import example, given
from hypothesis import strategies as st

from conftest import LONG
from tests.engines.argo.expression import evaluate
from tests.engines.argo.govalue import ExpressionError
from tests.engines.argo.substitution import expanded, replaced
from tidegate.engines.argo import expression
from tidegate.engines.argo.control import ABSENT, control
from tidegate.errors import DefinitionError, StepFailed
from tidegate.ir import condition
from tidegate.ir.condition import And, Compare, Input, Literal, Not
from tidegate.plan.value import BOOLEAN, DOUBLE, INTEGER, STRING

TEXT = st.sampled_from(
    [
        "",
        "5",
        "-5",
        "5.0",
        ".5",
        "1e3",
        "true",
        "x",
        "{{=1+1}}",
        "'",
        '"',
        "\\",
        "\x1b",
        "\x7f",
        "\U000e0001",
        "é",
        "1e999",
    ]
)
NUMBERS = st.sampled_from([0, 1, -1, 5, 2**53, -(2**53), 2**53 + 1, 10**30]) | st.integers(-9, 9)
REALS = st.sampled_from([0.0, -0.0, 1.0, 5.0, 0.1, 1e16, 5e-324, 1e308, math.nan, math.inf]) | st.floats()
OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    STRING: TEXT | st.text(max_size=4), BOOLEAN: st.booleans(), INTEGER: NUMBERS, DOUBLE: REALS,
    "": TEXT | st.booleans() | NUMBERS | REALS | st.just([]) | st.just({}),
}  # fmt: skip
NAMES = {f"{type_ or 'any'}{i}".lower(): type_ for type_ in OF_TYPE for i in range(2)}
CASTS = st.sampled_from([(), (), (), ("int",), ("double",), ("text",), ("int", "double"), ("int", "text")])
INPUTS = st.builds(Input, st.sampled_from(sorted(NAMES)), CASTS)
LITERALS = st.builds(Literal, TEXT | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9))
TERMS = st.builds(Compare, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), INPUTS, INPUTS | LITERALS)
CONDITIONS = st.recursive(
    TERMS, lambda inner: st.builds(Not, inner) | st.lists(inner, min_size=2, max_size=3).map(lambda t: And(tuple(t)))
)
VALUES = st.fixed_dictionaries({}, optional={n: OF_TYPE[t] for n, t in NAMES.items()})


def here(found: condition.Condition, values: dict[str, Any]) -> bool | str:
    try:
        return condition.evaluate(found, values)
    except StepFailed:
        return "error"


def on_argo(found: condition.Condition, values: dict[str, Any]) -> bool | str:
    text = expression.condition(found, lambda n: (expression.value_of(expression.template_input(n)), NAMES[n]))
    texts = {f"inputs.parameters.{n}": control(values[n]) if n in values else ABSENT for n in NAMES}
    try:
        evaluated = evaluate(text, expanded(texts))
    except ExpressionError:
        return "error"
    assert isinstance(evaluated, bool)
    assert replaced({"when": expression.tag(text)}, texts) == {"when": str(evaluated).lower()}
    return evaluated


def refused(found: condition.Condition) -> str:
    """The code with which a condition is refused before anything runs."""
    try:
        expression.condition(found, lambda n: (n, NAMES[n]))
    except DefinitionError as e:
        return e.code
    return ""


@given(CONDITIONS, VALUES)
@example(Compare("<", Input("string0", ("int",)), Literal(5)), {"string0": "4"})
@example(Compare("<", Input("string0", ("double",)), Literal(5)), {"string0": "-1e999"})
@example(Compare("<", Input("any0"), Input("any1")), {"any0": False, "any1": True})
@hypothesis.settings(max_examples=20_000 if LONG else 300)
def test_a_condition_is_on_argo_what_it_is_here(found: condition.Condition, values: dict[str, Any]) -> None:
    if refused(found) not in ("condition-error", "argo-condition"):
        assert on_argo(found, values) == here(found, values)
