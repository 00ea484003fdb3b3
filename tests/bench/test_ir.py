"""The benchmarks' own definitions are legal and mean what they say; their command line starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bench import ir
from tidegate.ir.check import check
from tidegate.plan.build import build

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("shape", sorted(ir.SHAPES))
def test_every_shape_is_a_legal_pipeline_with_as_many_tasks_as_asked_for(shape: str) -> None:
    spec = ir.spec(shape, 25)
    check(spec)
    assert len(build(spec).root.body.tasks) == (1 if shape == "log" else 25)


@pytest.mark.parametrize(("shape", "n", "output"), [("chain", 5, 12), ("fan", 4, 11), ("layered", 11, 6945)])
def test_a_written_definition_runs_to_its_value(tmp_path: Path, shape: str, n: int, output: int) -> None:
    (tmp_path / "pyproject.toml").touch()
    written = ir.write(tmp_path / "ir.yaml", shape, n)
    command = [sys.executable, "-m", "tidegate", "run", str(written), "-p", "x=7", "--json", "--no-mirror"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["outputs"] == {"Output": output}
    assert not any(s["cached"] for s in said["steps"])


def test_the_benchmark_says_how_it_is_used() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "bench" / "engines.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--only" in done.stdout
