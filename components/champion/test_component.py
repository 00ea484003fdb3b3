import json
from pathlib import Path

import pytest

from components.champion.component import champion
from tidegate.author.testing import run_component
from tidegate.data.profile import Bins, Profile
from tidegate.errors import Damaged
from tidegate.registry.model import Registry
from tidegate.registry.policy import Policy, Rule
from tidegate.registry.register import Candidate, register
from tidegate.store.blobs import digest_path
from tidegate.store.local import LocalStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("TIDEGATE_STORE", str(tmp_path / "store"))
    return LocalStore(tmp_path / "store")


def registered(folder: Path, number: int, *, profiled: bool = False) -> None:
    model, data, evaluation = folder / f"model-{number}", folder / "data", folder / "evaluation.json"
    for path in (model, data):
        path.mkdir(exist_ok=True)
        (path / "part").write_text(f"model {number}")
    said = {"schema": "tidegate/evaluation/1", "model": None, "procedure": {"kind": "holdout"}, "comparison": None}
    rest = {"data": {"digest": digest_path(data).digest, "rows": 10}, "metrics": {"accuracy": 0.9}}
    described = {"profile": json.loads(Profile(3, Bins((0.25, 0.5), (1, 1, 1))).json())} if profiled else {}
    evaluation.write_text(json.dumps({**said, **rest, **described}))
    policy = Policy("m", (Rule("accuracy", "above", 0.5),), None, "fail", "champion")
    register(Candidate("m", model, evaluation, data, {}, policy.json()))


def test_without_a_champion_there_is_an_empty_folder_and_version_0(store: LocalStore, tmp_path: Path) -> None:
    result = run_component(champion, tmp_path / "out", name="m")
    assert result.outputs == {"Output": 0}
    assert list(result.artifacts["champion"].path.iterdir()) == []
    assert result.artifacts["champion"].metadata == {"version": 0, "digest": ""}


def test_the_champion_is_what_the_alias_names_byte_for_byte(store: LocalStore, tmp_path: Path) -> None:
    for number in (1, 2):
        registered(tmp_path, number)
    Registry(store).promote("m", 1, "champion", actor="me")
    result = run_component(champion, tmp_path / "out", name="m")
    found = result.artifacts["champion"]
    assert result.outputs == {"Output": 1}
    assert found.metadata == {"version": 1, "digest": digest_path(found.path).digest}
    assert (found.path / "part").read_text() == "model 1"


def test_the_edges_by_which_its_predictions_are_counted_come_with_it(store: LocalStore, tmp_path: Path) -> None:
    registered(tmp_path, 1, profiled=True)
    found = run_component(champion, tmp_path / "out", name="m").artifacts["champion"]
    assert found.metadata["edges"] == [0.25, 0.5]


def test_a_champion_whose_bytes_were_swapped_is_not_returned(store: LocalStore, tmp_path: Path) -> None:
    registered(tmp_path, 1)
    for blob in (store.root / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes() == b"model 1":
            blob.chmod(0o644)
            blob.write_bytes(b"model X")
    with pytest.raises(Damaged):
        run_component(champion, tmp_path / "out", name="m")
    assert not (tmp_path / "out" / "champion" / "champion").exists()
