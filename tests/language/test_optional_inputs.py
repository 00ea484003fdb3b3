"""Inputs that may be left out: parameters and artifacts, at the root, in components, in nested pipelines."""

from pathlib import Path
from typing import Optional

import pytest
from kfp import dsl

from tests.language.kit import Runner, component, outputs, say, write
from tidegate.errors import UsageError


@component
def seen(
    i: Optional[int] = None,
    f: Optional[float] = None,
    s: Optional[str] = None,
    b: Optional[bool] = None,
    d: Optional[dict] = None,
    xs: Optional[list] = None,
) -> str:
    return repr([i, f, s, b, d, xs])


@component
def maybe_data(data: dsl.Input[dsl.Dataset] = None) -> str:
    return open(data.path).read() if data is not None else "no data"


@component
def maybe_list(data: dsl.Input[list[dsl.Dataset]] = None) -> int:
    return len(data) if data else 0


NOTHING = "[None, None, None, None, None, None]"


def test_a_component_sees_none_for_everything_left_out(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> str:
        return seen().output

    assert run(p).value == NOTHING


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, NOTHING),
        ({"i": 0}, "[0, None, None, None, None, None]"),
        ({"s": ""}, "[None, None, '', None, None, None]"),
        ({"b": False, "f": 0.0}, "[None, 0.0, None, False, None, None]"),
        ({"d": {}, "xs": []}, "[None, None, None, None, {}, []]"),
        ({"i": None, "s": None}, NOTHING),
    ],
    ids=str,
)
def test_root_parameters_with_the_default_none_are_left_out_or_passed(run: Runner, given: dict, shown: str) -> None:
    @dsl.pipeline(name="p")
    def p(
        i: Optional[int] = None,
        f: Optional[float] = None,
        s: Optional[str] = None,
        b: Optional[bool] = None,
        d: Optional[dict] = None,
        xs: Optional[list] = None,
    ) -> str:
        return seen(i=i, f=f, s=s, b=b, d=d, xs=xs).output

    assert run(p, **given).value == shown


def test_an_absent_parameter_lets_the_components_own_default_stand(run: Runner) -> None:
    @component
    def greet(name: str = "world") -> str:
        return f"hello {name}"

    @dsl.pipeline(name="p")
    def p(name: Optional[str] = None) -> str:
        return greet(name=name).output

    assert run(p).value == "hello world"
    assert run(p, name="moon").value == "hello moon"


def test_a_nested_pipeline_with_everything_optional_left_out(run: Runner) -> None:
    @dsl.pipeline(name="inner")
    def inner(i: Optional[int] = None, s: Optional[str] = None, f: float = 1.5) -> str:
        return seen(i=i, s=s, f=f).output

    out = outputs(none=str, some=str)

    @dsl.pipeline(name="p")
    def p(i: Optional[int] = None) -> out:
        return out(none=inner(i=i).output, some=inner(i=7, s="x").output)

    ran = run(p)
    assert ran.values == {
        "none": "[None, 1.5, None, None, None, None]",
        "some": "[7, 1.5, 'x', None, None, None]",
    }


def test_an_optional_artifact_of_a_component(run: Runner) -> None:
    out = outputs(without=str, given=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        return out(without=maybe_data().output, given=maybe_data(data=write(text="some").outputs["out"]).output)

    assert run(p).values == {"without": "no data", "given": "some"}


def test_an_optional_artifact_of_a_nested_pipeline(run: Runner) -> None:
    @dsl.pipeline(name="inner")
    def inner(data: dsl.Input[dsl.Dataset] = None) -> str:
        return maybe_data(data=data).output

    out = outputs(without=str, given=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        return out(without=inner().output, given=inner(data=write(text="some").outputs["out"]).output)

    assert run(p).values == {"without": "no data", "given": "some"}


def test_an_optional_artifact_of_the_root(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(data: dsl.Input[dsl.Dataset] = None) -> str:
        return maybe_data(data=data).output

    (tmp_path / "data").write_text("from the root")
    assert run(p).value == "no data"
    assert run(p, {"data": tmp_path / "data"}).value == "from the root"


def test_an_optional_list_of_artifacts(run: Runner) -> None:
    out = outputs(without=int, given=int)

    @dsl.pipeline(name="p")
    def p() -> out:
        with dsl.ParallelFor(["a", "b"]) as text:
            each = write(text=text)
        return out(without=maybe_list().output, given=maybe_list(data=dsl.Collected(each.outputs["out"])).output)

    assert run(p).values == {"without": 0, "given": 2}


def test_a_required_input_of_the_root_that_is_missing_is_refused(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(text: str, data: dsl.Input[dsl.Dataset]):
        say(text=text)
        maybe_data(data=data)

    with pytest.raises(UsageError):
        run(p, {})
    with pytest.raises(UsageError, match="data"):
        run(p, text="x")


def test_a_default_on_the_root_wins_over_one_further_down(run: Runner) -> None:
    @component
    def show(a: str = "component") -> str:
        return a

    @dsl.pipeline(name="inner")
    def inner(a: str = "inner") -> str:
        return show(a=a).output

    @dsl.pipeline(name="p")
    def p(a: str = "root") -> str:
        return inner(a=a).output

    assert run(p).value == "root"
    assert run(p, a="run").value == "run"


def test_a_condition_on_an_optional_parameter_that_is_given(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(mode: str = "off"):
        with dsl.If(mode == "on"):
            say(text="on")

    assert set(run(p).steps.values()) == {"SKIPPED"}
    assert set(run(p, mode="on").steps.values()) == {"SUCCEEDED"}
