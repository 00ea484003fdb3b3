"""The full size; tests/pipelines runs the size of the demo."""

import tomllib
from pathlib import Path

import pytest

from tidegate.api import Options, run
from tidegate.registry.model import Registry

PIPELINE = Path(__file__).with_name("pipeline.py")


@pytest.mark.long
@pytest.mark.parametrize(("seed", "drift"), [(1, 0.0), (2, 1.0)])
def test_two_hundred_thousand_rows_meet_every_bound_of_the_policy(tmp_path: Path, seed: int, drift: float) -> None:
    done = run(str(PIPELINE), {"seed": seed, "drift": drift}, Options(store=str(tmp_path), mirror=False))
    assert done.outputs["registered"] is True
    findings = Registry(done.store).version("fraud")[1].verdict["findings"]
    rules = tomllib.loads(PIPELINE.with_name("policy.toml").read_text())["require"]
    assert [f["text"].split()[0] for f in findings[:-1]] == [r["metric"] for r in rules]
    assert findings[-1]["text"].startswith("there is no champion yet")
    assert {f["outcome"] for f in findings} == {"pass"}
