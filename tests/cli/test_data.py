"""``tidegate data`` as a user meets it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tidegate import cli


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "rows.csv").write_text("1,2")
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> Said:
        code = cli._main(["data", *args])
        return Said(code, *capsys.readouterr())

    return call


def test_a_pin_is_made_brought_and_verified(data: Callable[..., Said]) -> None:
    pin = data("pin", "file:rows.csv").out.strip()
    assert pin.startswith("file:/")
    assert json.loads(data("pin", "file:rows.csv", "--json").out)["digest"] is None
    assert data("pull", pin, "out.csv").code == 0
    assert json.loads(data("pin", "file:rows.csv", "--json").out)["digest"].startswith("sha256:")
    assert data("verify", pin, "out.csv").code == 0
    Path("out.csv").write_text("1,3")
    said = data("verify", pin, "out.csv")
    assert (said.code, "error[data-differs]" in said.err) == (1, True)


def test_what_was_kept_outlives_its_source(data: Callable[..., Said]) -> None:
    pin = data("pin", "--keep", "file:rows.csv").out.strip()
    Path("rows.csv").unlink()
    assert data("pull", pin, "back.csv").code == 0
    assert Path("back.csv").read_text() == "1,2"


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["pin", "rows.csv"], 2, "error[reference-invalid]"),
        (["pin", "file:none"], 2, "error[not-found]"),
        (["pin", "http://127.0.0.1:9/x"], 3, "error[data-unreachable]"),
        (["pull", "file:rows.csv", "out"], 2, "error[pin-invalid]"),
        (["verify", "file:rows.csv", "rows.csv"], 2, "tidegate data pin"),
    ],
)
def test_a_mistake_gets_its_code(data: Callable[..., Said], args: list[str], code: int, says: str) -> None:
    said = data(*args)
    assert said.code == code
    assert says in said.err
