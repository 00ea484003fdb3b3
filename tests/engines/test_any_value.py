"""Any JSON value arrives through any chain of components as it was."""

import json
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import given
from hypothesis import strategies as st
from kfp import dsl

from conftest import LONG
from tests.engines.project import Project

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def pass_on(value: dict) -> dict:
    return value


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def by_file(value: dict, out: dsl.OutputPath(str)):
    import json

    with open(out, "w") as f:
        json.dump(value, f)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def unpack(text: str, plain: str, data: dsl.Output[dsl.Artifact]) -> dict:
    import json

    data.metadata["value"] = json.loads(text)
    return {"value": json.loads(text)["v"], "plain": plain}


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def from_metadata(data: dsl.Input[dsl.Artifact], item: dict) -> dict:
    return {**item, "metadata": data.metadata["value"]["v"]}


@dsl.pipeline(name="inner")
def inner(value: dict, plain: str) -> dict:
    written = by_file(value=pass_on(value=value).output)
    made = unpack(text=written.outputs["out"], plain=plain)
    return from_metadata(data=made.outputs["data"], item=made.outputs["Output"]).output


@dsl.pipeline(name="any-value")
def any_value(values: list, plain: str) -> list:
    with dsl.ParallelFor(values) as item:
        done = inner(value=item, plain=plain)
    return dsl.Collected(done.output)


def text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)  # NaN is not equal to itself


@given(values=st.lists(VALUES, min_size=1, max_size=4), plain=st.text(st.characters(exclude_categories=["Cs"])))
@hypothesis.settings(max_examples=200 if LONG else 5, deadline=None)
def test_any_value_arrives_through_parameters_files_metadata_loops_and_nested_pipelines(
    tmp_path_factory: Any, values: list[Any], plain: str
) -> None:
    project = Project(Path(tmp_path_factory.mktemp("values")))
    outcome = project.run_traced(any_value, values=[{"v": v} for v in values], plain=plain)
    assert outcome.error is None
    for value, found in zip(values, outcome.parameters["Output"], strict=True):
        assert text(found) == text({"value": value, "plain": plain, "metadata": value})
