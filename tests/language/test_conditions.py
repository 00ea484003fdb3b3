"""dsl.If, dsl.Elif, dsl.Else, by value."""

import operator

import pytest
from kfp import dsl

from tests.language.kit import (
    FAILED,
    SKIPPED,
    SUCCEEDED,
    Ran,
    Runner,
    add,
    component,
    fail,
    flag,
    outputs,
    real,
    say,
)

OPERATORS = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


@component
def whole(x: int) -> int:
    return x


@component
def mark(word: str):
    print(word)


def ran_marks(ran: Ran) -> list[bool]:
    """Which of the branches ran, in the order they are written: condition-1, condition-2 …"""
    assert ran.state == SUCCEEDED, ran.error
    numbered = sorted((int(n.split("/")[0].rpartition("-")[2]), s) for n, s in ran.of("mark").items())
    return [state == SUCCEEDED for _, state in numbered]


def marks(channel, constant) -> None:
    for name, compare in OPERATORS.items():
        with dsl.If(compare(channel, constant)):
            mark(word=name)


def expected(value, constant) -> list[bool]:
    return [compare(value, constant) for compare in OPERATORS.values()]


@pytest.mark.parametrize("value", [-1, 4, 5])
def test_every_operator_compares_an_integer_output(run: Runner, value: int) -> None:
    @dsl.pipeline(name="p")
    def p(x: int):
        marks(whole(x=x).output, 4)

    assert ran_marks(run(p, x=value)) == expected(value, 4)


@pytest.mark.parametrize("value", [0.1, 0.5, 1e300])
def test_every_operator_compares_a_float_output(run: Runner, value: float) -> None:
    @dsl.pipeline(name="p")
    def p(x: float):
        marks(real(x=x).output, 0.5)

    assert ran_marks(run(p, x=value)) == expected(value, 0.5)


@pytest.mark.parametrize("value", ["", "b", "ba", "é"])
def test_every_operator_compares_a_text_output(run: Runner, value: str) -> None:
    @dsl.pipeline(name="p")
    def p(x: str):
        marks(say(text=x).output, "b")

    assert ran_marks(run(p, x=value)) == expected(value, "b")


@pytest.mark.parametrize("value", [True, False])
def test_booleans_are_compared_with_true_and_false(run: Runner, value: bool) -> None:
    @dsl.pipeline(name="p")
    def p(x: bool):
        done = flag(x=x)
        for channel in (done.output, x):
            for compare in (operator.eq, operator.ne):
                for constant in (True, False):
                    with dsl.If(compare(channel, constant)):
                        mark(word="x")

    assert ran_marks(run(p, x=value)) == [value, not value, not value, value] * 2


@pytest.mark.parametrize("value", [3, 4])
def test_every_operator_compares_a_pipeline_parameter(run: Runner, value: int) -> None:
    @dsl.pipeline(name="p")
    def p(x: int):
        marks(x, 4)

    assert ran_marks(run(p, x=value)) == expected(value, 4)


@pytest.mark.parametrize(("x", "y"), [(1, 2), (2, 2), (3, 2)])
def test_an_output_is_compared_with_a_parameter(run: Runner, x: int, y: int) -> None:
    @dsl.pipeline(name="p")
    def p(x: int, y: int):
        marks(whole(x=x).output, y)

    assert ran_marks(run(p, x=x, y=y)) == expected(x, y)


@pytest.mark.parametrize(("x", "y"), [("a", "a"), ("a", "it's"), ("it's", "it's")])
def test_two_outputs_are_compared_as_values_not_as_text_of_code(run: Runner, x: str, y: str) -> None:
    @dsl.pipeline(name="p")
    def p(x: str, y: str):
        marks(say(text=x).output, say(text=y).output)

    assert ran_marks(run(p, x=x, y=y)) == expected(x, y)


