"""Artifacts come out in forms that need no pickle, or not at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from tidegate.contrib.metaflow.outputs import number, parameter, write
from tidegate.errors import StepFailed


def test_arrays_and_numbers_of_libraries_are_json_or_parameters(tmp_path: Path) -> None:
    write("a", {"x": np.arange(3), "y": np.float32(0.5), "z": (1, None)}, "Artifact", tmp_path / "a")
    assert json.loads((tmp_path / "a").read_text()) == {"x": [0, 1, 2], "y": 0.5, "z": [1, None]}
    assert parameter("a", np.int64(3), "float") == 3
    assert parameter("a", np.array([1.5]), "list") == [1.5]
    assert parameter("a", {"x": np.float64(1)}, "dict") == {"x": 1.0}
    assert write("a", np.float64(0.5), "Metrics", tmp_path / "b") == {"a": 0.5}


def test_a_table_comes_out_as_components_read_it(tmp_path: Path) -> None:
    from components import dataset

    frame = pl.DataFrame({"x": [1.5, 2.5], "y": ["a", "b"]})
    write("a", frame, "Dataset", tmp_path / "polars")
    write("a", frame.to_pandas(), "Dataset", tmp_path / "pandas")
    for name in ("polars", "pandas"):
        assert dataset.read(tmp_path / name).equals(frame)


def test_folders_and_files_are_copied(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").write_text("x")
    write("a", tmp_path / "in", "Model", tmp_path / "folder")
    write("a", tmp_path / "in" / "f", "Artifact", tmp_path / "file")
    assert ((tmp_path / "folder/f").read_text(), (tmp_path / "file").read_text()) == ("x", "x")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (LogisticRegression(), "is a LogisticRegression that is no JSON"),
        ({"x": float("nan")}, "is a dict that is no JSON"),
        ({"x": {1, 2}}, "is a dict that is no JSON"),
        ({"../x": b""}, "has '../x' in it"),
        ({"/x": b""}, "has '/x' in it"),
        ({"": b""}, "has '' in it"),
        ({"x": b"", "y": 1}, "has 'y' in it, a int"),
        (Path("/nowhere/at/all"), "names /nowhere/at/all, where nothing is"),
    ],
)
def test_what_has_no_form_but_a_pickle_is_refused(tmp_path: Path, value: Any, found: str) -> None:
    with pytest.raises(StepFailed) as refused:
        write("thing", value, "Model", tmp_path / "made")
    assert refused.value.code == "flow-artifact"
    assert f"'thing' {found}" in refused.value.found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", True, None, [1]])
def test_a_metric_is_a_finite_number(value: Any) -> None:
    with pytest.raises(StepFailed, match="A metric is a finite number"):
        number("loss", value)


@pytest.mark.parametrize(("value", "kind"), [("1", "int"), (True, "int"), (1.5, "int"), (1, "str"), ([1], "dict")])
def test_an_output_parameter_has_the_type_that_the_component_says(value: Any, kind: str) -> None:
    with pytest.raises(StepFailed, match=f"The component says it is a {kind}"):
        parameter("thing", value, kind)
