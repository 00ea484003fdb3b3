from pathlib import Path

import polars as pl
import pytest

from components import dataset
from components.generate_transactions.transactions import generate
from components.ingest.sources import read
from components.validate import checks
from components.validate.component import validate
from tidegate.author.testing import run_component
from tidegate.errors import ParameterError, Refused

IRIS = read("sklearn:iris").frame
REVIEWS = pl.DataFrame({"text": ["the soup was fine", "the bed was bad"], "label": [1, 0]})


@pytest.mark.parametrize(("name", "frame"), [("iris", IRIS), ("transactions", generate(1000)), ("reviews", REVIEWS)])
def test_good_data_passes_with_a_readable_report(tmp_path: Path, name: str, frame: pl.DataFrame) -> None:
    dataset.write(frame, tmp_path / "data")
    result = run_component(validate, tmp_path / "out", data=tmp_path / "data", schema=name)
    assert result.outputs["Output"] == frame.height
    assert f"{name}: every check holds, {frame.height} rows" in result.artifacts["report"].path.read_text()


def test_bad_data_fails_the_step_naming_columns_and_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = IRIS.with_columns(petal_width=-pl.col("petal_width"), species=pl.lit("rose<b>"))
    dataset.write(bad, tmp_path / "data")
    with pytest.raises(Refused, match=r"petal_width: in_range\(0.05, 15.0\) fails 150 times") as refused:
        run_component(validate, tmp_path / "out", data=tmp_path / "data", schema="iris")
    assert refused.value.code == "data-invalid"
    assert "species: isin" in capsys.readouterr().out
    assert "rose&lt;b&gt;" in checks.check(bad, "iris").html


@pytest.mark.parametrize(
    "bad",
    [
        IRIS.head(29),
        IRIS.drop("species"),
        IRIS.with_columns(extra=1),
        IRIS.with_columns(sepal_width=pl.lit(float("nan"))),
        IRIS.with_columns(sepal_width=pl.when(pl.int_range(150) > 148).then(None).otherwise("sepal_width")),
        IRIS.with_columns(pl.col("sepal_width").cast(pl.String)),
        IRIS.with_columns(pl.col("sepal_width").cast(pl.Float32)),
        IRIS.clear(),
    ],
    ids=["short", "missing", "extra", "nan", "null-in-the-last-row", "text", "single", "empty"],
)
def test_no_fault_of_a_table_passes(bad: pl.DataFrame) -> None:
    assert checks.check(bad, "iris").total > 0


def test_a_report_stays_short_whatever_fails() -> None:
    found = checks.check(generate(20_000).with_columns(amount=-pl.col("amount")), "transactions")
    assert found.total == 20_000
    assert len(found.lines) == 1
    assert len(found.html) < 1000


def test_every_schema_file_is_in_the_table() -> None:
    files = {p.stem for p in (Path(checks.__file__).parent / "schemas").glob("*.py")}
    assert files == set(checks.SCHEMAS)


def test_an_unknown_schema_lists_the_known() -> None:
    with pytest.raises(ParameterError, match="iris, reviews, transactions"):
        checks.check(IRIS, "irsi")
