"""Pipelines called by pipelines, by value."""

import pytest
from kfp import dsl

from tests.language.kit import FAILED, SKIPPED, SUCCEEDED, Runner, add, component, fail, outputs, read, say, upto, write


@component
def upper(data: dsl.Input[dsl.Dataset], out: dsl.Output[dsl.Dataset]):
    with open(data.path) as f, open(out.path, "w") as g:
        g.write(f.read().upper())
    out.metadata["from"] = data.metadata.get("from", "nothing") + "+upper"


@component
def origin(data: dsl.Input[dsl.Dataset]) -> str:
    return data.metadata["from"]


def test_defaults_are_taken_per_call_and_arguments_replace_them(run: Runner) -> None:
    @dsl.pipeline(name="inner")
    def inner(a: int = 1, b: int = 10) -> int:
        return add(a=a, b=b).output

    out = outputs(none=int, a=int, both=int)

    @dsl.pipeline(name="p")
    def p() -> out:
        return out(none=inner().output, a=inner(a=5).output, both=inner(a=5, b=6).output)

    assert run(p).values == {"none": 11, "a": 15, "both": 11}


def test_parameters_pass_through_three_levels_and_outputs_come_back(run: Runner) -> None:
    @dsl.pipeline(name="low")
    def low(x: int) -> int:
        return add(a=x, b=1).output

    @dsl.pipeline(name="middle")
    def middle(x: int) -> int:
        return low(x=low(x=x).output).output

    @dsl.pipeline(name="p")
    def p(x: int) -> int:
        return middle(x=middle(x=x).output).output

    ran = run(p, x=100)
    assert ran.value == 104
    assert "middle-2/low-2/add" in ran.steps


def test_several_outputs_of_a_nested_pipeline_keep_their_names_and_types(run: Runner) -> None:
    out = outputs(n=int, text=str, items=list, data=dsl.Dataset)

    @dsl.pipeline(name="inner")
    def inner() -> out:
        return out(
            n=add(a=1, b=2).output, text=say(text="t").output, items=upto(n=2).output, data=write(text="d").output
        )

    @dsl.pipeline(name="p")
    def p() -> out:
        made = inner()
        return out(
            n=add(a=made.outputs["n"], b=0).output,
            text=say(text=made.outputs["text"]).output,
            items=made.outputs["items"],
            data=made.outputs["data"],
        )

    ran = run(p)
    assert ran.values == {"n": 3, "text": "t", "items": [0, 1]}
    assert ran.text("data") == "d"


def test_artifacts_go_into_nested_pipelines_and_come_out_changed(run: Runner) -> None:
    @dsl.pipeline(name="inner")
    def inner(data: dsl.Input[dsl.Dataset]) -> dsl.Dataset:
        return upper(data=data).outputs["out"]

    out = outputs(data=dsl.Dataset, origin=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        done = inner(data=inner(data=write(text="quiet").outputs["out"]).output)
        return out(data=done.output, origin=origin(data=done.output).output)

    ran = run(p)
    assert ran.text("data") == "QUIET"
    assert ran.values == {"origin": "nothing+upper+upper"}


def test_a_nested_pipeline_without_parameters_or_outputs_runs(run: Runner) -> None:
    @dsl.pipeline(name="inner")
    def inner():
        add(a=1, b=1)

    @dsl.pipeline(name="p")
    def p():
        say(text="after").after(inner())

    assert run(p).steps == {"inner/add": SUCCEEDED, "say": SUCCEEDED}


def test_a_nested_pipeline_that_hands_its_input_artifact_to_two_tasks(run: Runner) -> None:
    @dsl.pipeline(name="inner")
    def inner(data: dsl.Input[dsl.Dataset]) -> str:
        first, second = read(data=data), read(data=data)
        return say(text=f"{first.output}{second.output}").output

    @dsl.pipeline(name="p")
    def p() -> str:
        return inner(data=write(text="x").outputs["out"]).output

    assert run(p).value == "xx"


def test_nested_pipelines_in_loops_conditions_and_each_other(run: Runner) -> None:
    @dsl.pipeline(name="squares")
    def sums(n: int, base: int) -> list:
        with dsl.ParallelFor(upto(n=n).output) as i:
            each = add(a=i, b=base)
        return dsl.Collected(each.output)

    @dsl.pipeline(name="p")
    def p(base: int) -> list:
        with dsl.ParallelFor([1, 3]) as n, dsl.If(n > 1):
            each = sums(n=n, base=base)
        return dsl.Collected(each.output)

    assert run(p, base=10).value == [[10, 11, 12]]


def test_a_failure_two_levels_down_is_named_by_its_path_and_what_needs_it_is_skipped(run: Runner) -> None:
    @dsl.pipeline(name="low")
    def low() -> str:
        return fail(text="deep").output

    @dsl.pipeline(name="middle")
    def middle() -> str:
        return low().output

    @dsl.pipeline(name="p")
    def p():
        say(text=middle().output)

    ran = run(p)
    assert (ran.state, ran.steps) == (FAILED, {"middle/low/fail": FAILED, "say": SKIPPED})
    assert ran.error["step"] == "middle/low/fail"
    assert "deep" in ran.error["message"]


def test_two_pipelines_with_components_of_the_same_name_do_not_mix(run: Runner) -> None:
    def make(by: int):
        @dsl.pipeline(name=f"by{by}")
        def inner(x: int) -> int:
            return add(a=x, b=by).output

        return inner

    out = outputs(a=int, b=int)
    one, ten = make(1), make(10)

    @dsl.pipeline(name="p")
    def p() -> out:
        return out(a=one(x=0).output, b=ten(x=0).output)

    assert run(p).values == {"a": 1, "b": 10}


@pytest.mark.parametrize("given", [{}, {"text": "given"}])
def test_an_optional_parameter_is_handed_down_or_left_out(run: Runner, given: dict) -> None:
    @component
    def show(text: str = "component default") -> str:
        return text

    @dsl.pipeline(name="inner")
    def inner(text: str = "inner default") -> str:
        return show(text=text).output

    out = outputs(inner=str, show=str)

    @dsl.pipeline(name="p")
    def p(text: str = "root default") -> out:
        return out(inner=inner(text=text).output, show=inner().output)

    assert run(p, **given).values == {"inner": given.get("text", "root default"), "show": "inner default"}


def test_a_component_compiled_alone_is_a_pipeline(run: Runner) -> None:
    assert run(add, a=2, b=3).value == 5
    assert run(write, text="alone").text("out") == "alone"


def test_an_artifact_input_at_the_root_comes_from_a_path(run: Runner, tmp_path) -> None:
    (tmp_path / "in.txt").write_text("from outside")

    @dsl.pipeline(name="p")
    def p(data: dsl.Input[dsl.Dataset]) -> str:
        return read(data=data).output

    assert run(p, {"data": tmp_path / "in.txt"}).value == "from outside"
    assert run(read, {"data": tmp_path / "in.txt"}).value == "from outside"
