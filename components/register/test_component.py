"""Register: thin over tidegate.registry.register, with kfp's types on both sides."""

from pathlib import Path
from typing import Any

import pytest

from components.champion.component import champion
from components.register.component import register
from tests.registry.made import candidate
from tidegate.author.testing import Artifact, run_component
from tidegate.errors import GateRefused, ParameterError
from tidegate.store.blobs import digest_path


def ask(folder: Path, accuracy: float = 0.97, **inputs: Any) -> Any:
    c = candidate(folder, 0, accuracy, on_refuse=inputs.pop("on_refuse", "fail"))
    data = Artifact(c.data, {"pin": "dvc+x", "revision": "r"})
    given = {"model": c.model, "evaluation": c.evaluation, "data": data, "name": "m", "policy": c.policy}
    return run_component(register, folder / "out", **given, **inputs)


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_STORE", str(tmp_path / "store"))


def test_a_passing_model_is_a_version_and_the_champion(tmp_path: Path) -> None:
    outputs = ask(tmp_path).outputs
    assert (outputs["registered"], outputs["version"]) == (True, 1)
    present = run_component(champion, tmp_path / "champion", name="m")
    assert present.outputs == {"Output": 1}
    assert present.artifacts["champion"].metadata == {"version": 1, "digest": outputs["digest"]}
    assert digest_path(present.artifacts["champion"].path).digest == outputs["digest"]


def test_a_refused_model_fails_the_step_or_is_kept_out_as_the_policy_says(tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match=r"0.9 is not above 0.95"):
        ask(tmp_path / "a", 0.9)
    outputs = ask(tmp_path / "b", 0.9, on_refuse="keep").outputs
    assert (outputs["registered"], outputs["version"]) == (False, 0)
    assert "not above" in outputs["reason"]


def test_a_parameter_only_tightens(tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match=r"not above 0.99"):
        ask(tmp_path, tighten=0.99)
    with pytest.raises(ParameterError, match="looser"):
        ask(tmp_path, tighten=0.5)
