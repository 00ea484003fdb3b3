"""Any JSON value arrives through Argo as it was, and nothing of it is ever read as a template."""

import functools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest
from hypothesis import Phase, example, given
from hypothesis import strategies as st
from kfp import dsl

from conftest import LONG
from tests.engines.argo.simulated import SimulatedEngine, run_calls
from tidegate.ir.check import check
from tidegate.ir.load import of_pipeline
from tidegate.plan.events import FAILED, SUCCEEDED, Outcome

component = functools.partial(dsl.component, base_image="python:3.11", install_kfp_package=False)
HOSTILE = [
    "{{workflow.name}}", "{{=1+1}}", "{{", "}}", "{{=", '"', "'", "\\", '\\"}}{{', "\x1b", "\x7f", "\U000e0001", "\U0001f600",
    "null", '"quoted"', "{}", '{"v":1}', '{"n":3}', "\u2028", "<&>", "a\nb", "\0", "{{inputs.parameters.at}}",
    '{"tidegate:blob": "sha256:0"}', "true", "1", " ", "", "%s", "$(HOME)",
]  # fmt: skip
TEXT = st.sampled_from(HOSTILE) | st.text(max_size=20) | st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join)
# shrinking would take minutes: the values are told by their first example
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
LARGE = st.integers(8_000, 200_000).map(lambda n: ('{{"' * n)[:n])
NUMBERS = st.sampled_from([2**53, 2**53 + 1, -(2**63), 10**40, math.nan, math.inf, -math.inf, -0.0, 1e21, 5e-324])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | NUMBERS | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
ITEMS = st.lists(st.fixed_dictionaries({"v": VALUES, "key": TEXT}), max_size=3)


@component
def text(value: str) -> str:
    return value


@component
def mapping(value: dict) -> dict:
    return value


@component
def listing(value: list) -> list:
    return value


@component
def real(value: float) -> float:
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = dict.fromkeys(("text", "mapping", "listing", "real"), lambda value: value)
Outputs = NamedTuple(
    "Outputs", [("plain", str), ("large", dict), ("given", list), ("made", list), ("hits", list), ("same", str)]
)


@dsl.pipeline(name="values")
def values(one: str, other: str, large: dict, items: list, many: list) -> Outputs:
    first = text(value=one)
    with dsl.If(first.output == other):
        yes = text(value="yes")
    with dsl.Else():
        no = text(value="no")
    with dsl.ParallelFor(items) as item:
        passed = mapping(value=item)
        with dsl.If(item.key == one):
            hit = text(value=item.key)
    with dsl.ParallelFor(listing(value=many).output) as item:
        again = mapping(value=item)
    return Outputs(
        first.output, mapping(value=large).output, dsl.Collected(passed.output), dsl.Collected(again.output),
        dsl.Collected(hit.output), dsl.OneOf(yes.output, no.output),
    )  # fmt: skip


@dsl.pipeline(name="numbers")
def numbers(x: float, y: float) -> str:
    with dsl.If(real(value=x).output >= y):
        yes = text(value="yes")
    with dsl.Else():
        no = text(value="no")
    return dsl.OneOf(yes.output, no.output)


@functools.cache
def definition(pipeline: Any) -> str:
    """The definition, its commands the names of functions."""
    spec = dict(of_pipeline(pipeline, "").spec)
    for executor in spec["deploymentSpec"]["executors"].values():
        said = executor["container"]["args"]
        executor["container"] = {"image": "python:3.11", "command": [said[said.index("--function_to_execute") + 1]]}
    return json.dumps(spec)


def run(pipeline: Any, folder: Path, **inputs: Any) -> tuple[Outcome, SimulatedEngine]:
    return run_calls(check(json.loads(definition(pipeline))), inputs, FUNCTIONS, folder / "cluster")


@dsl.pipeline(name="loop")
def loop(items: list) -> list:
    with dsl.ParallelFor(items) as item:
        passed = mapping(value=item)
    return dsl.Collected(passed.output)


@dsl.pipeline(name="alone")
def alone(value: dict) -> dict:
    return mapping(value=value).output


def exact(value: Any) -> str:
    return json.dumps(value, sort_keys=True)  # NaN is not equal to itself


def tags(engine: SimulatedEngine) -> list[str]:
    return sorted(re.findall(r"\{\{.*?\}\}", json.dumps(engine.body)))


@given(one=TEXT, other=TEXT, large=VALUES | LARGE, items=ITEMS, many=st.lists(VALUES | LARGE, max_size=2))
@example(one="{{=1+1}}", other="{{=1+1}}", large="{{", items=[{"v": "{{", "key": "{{=1+1}}"}], many=["\x1b\x7f"])
@hypothesis.settings(max_examples=500 if LONG else 15, phases=PHASES)
def test_any_value_arrives_as_it_was_and_is_never_template_text(
    tmp_path_factory: Any, one: str, other: str, large: Any, items: list[Any], many: list[Any]
) -> None:
    folder, wrapped = Path(tmp_path_factory.mktemp("values")), [{"v": v} for v in many]
    outcome, engine = run(values, folder, one=one, other=other, large={"v": large}, items=items, many=wrapped)
    assert outcome.error is None
    found = {"plain": one, "large": {"v": large}, "given": items, "made": wrapped}
    found |= {"hits": [i["key"] for i in items if i["key"] == one], "same": "yes" if one == other else "no"}
    assert exact(outcome.parameters) == exact(found)
    assert engine.ran
    assert not [v for node in engine.ran.nodes.values() for v in node.inputs.values() if "{{" in v]
    assert not [p for p in engine.body["spec"]["arguments"]["parameters"] if "{{" in p.get("value", "")]
    assert tags(engine) == tags(run(values, folder, one="a", other="b", large={}, items=[], many=[])[1])


@given(x=st.floats() | NUMBERS | st.integers(-9, 9), y=st.floats() | NUMBERS | st.integers(-9, 9))
@hypothesis.settings(max_examples=500 if LONG else 15, phases=PHASES)
def test_numbers_decide_as_they_do_here_or_stop_the_run(tmp_path_factory: Any, x: float, y: float) -> None:
    outcome, _ = run(numbers, Path(tmp_path_factory.mktemp("numbers")), x=x, y=y)
    if math.isfinite(x) and math.isfinite(y):  # declared as doubles, so whole numbers are that too
        assert (outcome.state, outcome.parameters) == (SUCCEEDED, {"Output": "yes" if float(x) >= float(y) else "no"})
    else:
        assert (outcome.state, outcome.error and outcome.error["code"]) == (FAILED, "condition-error")


@pytest.mark.parametrize("value", ["x" * 4_000, "x" * 100_000, math.inf, 2**53 + 1, '{"n":1}'])
def test_a_loop_over_a_parameter_turns_once_per_item_however_it_travels(value: Any, tmp_path: Path) -> None:
    outcome, _ = run(loop, tmp_path, items=[{"a": value}] * 3)
    assert outcome.parameters == {"Output": [{"a": value}] * 3}


def test_a_mapping_that_looks_like_a_reference_is_a_mapping(tmp_path: Path) -> None:
    value = {"tidegate:blob": "sha256:0", "v": 1}
    assert run(alone, tmp_path, value=value)[0].parameters == {"Output": value}
