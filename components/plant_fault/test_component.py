from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from components.plant_fault.component import plant_fault
from tests.registry.made import frame, model
from tidegate.author.testing import run_component
from tidegate.errors import ParameterError
from tidegate.serve.onnx import Scorer

COLUMN = "x"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return model(tmp_path / "sound")


def planted(sound: Path, tmp_path: Path, **inputs: Any) -> Scorer:
    found = run_component(plant_fault, tmp_path / "out", model=sound, **{"column": COLUMN, **inputs})
    return Scorer.load(found.artifacts["planted"].path)


def rows(scorer: Scorer, **changes: Any) -> dict[str, np.ndarray]:
    table = frame(50)
    columns = {t.name: table[t.name].to_numpy() for t in scorer.signature.inputs}
    return {**columns, **{n: np.full(50, v) for n, v in changes.items()}}


@pytest.mark.parametrize("fault", ["fails", "slow"])
def test_a_planted_fault_changes_no_prediction_of_rows_as_an_evaluation_has_them(
    sound: Path, tmp_path: Path, fault: str
) -> None:
    before, after = Scorer.load(sound), planted(sound, tmp_path, fault=fault)
    expected, found = before.predict(rows(before)), after.predict(rows(after))
    assert np.array_equal(expected["probabilities"], found["probabilities"])
    assert np.array_equal(expected["label"], found["label"])


def test_a_failing_model_fails_only_where_the_column_is_above_the_limit(sound: Path, tmp_path: Path) -> None:
    scorer = planted(sound, tmp_path, above=100.0)
    scorer.predict(rows(scorer, **{COLUMN: 100.0}))
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        scorer.predict(rows(scorer, **{COLUMN: 100.5}))


def test_a_slow_models_products_are_not_optimised_away(sound: Path, tmp_path: Path) -> None:
    found = run_component(plant_fault, tmp_path / "out", model=sound, column=COLUMN, fault="slow", work=30)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession((found.artifacts["planted"].path / "model.onnx").read_bytes(), options)
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    assert sum(n.op_type in ("MatMul", "FusedMatMul") for n in nodes) >= 30


@pytest.mark.parametrize("inputs", [{"fault": "explodes"}, {"column": "kind"}, {"column": "absent"}])
def test_what_cannot_be_planted_says_what_can(sound: Path, tmp_path: Path, inputs: dict[str, Any]) -> None:
    with pytest.raises(ParameterError) as e:
        planted(sound, tmp_path, **inputs)
    assert "One of: " in e.value.allowed
