"""Run parameters as text are read back as they were, whether they travel or are stored."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.engines.argo.test_any_value import LARGE, TEXT, VALUES
from tidegate.engines.argo.argument import argument, parsed, referenced
from tidegate.engines.argo.control import ABSENT, COUNT, MAX_INLINE, VALUE
from tidegate.engines.argo.given import given as texts_of
from tidegate.plan.value import LIST, STRING, STRUCT
from tidegate.store.blobs import Blobs
from tidegate.store.memory import MemoryStore


def read(text: str, type_: str, blobs: Blobs) -> Any:
    digest = referenced(text)
    return parsed(blobs.read_bytes(digest).decode() if digest else text, type_)


def exact(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@given(TEXT | LARGE, st.dictionaries(TEXT, VALUES, max_size=3), st.lists(VALUES | LARGE, max_size=3))
@example("", {"tidegate:blob": "sha256:0"}, [{"tidegate:blob": 1}])
@example('{"tidegate:blob": "sha256:0"}', {"a": {"tidegate:blob": "{{"}}, [math.nan, 2**53 + 1])
def test_parameters_are_read_back_as_they_were(text: str, mapping: dict[str, Any], items: list[Any]) -> None:
    blobs = Blobs(MemoryStore())
    found = texts_of({"text": text, "mapping": mapping, "items": items}, blobs, {"items": COUNT})
    assert read(found["text"], STRING, blobs) == text
    assert exact(read(found["mapping"], STRUCT, blobs)) == exact(mapping)
    assert exact(read(found["items"], LIST, blobs)) == exact(items)
    assert all(t.isascii() and "{{" not in t and len(t) <= 2 * MAX_INLINE for t in found.values())


def test_what_is_not_given_is_null_and_text_that_says_so_is_text() -> None:
    assert argument(None) == "null"
    assert [parsed(argument(v), STRING) for v in (None, "null", "", '"')] == [None, "null", "", '"']


@pytest.mark.parametrize(
    ("value", "need", "known"),
    [
        ([{"a": "x" * 9_000}] * 3, COUNT, {"n": 3}),
        ([math.inf, 2**53 + 1, {"a": 1}], VALUE, {"v": [None, None, {"a": 1}]}),
        ("x" * 9_000, "", {}),
    ],
)
def test_a_stored_parameter_tells_argo_what_argo_reads(value: Any, need: str, known: dict[str, Any]) -> None:
    text = texts_of({"p": value}, Blobs(MemoryStore()), {"p": need} if need else {})["p"]
    body = json.loads(text)
    assert body.pop("tidegate:blob").startswith("sha256:")
    assert body == known
    assert ABSENT == "{}"


def test_parameters_that_are_too_much_together_are_stored_the_longest_first() -> None:
    found = texts_of({str(i): "x" * (6_000 + i) for i in range(12)}, Blobs(MemoryStore()))
    stored = {n for n, t in found.items() if referenced(t)}
    assert stored == {"11", "10"}
