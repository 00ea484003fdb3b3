"""The run graph, by value: kfp's constructs traced by kfp, run here by calling the functions in process."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf import json_format
from kfp import dsl

from tidegate.engines.base import Arguments, check_arguments
from tidegate.engines.graph import Graph
from tidegate.engines.local.command import PythonStep, asked
from tidegate.engines.local.host import Host
from tidegate.engines.values import Values
from tidegate.errors import ParameterError
from tidegate.ir.check import check
from tidegate.plan.build import build
from tidegate.plan.events import FAILED, SKIPPED, SUCCEEDED
from tidegate.plan.model import Container, Plan


def component(func: Callable[..., Any]) -> Any:
    return dsl.component(func, base_image="python:3.11", install_kfp_package=False)


@component
def add(a: int, b: int) -> int:
    return a + b


@component
def number(x: float) -> float:
    return x


@component
def say(text: str) -> str:
    return text


@component
def numbers(n: int) -> list:
    return list(range(n))


@component
def total(xs: list) -> int:
    return sum(xs)


@component
def fail(text: str) -> str:
    raise ValueError(text)


@component
def flip(x: int) -> bool:
    return x % 2 == 0


@component
def status(s: dsl.PipelineTaskFinalStatus) -> str:
    return f"{s.pipeline_task_name} {s.state}"


FUNCTIONS = {c.python_func.__name__: c.python_func for c in (add, number, say, numbers, total, fail, flip)}


class Ran(NamedTuple):
    state: str
    outputs: dict[str, Any]
    steps: dict[str, str]


def plan_of(pipeline: Any) -> Plan:
    spec = json_format.MessageToDict(pipeline.pipeline_spec)
    check(spec)
    return build(spec)


def run(pipeline: Any, fails: int = 10**6, **parameters: Any) -> Ran:
    """Run a pipeline; ``fail`` fails the first ``fails`` times it is called."""
    plan = plan_of(pipeline)
    graph = Graph(plan, check_arguments(plan, Arguments(parameters)), {})
    steps: dict[str, str] = {}
    failures = 0
    graph.start()
    while not graph.done:
        steps.update({e.path: e.state for e in graph.ended})
        graph.ended.clear()
        ready = graph.ready.pop(0)
        executor = plan.executors[str(ready.task.component.body)]
        assert isinstance(executor, Container)
        step = asked(executor, Host(Path()), "")
        assert isinstance(step, PythonStep)
        name = step.function
        inputs = ready.inputs.parameters
        if name == "fail" and failures < fails:
            failures += 1
            steps[ready.path] = FAILED
            graph.finish(ready, FAILED, Values(), {"code": "x", "message": "boom"})
            continue
        if name == "status":
            value = "{pipelineTaskName} {state}".format(**inputs["s"])
        else:
            value = inputs["text"] if name == "fail" else FUNCTIONS[name](**inputs)
        steps[ready.path] = SUCCEEDED
        graph.finish(ready, SUCCEEDED, Values({"Output": value}))
    steps.update({e.path: e.state for e in graph.ended})
    assert not graph.ready
    return Ran(graph.state, dict(graph.outputs.parameters), steps)


def test_a_chain_passes_integers_as_integers() -> None:
    @dsl.pipeline(name="p")
    def p(a: int = 1) -> int:
        first = add(a=a, b=2)
        return add(a=first.output, b=first.output).output

    assert run(p) == (SUCCEEDED, {"Output": 6}, {"add": SUCCEEDED, "add-2": SUCCEEDED})
    assert type(run(p, a=5).outputs["Output"]) is int


def test_a_nested_pipeline_gets_its_defaults_and_gives_its_outputs() -> None:
    @dsl.pipeline(name="inner")
    def inner(a: int, b: int = 10) -> int:
        return add(a=a, b=b).output

    @dsl.pipeline(name="p")
    def p() -> int:
        return inner(a=inner(a=1).output).output

    assert run(p) == (SUCCEEDED, {"Output": 21}, {"inner/add": SUCCEEDED, "inner-2/add": SUCCEEDED})


@pytest.mark.parametrize(("x", "said"), [(0.95, "high"), (0.5, "middle"), (0.1, "low")])
def test_one_branch_runs_and_one_of_takes_its_output(x: float, said: str) -> None:
    @dsl.pipeline(name="p")
    def p(x: float) -> str:
        n = number(x=x)
        with dsl.If(n.output > 0.9):
            high = say(text="high")
        with dsl.Elif(n.output > 0.2):
            middle = say(text="middle")
        with dsl.Else():
            low = say(text="low")
        return dsl.OneOf(high.output, middle.output, low.output)

    ran = run(p, x=x)
    assert (ran.state, ran.outputs) == (SUCCEEDED, {"Output": said})
    assert sorted(ran.steps.values()) == [SKIPPED, SKIPPED, SUCCEEDED, SUCCEEDED]


@pytest.mark.parametrize("x", [math.nan, math.inf])
def test_a_number_that_is_none_stops_the_run_and_no_branch_runs(x: float) -> None:
    @dsl.pipeline(name="p")
    def p(x: float):
        n = number(x=x)
        with dsl.If(n.output < 0.9):
            say(text="low")
        with dsl.If(n.output >= 0.9):
            say(text="high")

    ran = run(p, x=x)
    assert ran.state == FAILED
    assert ran.steps == {"number": SUCCEEDED, "condition-1": FAILED, "condition-2": FAILED}


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_loop_over_an_output_collects_in_order_and_may_be_empty(n: int) -> None:
    @dsl.pipeline(name="p")
    def p(n: int) -> list:
        with dsl.ParallelFor(numbers(n=n).output, parallelism=2) as item:
            each = add(a=item, b=100)
        return dsl.Collected(each.output)

    ran = run(p, n=n)
    assert (ran.state, ran.outputs) == (SUCCEEDED, {"Output": [100 + i for i in range(n)]})
    assert [s for s in ran.steps if s.startswith("for-loop")] == [f"for-loop-1[{i}]/add" for i in range(n)]


def test_an_outer_output_used_inside_a_loop_stays_what_it_is() -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        outer = add(a=60, b=40)
        with dsl.ParallelFor([1, 2, 3]) as item:
            each = add(a=item, b=outer.output)
        return dsl.Collected(each.output)

    assert run(p).outputs == {"Output": [101, 102, 103]}


def test_nested_loops_number_their_steps_and_collect_nested() -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor([1, 2]) as a, dsl.ParallelFor([10, 20]) as b:
            each = add(a=a, b=b)
        return dsl.Collected(each.output)

    ran = run(p)
    assert ran.outputs == {"Output": [[11, 21], [12, 22]]}
    assert "for-loop-2[1]/for-loop-4[0]/add" in ran.steps


def test_items_with_keys_give_their_values() -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor([{"a": 1, "b": 2}, {"a": 3, "b": 4}]) as item:
            each = add(a=item.a, b=item.b)
        return dsl.Collected(each.output)

    assert run(p).outputs == {"Output": [3, 7]}


def test_an_iteration_that_was_skipped_is_left_out_of_the_collection() -> None:
    @dsl.pipeline(name="p")
    def p() -> int:
        with dsl.ParallelFor([1, 2, 3, 4]) as item:
            even = flip(x=item)
            with dsl.If(even.output == True):  # noqa: E712
                each = add(a=item, b=0)
        return total(xs=dsl.Collected(each.output)).output

    assert run(p).outputs == {"Output": 6}


@pytest.mark.parametrize(("fails", "state", "said"), [(0, SUCCEEDED, "SUCCEEDED"), (9, FAILED, "FAILED")])
def test_an_exit_handler_runs_however_the_body_ended_and_is_told(fails: int, state: str, said: str) -> None:
    @dsl.pipeline(name="p")
    def p():
        with dsl.ExitHandler(status()):
            fail(text="x")
            say(text="beside")

    ran = run(p, fails)
    assert ran.state == state
    assert ran.steps["status"] == SUCCEEDED
    assert ran.steps["exit-handler-1/say"] == SUCCEEDED


def test_after_a_failure_independent_branches_go_on_and_dependents_are_skipped() -> None:
    @dsl.pipeline(name="p")
    def p():
        bad = fail(text="x")
        say(text=bad.output)
        add(a=1, b=2)

    assert run(p) == (FAILED, {}, {"fail": FAILED, "add": SUCCEEDED, "say": SKIPPED})


def test_ignore_upstream_failure_runs_without_the_input() -> None:
    @component
    def default(text: str = "none") -> str:
        return text

    FUNCTIONS["default"] = default.python_func

    @dsl.pipeline(name="p")
    def p() -> str:
        return default(text=fail(text="x").output).ignore_upstream_failure().output

    ran = run(p)
    assert (ran.state, ran.outputs) == (FAILED, {"Output": "none"})


def test_a_nested_pipeline_is_tried_again_as_often_as_it_says() -> None:
    @dsl.pipeline(name="inner")
    def inner() -> str:
        return fail(text="done").output

    @dsl.pipeline(name="p")
    def p() -> str:
        return inner().set_retry(num_retries=2).output

    assert run(p, 2).outputs == {"Output": "done"}
    assert run(p, 3).state == FAILED


def test_ten_thousand_skipped_tasks_need_no_deep_stack() -> None:
    step = {"componentRef": {"name": "comp-say"}}
    inputs = {"parameters": {"text": {"runtimeValue": {"constant": "x"}}}}
    tasks: dict[str, Any] = {"t0": {**step, "inputs": inputs, "triggerPolicy": {"condition": "1 == 2"}}}
    tasks |= {f"t{i}": {**step, "inputs": inputs, "dependentTasks": [f"t{i - 1}"]} for i in range(1, 10_000)}

    spec = json_format.MessageToDict(say.pipeline_spec)
    spec["root"] = {"dag": {"tasks": tasks}}
    spec["pipelineInfo"] = {"name": "p"}
    plan = build(spec)
    graph = Graph(plan, Arguments(), {})
    graph.start()
    assert graph.done
    assert len(graph.ended) == 10_000


def test_f_strings_and_constants_with_parameters_are_filled_in() -> None:
    @component
    def show(config: dict, text: str) -> str:
        return f"{text} {sorted(config.items())}"

    FUNCTIONS["show"] = show.python_func

    @dsl.pipeline(name="p")
    def p(n: int = 3) -> str:
        return show(config={"n": n, "m": [1, 2.5]}, text=f"n is {n}").output

    assert run(p).outputs == {"Output": "n is 3 [('m', [1, 2.5]), ('n', 3)]"}


@pytest.mark.parametrize(
    ("parameters", "code"),
    [({}, "parameter-missing"), ({"x": "high"}, "parameter-type"), ({"x": 1, "y": 2}, "parameter-unknown")],
)
def test_a_wrong_parameter_is_refused_before_anything_runs(parameters: dict[str, Any], code: str) -> None:
    @dsl.pipeline(name="p")
    def p(x: float):
        number(x=x)

    with pytest.raises(ParameterError) as e:
        run(p, **parameters)
    assert e.value.code == code


def test_a_component_alone_is_a_pipeline_of_one_step() -> None:
    assert run(add, a=1, b=2) == (SUCCEEDED, {"Output": 3}, {"add": SUCCEEDED})
