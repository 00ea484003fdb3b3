"""Reading definitions: what is wrong is said with a code, the author's own line, and no traceback of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.errors import DefinitionError, NotFound
from tidegate.ir.check import check
from tidegate.ir.load import load
from tidegate.plan.build import build

PIPELINE = """
from kfp import dsl

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def add(a: int, b: int) -> int:
    return a + b

@dsl.pipeline(name="sum")
def total(a: int = 1) -> int:
    return add(a=a, b=2).output
"""


def write(folder: Path, text: str, name: str) -> str:
    (folder / "pyproject.toml").touch()
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_file_and_what_it_compiles_to_are_one_definition(tmp_path: Path) -> None:
    from tidegate.ir.write import to_yaml

    traced = load(write(tmp_path, PIPELINE, "sum_one.py"))
    written = write(tmp_path, to_yaml(traced), "sum.yaml")
    assert build(load(written).spec).digest == build(traced.spec).digest


def test_the_pipeline_is_chosen_by_name_and_an_ambiguous_file_says_which_there_are(tmp_path: Path) -> None:
    two = PIPELINE + "\n@dsl.pipeline(name='other')\ndef other():\n    add(a=1, b=1)\n"
    file = write(tmp_path, two, "sum_two.py")
    assert load(f"{file}:other").spec["pipelineInfo"]["name"] == "other"
    with pytest.raises(DefinitionError, match="2 pipelines") as e:
        load(file)
    assert "other, total" in e.value.allowed
    with pytest.raises(NotFound, match="'nothing'"):
        load(f"{file}:nothing")


def test_a_pipeline_that_raises_names_its_authors_line(tmp_path: Path) -> None:
    broken = PIPELINE.replace("    return add(", "    1 / 0\n    return add(")
    with pytest.raises(DefinitionError, match="ZeroDivisionError") as e:
        load(write(tmp_path, broken, "broken_one.py"))
    assert f"{tmp_path / 'broken_one.py'}:10" in e.value.found
    assert e.value.code == "pipeline-raised"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "just text"),
        ("b.yaml", "a: [1"),
        ("c.json", '{"a": '),
        ("d.yaml", "[" * 500 + "]" * 500),
        ("e.yaml", "a: &a [1]\nb: [" + "*a, " * 2000 + "1]"),
        ("f.yaml", "--- 1\n--- 2\n--- 3"),
        ("g.json", "[" * 100_000),
        ("h.yaml", "\x00"),
    ],
)
def test_a_file_that_is_no_pipeline_spec_is_refused_with_a_code(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(DefinitionError) as e:
        check(load(write(tmp_path, text, name)).spec)
    assert e.value.code in ("ir-unreadable", "ir-shape")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    for name in ("none.py", "none.yaml", "none/none"):
        with pytest.raises(NotFound):
            load(str(tmp_path / name))