@pytest.mark.parametrize(("x", "y"), [(1, 0.5), (1, 1.0), (0, 0.5)])
def test_integers_and_floats_compare_by_value(run: Runner, x: int, y: float) -> None:
    @dsl.pipeline(name="p")
    def p(x: int, y: float):
        first, second = whole(x=x), real(x=y)
        for left, right in ((first.output, second.output), (first.output, 0.5), (second.output, 1)):
            with dsl.If(left > right):
                mark(word="x")

    assert ran_marks(run(p, x=x, y=y)) == [x > y, x > 0.5, y > 1]


@pytest.mark.parametrize(
    "value", ["' == '' || 'a' == 'a", "a' && '1' == '1", "it's", 'say "no"', "a\nb", "\\", "{{x}}", "日本", " yes "]
)
def test_a_value_is_never_read_as_part_of_the_condition(run: Runner, value: str) -> None:
    @dsl.pipeline(name="p")
    def p(x: str):
        done = say(text=x)
        with dsl.If(done.output == "yes"):
            mark(word="yes")
        with dsl.Else():
            mark(word="no")
        with dsl.If(x != "yes"):
            mark(word="no")

    ran = run(p, x=value)
    assert ran.state == SUCCEEDED
    assert list(ran.of("mark").values()).count(SUCCEEDED) == 2
    assert ran.steps["condition-branches-1/condition-2/mark"] == SKIPPED


@pytest.mark.parametrize("literal", ["it's", 'say "hi"', "a\nb", "back\\slash", "日本", "x == 'y'"])
def test_a_constant_of_any_characters_equals_itself_and_nothing_else(run: Runner, literal: str) -> None:
    @dsl.pipeline(name="p")
    def p(x: str):
        with dsl.If(say(text=x).output == literal):
            mark(word="same")

    assert ran_marks(run(p, x=literal)) == [True]
    assert ran_marks(run(p, x=literal + " ")) == [False]


@pytest.mark.parametrize("operation", ["lt", "ge", "eq"])
def test_a_metric_that_is_no_number_stops_the_run_with_a_reason(run: Runner, operation: str) -> None:
    @component
    def accuracy() -> float:
        return float("nan")

    @dsl.pipeline(name="p")
    def p():
        with dsl.If(OPERATORS[operation](accuracy().output, 0.9)):
            mark(word="x")
        with dsl.Else():
            mark(word="y")

    ran = run(p)
    assert ran.state == FAILED
    assert ran.error["code"] == "condition-error"
    assert SUCCEEDED not in ran.of("mark").values()


@pytest.mark.parametrize(("x", "word"), [(95, "a"), (85, "b"), (75, "c"), (65, "d"), (10, "f")])
def test_the_first_branch_that_holds_runs_and_no_other(run: Runner, x: int, word: str) -> None:
    @dsl.pipeline(name="p")
    def p(x: int) -> str:
        score = whole(x=x)
        with dsl.If(score.output >= 90):
            a = say(text="a")
        with dsl.Elif(score.output >= 80):
            b = say(text="b")
        with dsl.Elif(score.output >= 70):
            c = say(text="c")
        with dsl.Elif(score.output >= 60):
            d = say(text="d")
        with dsl.Else():
            f = say(text="f")
        return dsl.OneOf(a.output, b.output, c.output, d.output, f.output)

    ran = run(p, x=x)
    assert ran.value == word
    assert sorted(ran.steps.values()) == [SKIPPED] * 4 + [SUCCEEDED] * 2


@pytest.mark.parametrize(("x", "y", "word"), [(1, "n", "x"), (0, "y", "y"), (0, "n", "else"), (1, "y", "x")])
def test_branches_may_ask_about_different_things(run: Runner, x: int, y: str, word: str) -> None:
    @dsl.pipeline(name="p")
    def p(x: int, y: str) -> str:
        with dsl.If(whole(x=x).output == 1):
            first = say(text="x")
        with dsl.Elif(say(text=y).output == "y"):
            second = say(text="y")
        with dsl.Else():
            third = say(text="else")
        return dsl.OneOf(first.output, second.output, third.output)

    assert run(p, x=x, y=y).value == word


