"""Placeholders: parsed once, rendered from values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidegate.ir import placeholder
from tidegate.ir.placeholder import Concat, IfPresent, Placeholder, Text


def resolve(values: dict[str, Any]) -> Any:
    return lambda p: values[
        f"{p.form}:{p.name}{'.' + p.attribute if p.attribute else ''}{':' + p.key if p.key else ''}"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{$}}", Placeholder("executor_input")),
        ("{{$.inputs.parameters['n']}}", Placeholder("input_parameter", "n")),
        ('{{$.inputs.parameters["n"]}}', Placeholder("input_parameter", "n")),
        ("{{$.inputs.artifacts['d'].path}}", Placeholder("input_artifact", "d", "path")),
        ("{{$.inputs.artifacts['d'].metadata['k']}}", Placeholder("input_artifact", "d", "metadata", "k")),
        ("{{$.outputs.artifacts['m'].uri}}", Placeholder("output_artifact", "m", "uri")),
        ("{{$.outputs.parameters['n'].output_file}}", Placeholder("output_parameter", "n")),
        ("{{$.outputMetadataUri}}", Placeholder("output_file")),
        ("{{$.pipeline_job_name}}", Placeholder("context", "pipeline_job_name")),
        ("{{$.workspace_path}}", Placeholder("context", "workspace_path")),
    ],
)
def test_every_form_is_known(text: str, expected: Placeholder) -> None:
    assert placeholder.parse(text) == Text((expected,))


def test_text_around_a_placeholder_stays() -> None:
    template = placeholder.parse("--n={{$.inputs.parameters['n']}};")
    assert placeholder.render(template, resolve({"input_parameter:n": [1, 2]}), bool) == ["--n=[1, 2];"]


@pytest.mark.parametrize("text", ["{{$.something_else}}", "{{ $ }}", "{{workflow.name}}", "{{$", '{"Concat": 3}'])
def test_what_is_no_placeholder_stays_text(text: str) -> None:
    assert placeholder.render(placeholder.parse(text), resolve({}), bool) == [text]


def test_a_value_that_looks_like_a_placeholder_is_not_resolved_again() -> None:
    template = placeholder.parse("{{$.inputs.parameters['n']}}")
    assert placeholder.render(template, resolve({"input_parameter:n": "{{$}}"}), bool) == ["{{$}}"]


def test_concat_and_if_present_nest() -> None:
    then = ["--n", {"Concat": ["<", "{{$.inputs.parameters['n']}}", ">"]}]
    text = json.dumps({"IfPresent": {"InputName": "n", "Then": then, "Else": "none"}})
    template = placeholder.parse(text)
    assert isinstance(template, IfPresent)
    assert isinstance(template.then[1], Concat)
    values = resolve({"input_parameter:n": "x"})
    assert placeholder.render(template, values, lambda _: True) == ["--n", "<x>"]
    assert placeholder.render(template, values, lambda _: False) == ["none"]


def test_a_constant_that_is_one_placeholder_keeps_its_type() -> None:
    values = resolve({"input_parameter:n": 3})
    constant = {"a": "{{$.inputs.parameters['n']}}", "b": ["n={{$.inputs.parameters['n']}}", 1, None]}
    assert placeholder.placeholders_in(constant)
    assert placeholder.substitute(constant, values) == {"a": 3, "b": ["n=3", 1, None]}
