"""Values: what a declared type takes, and what it makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.cli.values import as_json
from tidegate.errors import ParameterError
from tidegate.plan.value import Artifact, artifact_from_json, coerce

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        (3, "NUMBER_INTEGER", 3),
        (3.0, "NUMBER_INTEGER", 3),
        ("3", "NUMBER_INTEGER", 3),
        (2**70, "NUMBER_INTEGER", 2**70),
        (3, "NUMBER_DOUBLE", 3.0),
        ("0.5", "NUMBER_DOUBLE", 0.5),
        ("x", "STRING", "x"),
        ([1], "STRING", "[1]"),
        (True, "BOOLEAN", True),
        ("False", "BOOLEAN", False),
        ("[1, 2.5]", "LIST", [1, 2.5]),
        ('{"a": [1]}', "STRUCT", {"a": [1]}),
    ],
)
def test_a_value_becomes_what_its_type_says(value: Any, type_: str, expected: Any) -> None:
    found = coerce(value, type_, "x")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (1.5, "NUMBER_INTEGER"), (True, "NUMBER_INTEGER"), ("x", "NUMBER_INTEGER"), (None, "NUMBER_INTEGER"),
        ("x", "NUMBER_DOUBLE"), ([1], "NUMBER_DOUBLE"), (1, "BOOLEAN"), ("yes", "BOOLEAN"), ({}, "LIST"), ("{}", "LIST"),
        ([], "STRUCT"), ("x", "STRUCT"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_wanted(value: Any, type_: str) -> None:
    with pytest.raises(ParameterError) as e:
        coerce(value, type_, "the parameter x")
    assert e.value.allowed
    assert "the parameter x" in e.value.found


@given(st.lists(json_values), st.dictionaries(st.text(), json_values))
def test_lists_and_mappings_keep_every_value_and_type_at_every_depth(items: list[Any], mapping: dict[str, Any]) -> None:
    assert repr(coerce(items, "LIST", "x")) == repr(items)
    assert repr(coerce(mapping, "STRUCT", "x")) == repr(mapping)


def test_numbers_that_json_cannot_say_are_strings_in_printed_json() -> None:
    assert as_json({"a": [float("nan"), float("inf"), -float("inf"), 1, 1.5]}) == {
        "a": ["NaN", "Infinity", "-Infinity", 1, 1.5]
    }


def test_an_artifact_survives_its_record() -> None:
    artifact = Artifact("n", "u", "system.Model@0.0.1", "sha256:x", "file", 3, {"k": [1]})
    assert artifact_from_json(artifact.as_json()) == artifact
