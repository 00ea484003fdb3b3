"""A flow's interface is read from its file, without running it and without Metaflow."""

from pathlib import Path
from typing import Any

import pytest
from kfp.dsl import Dataset, Metrics, Model

from tidegate.contrib.metaflow import flow_component
from tidegate.contrib.metaflow.flow import Parameter, read
from tidegate.errors import DefinitionError

END = "    @step\n    def start(self):\n        self.next(self.end)\n\n\nif __name__ == '__main__':\n    F()\n"
HEAD = "import metaflow as mf\nfrom metaflow import FlowSpec, IncludeFile, JSONType, Parameter as P, step\nMANY = 40\n"


def flow(folder: Path, body: str, head: str = "class F(FlowSpec):\n") -> Path:
    (folder / "pyproject.toml").touch()
    file = folder / "flow.py"
    file.write_text(HEAD + "raise SystemExit('it was run')\n" + head + body + END)
    return file


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("P('a')", Parameter("a", "str")),
        ("P('a-b', default=1, help='h')", Parameter("a-b", "int", 1, help="h")),
        ("P('a', 0.5, float, 'h')", Parameter("a", "float", 0.5, help="h")),
        ("P(name='a', type=float, default=1)", Parameter("a", "float", 1.0)),
        ("P('a', type=bool)", Parameter("a", "bool")),
        ("P('a', required=True, type=int)", Parameter("a", "int", required=True)),
        ("P('a', required=True, default=3)", Parameter("a", "int", 3)),
        ("P('a', type=JSONType, default='[1]')", Parameter("a", "list", [1])),
        ("P('a', type=mf.JSONType)", Parameter("a", "dict")),
        ("P('a', type=JSONType, default='no json')", Parameter("a", "dict")),
        ("P('a', default=lambda context: 'x')", Parameter("a", "str")),
        ("P('a', default=MANY)", Parameter("a", "int", 40)),
        ("mf.Parameter('a', default=-1)", Parameter("a", "int", -1)),
        ("P('a', default='x', separator=',')", Parameter("a", "str", "x")),
        ("IncludeFile('a', required=True)", Parameter("a", "file", required=True)),
        ("IncludeFile('a', default='a.csv', help='h')", Parameter("a", "file", help="h")),
    ],
)
def test_every_way_to_say_a_parameter_is_read(tmp_path: Path, said: str, wanted: Parameter) -> None:
    assert read(flow(tmp_path, f"    p = {said}\n")).parameters == (wanted,)


def test_parameters_of_bases_in_the_file_come_first_and_are_overridden(tmp_path: Path) -> None:
    base = "class Base(FlowSpec):\n    a = P('a', default=1)\n    b = P('b', default=1)\n\nclass F(Base):\n"
    assert [(p.name, p.default) for p in read(flow(tmp_path, "    b = P('b', default=2)\n", base)).parameters] == [
        ("a", 1),
        ("b", 2),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (HEAD + "class F(FlowSpec):\n    pass\n", r"starts none of its classes F"),
        (HEAD + "class F(FlowSpec):\n    pass\nclass G(FlowSpec):\n    pass\nF()\nG()\n", "starts F, G of its classes"),
        ("print('no flow')\n", r"starts none of its classes \(none\)"),
        ("class F(:\n", "cannot be read"),
        ("class A(B): pass\nclass B(A): pass\nA()\nB()\n", "starts A, B"),
    ],
)
def test_a_file_that_starts_no_flow_or_two_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "flow.py").write_text(text)
    with pytest.raises(DefinitionError, match=found) as refused:
        read(tmp_path / "flow.py")
    assert refused.value.code == "flow-unreadable"


def inputs(made: Any) -> dict[str, tuple[str, Any, bool]]:
    return {n: (i.type, i.default, i.optional) for n, i in made.component_spec.inputs.items()}


def test_the_component_has_the_flows_interface_and_what_the_pipeline_says_of_it(tmp_path: Path) -> None:
    body = (
        "    '''Learn.'''\n    a = P('learning-rate', default=0.5, help='how fast')\n    b = P('b', required=True)\n"
        "    c = P('c', type=float)\n    d = IncludeFile('d', required=True)\n    e = IncludeFile('e')\n    f = P('f', default=now())\n"
        "    g = P('g')\n"
    )
    made = flow_component(
        flow(tmp_path, body),
        artifacts={"model": Model, "rows": int},
        metrics=["loss"],
        parameters={"learning-rate": 0.25, "f": int, "inherited": [1], "g": Dataset},
        image="train",
    )
    spec = made.component_spec
    assert (spec.name, spec.description, spec.inputs["learning_rate"].description) == ("f", "Learn.", "how fast")
    assert inputs(made) == {
        "learning_rate": ("Float", 0.25, True),
        "b": ("String", None, False),
        "c": ("Float", None, True),
        "d": ("system.Artifact@0.0.1", None, False),
        "e": ("system.Artifact@0.0.1", None, True),
        "f": ("Integer", None, True),
        "g": ("system.Dataset@0.0.1", None, False),
        "inherited": ("List", [1], True),
    }
    assert {n: o.type for n, o in spec.outputs.items()} == {
        "rows": "Integer",
        "model": "system.Model@0.0.1",
        "metrics": "system.Metrics@0.0.1",
    }
    container = spec.implementation.container
    assert container.image == "tidegate.invalid/train"
    assert container.args[:4] == ["--executor_input", "{{$}}", "--function_to_execute", "flow.py:F"]


@pytest.mark.parametrize(
    ("body", "said", "found"),
    [
        ("    a = P('class')\n", {}, "'class' is no name"),
        ("    a = P('model')\n", {"artifacts": {"model": Model}}, "two of its inputs and outputs are called 'model'"),
        ("", {"artifacts": {"metrics": Metrics}, "metrics": ["a"]}, "called 'metrics'"),
        ("", {"artifacts": {"a": complex}}, "'a' comes out as complex"),
        ("    a = P('a', default=1)\n", {"parameters": {"a": "x"}}, "'a' has the default 'x'"),
        ("    a = IncludeFile('a')\n", {"parameters": {"a": "x"}}, "'a' has the default 'x'"),
        ("", {"parameters": {"a": object()}}, "'a' is a object"),
    ],
)
def test_what_kfp_could_not_have_is_refused(tmp_path: Path, body: str, said: dict[str, Any], found: str) -> None:
    with pytest.raises(DefinitionError, match=found) as refused:
        flow_component(flow(tmp_path, body), **said)
    assert refused.value.code == "flow-interface"


def test_a_flow_in_no_project_is_refused(tmp_path: Path) -> None:
    file = flow(tmp_path, "")
    (tmp_path / "pyproject.toml").unlink()
    with pytest.raises(DefinitionError) as refused:
        flow_component(file, artifacts={"data": Dataset})
    assert refused.value.code == "component-outside"
