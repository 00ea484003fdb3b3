import json
from pathlib import Path

import pytest

from components.register.component import register
from tidegate.author.testing import Artifact, Result, run_component
from tidegate.errors import GateRefused, ParameterError
from tidegate.registry.model import Registry
from tidegate.registry.policy import Policy, Rule
from tidegate.store.blobs import digest_path
from tidegate.store.local import LocalStore
from tidegate.store.runs import RunRecord, Runs


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    Runs(store).create(RunRecord("run-1", "p", "sha256:plan", {"seed": 3}, commit="c" * 40, user="ada"))
    monkeypatch.setenv("TIDEGATE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TIDEGATE_RUN_ID", "run-1")
    return store


def ask(folder: Path, accuracy: float, on_refuse: str = "fail", tighten: float | None = None) -> Result:
    for name in ("model", "data"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "part").write_text(name)
    evaluation = {
        "schema": "tidegate/evaluation/1",
        "model": {"digest": digest_path(folder / "model").digest},
        "procedure": {"kind": "holdout"},
        "data": {"digest": digest_path(folder / "data").digest, "rows": 10},
        "metrics": {"accuracy": accuracy},
        "comparison": None,
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    policy = Policy("m", (Rule("accuracy", "above", 0.95, "min_accuracy"),), None, on_refuse, "champion")
    data = Artifact(folder / "data", {"pin": "dvc+repo@v1:reviews", "source": "dvc", "revision": "v1"})
    return run_component(
        register,
        folder / "out",
        model=folder / "model",
        evaluation=folder / "evaluation.json",
        data=data,
        name="m",
        policy=policy.json(),
        tighten=tighten,
    )


def test_a_model_that_passes_is_registered_with_its_lineage(store: LocalStore, tmp_path: Path) -> None:
    said = ask(tmp_path, 0.97)
    _, version = Registry(store).version("m", "champion")
    digest = digest_path(tmp_path / "model").digest
    assert said.outputs == {
        "registered": True,
        "version": 1,
        "digest": digest,
        "reason": "accuracy 0.97 is above 0.95; m@champion is version 1 now",
    }
    assert (version.digest, version.run, version.actor) == (digest, "run-1", "ada")
    lineage = version.lineage
    assert (lineage["commit"], lineage["pin"], lineage["revision"]) == ("c" * 40, "dvc+repo@v1:reviews", "v1")
    assert lineage["data_digest"] == digest_path(tmp_path / "data").digest


def test_a_step_that_is_tried_again_registers_nothing_twice(store: LocalStore, tmp_path: Path) -> None:
    assert [ask(tmp_path, 0.97).outputs["version"] for _ in range(3)] == [1, 1, 1]
    assert len(Registry(store).verify("m").versions) == 1


def test_a_model_that_does_not_pass_fails_the_step_or_is_kept_out(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match=r"accuracy 0\.9 is not above 0\.95"):
        ask(tmp_path, 0.9)
    kept = ask(tmp_path, 0.9, "keep").outputs
    assert (kept["registered"], kept["version"], kept["reason"]) == (False, 0, "accuracy 0.9 is not above 0.95")
    assert Registry(store).models() == []


def test_a_run_can_tighten_the_gate_and_never_loosen_it(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match=r"not above 0\.99"):
        ask(tmp_path, 0.97, tighten=0.99)
    with pytest.raises(ParameterError, match="looser"):
        ask(tmp_path, 0.97, tighten=0.1)
    assert Registry(store).models() == []