@pytest.mark.parametrize(("x", "y"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_nested_conditions_all_have_to_hold(run: Runner, x: int, y: int) -> None:
    @dsl.pipeline(name="p")
    def p(x: int, y: int):
        outer = whole(x=x)
        with dsl.If(outer.output == 1):
            inner = whole(x=y)
            with dsl.If(inner.output == outer.output):
                mark(word="both")
            with dsl.Else():
                mark(word="one")

    done = [n for n, s in run(p, x=x, y=y).of("mark").items() if s == SUCCEEDED]
    wanted = {
        (1, 1): ["condition-1/condition-branches-2/condition-3/mark"],
        (1, 0): ["condition-1/condition-branches-2/condition-4/mark-2"],
    }
    assert done == wanted.get((x, y), [])


def test_a_branch_uses_outputs_and_artifacts_from_outside(run: Runner) -> None:
    from tests.language.kit import read, write

    @dsl.pipeline(name="p")
    def p(x: int):
        made, n = write(text="kept"), whole(x=x)
        with dsl.If(n.output > 0):
            add(a=n.output, b=1)
            read(data=made.outputs["out"])

    ran = run(p, x=5)
    assert (ran.state, set(ran.steps.values())) == (SUCCEEDED, {SUCCEEDED})


def test_everything_inside_a_branch_not_taken_is_listed_as_skipped_and_the_run_succeeds(run: Runner) -> None:
    @dsl.pipeline(name="inner")
    def inner(text: str):
        say(text=text)

    @dsl.pipeline(name="p")
    def p(x: int):
        with dsl.If(whole(x=x).output == 1):
            first = say(text="inside")
            inner(text=first.output).after(fail())
            with dsl.If(first.output == "inside"):
                mark(word="deep")
        add(a=1, b=1)

    ran = run(p, x=0)
    assert ran.state == SUCCEEDED
    assert {n for n, s in ran.steps.items() if s == SUCCEEDED} == {"whole", "add"}
    skipped = {"say", "fail", "inner/say", "condition-2/mark"}
    assert {n for n, s in ran.steps.items() if s == SKIPPED} == {f"condition-1/{n}" for n in skipped}


def test_a_failure_inside_a_branch_fails_the_run_and_names_the_step(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(x: int):
        with dsl.If(whole(x=x).output == 1):
            fail(text="inside")
        with dsl.Else():
            say(text="other")

    assert run(p, x=0).state == SUCCEEDED
    ran = run(p, x=1)
    assert ran.state == FAILED
    assert ran.error["step"] == "condition-branches-1/condition-2/fail"


def test_a_condition_inside_a_nested_pipeline_reads_its_parameter(run: Runner) -> None:
    @dsl.pipeline(name="pick")
    def pick(x: int, low: str = "low") -> str:
        with dsl.If(x > 10):
            high = say(text="high")
        with dsl.Else():
            other = say(text=low)
        return dsl.OneOf(high.output, other.output)

    out = outputs(a=str, b=str)

    @dsl.pipeline(name="p")
    def p(x: int) -> out:
        return out(a=pick(x=x).output, b=pick(x=add(a=x, b=10).output).output)

    assert run(p, x=5).values == {"a": "low", "b": "high"}


def test_the_old_name_condition_means_if(run: Runner) -> None:
    with pytest.warns(DeprecationWarning, match="If"):

        @dsl.pipeline(name="p")
        def p(x: int):
            with dsl.Condition(whole(x=x).output == 1):
                mark(word="x")

    assert ran_marks(run(p, x=1)) == [True]
    assert ran_marks(run(p, x=2)) == [False]


def test_large_and_negative_integers_compare_exactly(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(x: int):
        marks(whole(x=x).output, -9007199254740991)

    assert ran_marks(run(p, x=-9007199254740990)) == expected(-9007199254740990, -9007199254740991)
