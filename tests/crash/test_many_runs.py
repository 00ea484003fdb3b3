"""Many processes run pipelines on one store at once: nothing is lost, nothing is mixed up."""

import json
import subprocess
import sys
from pathlib import Path

from kfp import compiler, dsl

from conftest import LONG
from tidegate.store.blobs import Blobs
from tidegate.store.local import LocalStore
from tidegate.store.runs import Runs

PROCESSES, RUNS = (8, 50) if LONG else (4, 3)

RUNNER = """
import json, sys, tidegate
from tidegate import Options
me, runs = int(sys.argv[1]), int(sys.argv[2])
for n in range(runs):
    x = n % 3 if n % 2 else 1000 * me + n
    run = tidegate.run("shared.yaml", {"x": x}, Options(store=sys.argv[3], jobs=1, mirror=False, cache=n % 4 != 3))
    print(json.dumps([run.id, run.state, x, run.outputs["Output"]]), flush=True)
"""


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def write(x: int, data: dsl.Output[dsl.Dataset]):
    with open(data.path, "w") as f:
        f.write(str(x))


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def double(data: dsl.Input[dsl.Dataset]) -> int:
    return 2 * int(open(data.path).read())


@dsl.pipeline(name="shared")
def shared(x: int) -> int:
    return double(data=write(x=x).outputs["data"]).output


def test_many_processes_on_one_store_lose_nothing_and_mix_nothing_up(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    compiler.Compiler().compile(shared, str(tmp_path / "shared.yaml"))
    store = LocalStore(tmp_path / "store")
    command = [sys.executable, "-c", RUNNER]
    processes = [
        subprocess.Popen(
            [*command, str(i), str(RUNS), str(tmp_path / "store")], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        for i in range(PROCESSES)
    ]
    ended = [json.loads(line) for p in processes for line in p.communicate()[0].splitlines()]
    assert [p.returncode for p in processes] == [0] * PROCESSES
    assert len({run_id for run_id, *_ in ended}) == PROCESSES * RUNS
    for run_id, state, x, output in ended:
        assert (state, output) == ("SUCCEEDED", 2 * x)
        outcome, steps = Runs(store).outcome(run_id), Runs(store).steps(run_id)
        assert outcome
        assert outcome.outputs["parameters"] == {"Output": 2 * x}
        assert sorted(s.path for s in steps) == ["double", "write"]
        for artifact in (a for s in steps for found in s.outputs["artifacts"].values() for a in found):
            assert Blobs(store).read_bytes(artifact["digest"]) == str(x).encode()
