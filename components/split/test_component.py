from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import dataset
from components.split.component import split
from components.split.order import cut
from tidegate.author.testing import Artifact, run_component
from tidegate.errors import ParameterError


def test_every_row_lands_on_one_side_in_order(tmp_path: Path) -> None:
    for day in ("2026-01-03", "2026-01-01", "2026-01-02"):
        dataset.write(pl.DataFrame({"x": range(10)}), tmp_path / "in" / f"date={day}")
    data = Artifact(tmp_path / "in", {"source": "here"})
    result = run_component(split, tmp_path / "out", data=data, by="date", fraction=0.7)
    train, test = (dataset.read(result.artifacts[n].path) for n in ("train", "test"))
    assert set(train["date"]) == {"2026-01-01", "2026-01-02"}
    assert set(test["date"]) == {"2026-01-03"}
    assert result.outputs["Output"] == test.height == 10
    assert result.artifacts["test"].metadata == {"source": "here", "rows": 10, "part": "date >= 2026-01-03"}


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.floats(0.01, 0.99))
def test_no_row_for_training_is_as_late_as_one_held_out(values: list[int], fraction: float) -> None:
    frame = pl.DataFrame({"t": values, "row": range(len(values))})
    try:
        (earlier, _), (later, _) = cut(frame, "t", fraction)
    except ParameterError:
        assert sorted(values)[int(len(values) * fraction)] == min(values)
        return
    assert earlier["t"].max() < later["t"].min()
    assert sorted([*earlier["row"], *later["row"]]) == list(range(len(values)))


@pytest.mark.parametrize(
    ("by", "fraction", "said"), [("day", 0.5, "no column 'day'"), ("t", 1.0, "at 1.0"), ("t", 0.5, "before 1")]
)
def test_a_split_that_leaves_a_side_empty_is_refused(by: str, fraction: float, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        cut(pl.DataFrame({"t": [1, 1, 1]}), by, fraction)
