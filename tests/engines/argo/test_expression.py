"""Expressions: the answers that Go gave (expr 1.17.7 in Argo 4.0.7's environment), kept in expressions.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.argo.expression import evaluate
from tests.engines.argo.govalue import ExpressionError, go_json, type_of
from tests.engines.argo.substitution import expanded
from tests.engines.argo.syntax import identifiers

KEPT = json.loads((Path(__file__).parent / "expressions.json").read_text())
NAMES = expanded(KEPT["names"])


def answer(text: str) -> list[Any]:
    try:
        value = evaluate(text, NAMES)
    except ExpressionError:
        return [text]
    return [text, type_of(value), json.loads(go_json(value))]


def test_values_types_and_errors_are_those_of_go() -> None:
    assert len(KEPT["answers"]) > 500
    assert [answer(text) for text, *_ in KEPT["answers"]] == KEPT["answers"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "tasks['a'].outputs.parameters.o",
            ["tasks.a.outputs.parameters.o", "tasks.a.outputs.parameters", "tasks.a.outputs", "tasks.a", "tasks"],
        ),
        ("tasks['a'].outputs.o ?? item", ["tasks", "item"]),
        ("tasks['a']?.outputs", ["tasks"]),
        ("tasks['a'].outputs?.o", ["tasks.a", "tasks"]),
        ("tasks['a'].outputs?.o.p", ["tasks.a", "tasks"]),
        ("let x = item; x.y", ["item", "x.y", "x"]),
        ("map(item, {#.v + int(nope)})", ["item", "nope"]),
        ("toJson(a[b].c)", ["toJson", "a", "b"]),
    ],
)
def test_what_an_expression_needs_to_be_there(text: str, found: list[str]) -> None:
    assert [i for i in dict.fromkeys(identifiers(text)) if i] == found


def test_what_is_not_modelled_is_refused_and_not_guessed() -> None:
    for text in (
        "[1, 2][0:1]",
        "1 | string()",
        "2 ** 3",
        'fromJSON("\\"abc\\"")[0]',
        "split('a', 'b')",
        "sprig.trim('a')",
    ):
        with pytest.raises(NotImplementedError):
            evaluate(text, {})
