from pathlib import Path

import polars as pl
import pytest

from components import dataset
from components.ingest.component import ingest
from tidegate.author.testing import run_component
from tidegate.errors import Damaged, NotFound, ParameterError
from tidegate.store.blobs import digest_path


def test_iris_comes_whole_with_its_names(tmp_path: Path) -> None:
    result = run_component(ingest, tmp_path, source="sklearn:iris")
    frame = dataset.read(result.artifacts["data"].path)
    assert frame.columns == ["sepal_length", "sepal_width", "petal_length", "petal_width", "species"]
    assert frame["species"].value_counts(sort=True)["count"].to_list() == [50, 50, 50]
    assert result.outputs["Output"] == frame.height == result.artifacts["data"].metadata["rows"]


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for folder in (tmp_path / "a", tmp_path / "b"):
        result = run_component(ingest, folder, source="sklearn:wine")
        digests.add(digest_path(result.artifacts["data"].path).digest)
    assert len(digests) == 1


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_is_read_from_the_projects_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setenv("TIDEGATE_PROJECT", str(tmp_path))
    frame = pl.DataFrame({"x": [1, 2], "y": ["a", "b"]})
    getattr(frame, f"write_{suffix}")(tmp_path / f"table.{suffix}")
    result = run_component(ingest, tmp_path / "out", source=f"file:table.{suffix}")
    assert dataset.read(result.artifacts["data"].path).equals(frame)


def test_a_partitioned_folder_keeps_its_keys(tmp_path: Path) -> None:
    dataset.write(pl.DataFrame({"x": [1]}), tmp_path / "in" / "date=2026-01-01")
    dataset.write(pl.DataFrame({"x": [2]}), tmp_path / "in" / "date=2026-01-02")
    result = run_component(ingest, tmp_path / "out", source=str(tmp_path / "in"))
    assert dataset.read(result.artifacts["data"].path)["date"].to_list() == ["2026-01-01", "2026-01-02"]


def test_bytes_other_than_the_named_digest_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("x\n1\n")
    pinned = f"{path}#{digest_path(path).digest}"
    assert run_component(ingest, tmp_path / "out", source=pinned).outputs["Output"] == 1
    path.write_text("x\n2\n")
    with pytest.raises(Damaged, match="the source names sha256:"):
        run_component(ingest, tmp_path / "out", source=pinned)


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("sklearn:irsi", ParameterError, "sklearn:iris, sklearn:wine"),
        ("file:absent.csv", NotFound, "there is no data at absent.csv"),
        ("file:notes.txt", ParameterError, "notes.txt is no table"),
        ("file:broken.parquet", ParameterError, "broken.parquet cannot be read"),
        ("file:ragged.csv", ParameterError, "ragged.csv cannot be read"),
        ("file:empty", ParameterError, "the data cannot be read"),
    ],
)
def test_what_is_no_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: type[Exception], said: str
) -> None:
    monkeypatch.setenv("TIDEGATE_PROJECT", str(tmp_path))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3,4\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=said):
        run_component(ingest, tmp_path / "out", source=source)
