"""The Python face: a sorted list, and a run as the command line runs it."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tidegate
from tidegate.errors import NotFound, ParameterError

SOURCE = """
import tidegate
from kfp import dsl
from kfp.dsl import Dataset, Input, Output

@tidegate.component
def repeat(text: str, n: int, out: Output[Dataset]) -> int:
    with open(out.path, "w") as f:
        f.write(text * n)
    return n * len(text)

@dsl.pipeline(name="api")
def api(n: int, text: str = "ab") -> dsl.Dataset:
    return repeat(text=text, n=n).outputs["out"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "pyproject.toml").write_text('[tool.tidegate]\nstore = "my-store"\n')
    (tmp_path / "api_pipeline.py").write_text(SOURCE)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("api_pipeline", None)


def test_the_public_face_is_a_sorted_list_of_names_that_are_there() -> None:
    assert sorted(tidegate.__all__) == tidegate.__all__
    for name in tidegate.__all__:
        assert getattr(tidegate, name)
    with pytest.raises(AttributeError):
        tidegate.nothing  # noqa: B018


def test_a_pipeline_runs_from_python_by_file_and_by_function(project: Path) -> None:
    options = tidegate.Options(mirror=False)
    run = tidegate.run(str(project / "api_pipeline.py"), {"n": 3}, options)
    (made,) = run.outputs["api" if "api" in run.outputs else "Output"]
    path = run.path(made)
    assert path
    assert path.read_text() == "ababab"
    assert (project / "my-store" / "runs" / run.id).is_dir()
    again = tidegate.run(importlib.import_module("api_pipeline").api, {"n": 3}, options)
    assert (again.state, [s.cached for s in again.outcome.steps]) == ("SUCCEEDED", [True])
    given = {"data": project / "none"}
    for wrong in ({"n": "x"}, {"m": 1}, {}):
        with pytest.raises(ParameterError):
            tidegate.run(str(project / "api_pipeline.py"), wrong, options)
    with pytest.raises(tidegate.TidegateError, match="int is no pipeline"):
        tidegate.run(42)
    with pytest.raises(NotFound):
        tidegate.run(str(project / "api_pipeline.py"), {"n": 1}, tidegate.Options(artifacts=given))
