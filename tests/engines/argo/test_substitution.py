"""Tags in documents, as Argo replaces them; substitution.py was compared with the Go code on random documents."""

from typing import Any

import pytest

from tests.engines.argo.substitution import EVERYTHING, REFERENCES, SubstitutionError, expanded, quoted, replaced

VALUES = {
    "a": "1",
    "item": "7",
    "quote": 'x"\n\\',
    "tag": "{{a}}",
    "esc": "\x1b",
    "nil": None,
    "tasks.t.outputs.parameters.o": "{}",
    "tasks.s.outputs.parameters.o": None,
}


@pytest.mark.parametrize(
    ("text", "made"),
    {
        "{{a}} {{ a }}": "1 1",
        "{{quote}}": 'x"\n\\',
        "{{tag}}": "{{a}}",  # until the next pass
        "{{nope}} {{}}": "{{nope}} {{}}",
        "{{=int(a) + 1}}": "2",
        "{{=quote}}": 'x"\n\\',
        '{{="<&>" + a}}': "<&>1",
        "{{=[1, a]}}": '[1,"1"]',
        "{{=nil}}": "{{=nil}}",
        "{{=int('x')}}": "{{=int('x')}}",
        "{{=workflow.status}}": "{{=workflow.status}}",
        "{{=tasks['z']?.o ?? 'early'}}": "early",
        "{{=tasks['z'].outputs.o ?? 'early'}}": "{{=tasks['z'].outputs.o ?? 'early'}}",
    }.items(),
)
def test_a_first_pass_replaces_what_it_can(text: str, made: str) -> None:
    assert replaced({"k": [text]}, VALUES) == {"k": [made]}


@pytest.mark.parametrize("text", ["{{nil}}", "{{esc}}", "{{a", "{{=1 +}}", '{{="\\u003c"}}'])
def test_some_tags_fail_in_every_pass(text: str) -> None:
    for strict in None, REFERENCES, EVERYTHING:
        with pytest.raises(SubstitutionError) as caught:
            replaced(text, VALUES, strict)
        assert not caught.value.missing


@pytest.mark.parametrize(
    ("text", "missing"),
    {
        "{{tasks.z.outputs.parameters.o}}": True,
        "{{=tasks['z'].outputs.parameters.o}}": True,
        "{{=tasks['z'].outputs.parameters.o ?? '{}'}}": False,
        "{{=tasks['s'].outputs.parameters.o}}": False,
        "{{tasks.s.outputs.parameters.o}}": False,
        "{{=int('x')}}": False,
        "{{=nil}}": False,
    }.items(),
)
def test_when_a_task_is_due_its_references_have_to_be_there(text: str, missing: bool) -> None:
    with pytest.raises(SubstitutionError) as caught:
        replaced(text, VALUES, REFERENCES)
    assert caught.value.missing == missing


@pytest.mark.parametrize(
    ("text", "made"),
    {
        "{{nope}}": "{{nope}}",
        "{{tasks.z.outputs.artifacts.o}}": "{{tasks.z.outputs.artifacts.o}}",
        "{{=let x = int('y'); x}}": "{{=let x = int('y'); x}}",  # for Argo x is something unknown
        "{{=tasks['s'].outputs.parameters.o ?? 'd'}}": "d",
    }.items(),
)
def test_but_not_more(text: str, made: str) -> None:
    assert replaced(text, VALUES, REFERENCES) == made


@pytest.mark.parametrize(
    "text", ["{{nope}}", "{{tasks.z.outputs.artifacts.o}}", "{{=let x = item; x}}", "{{=nope ?? 1}}"]
)
def test_in_a_loop_everything_has_to_be_there(text: str) -> None:
    with pytest.raises(SubstitutionError):
        replaced(text, VALUES, EVERYTHING)


def test_text_is_quoted_as_go_does() -> None:
    assert quoted('"\\\n\t\r\b\f') == '\\"\\\\\\n\\t\\r\\b\\f'
    assert quoted("é✓😀") == "é✓😀"
    assert quoted("\x00\x1b\x7f\a\v") == "\\x00\\x1b\\x7f\\a\\v"  # no JSON
    assert quoted("\u200b\u00a0\U000e0001") == "\\u200b\\u00a0\\U000e0001"


def test_names_become_a_tree_and_what_has_parts_is_nothing_itself() -> None:
    values: dict[str, Any] = {"a": 1, "a.b": 2, "a.c.d": None, "ab": 3}
    assert expanded(values) == {"a": {"b": 2, "c": {"d": None}}, "ab": 3}
