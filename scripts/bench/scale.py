"""How tidegate's cost grows: with the tasks of a pipeline, the lines of a log, the runs in a store."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ir
from measure import LONGEST, environ

HERE = Path(__file__).parent
TASKS, REAL, RUNS = (10, 100, 1_000, 10_000), (10, 100, 1_000), (10, 100, 1_000, 10_000)
LINES = (10, 100, 1_000, 10_000, 100_000)
Growth = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Inside:
    """A folder, and the interpreter that tidegate is installed for."""

    folder: Path
    python: str

    def ask(self, *arguments: object) -> dict[str, float]:
        """Run ``inside.py``."""
        done = self._run([str(HERE / "inside.py"), *map(str, arguments)])
        found: dict[str, float] = json.loads(done)
        return found

    def run(self, *arguments: object, ran: int) -> dict[str, float]:
        """Run the tidegate command: wall seconds, its own peak memory and CPU seconds, those of the steps."""
        probe = self.folder / "probe.json"
        start = time.perf_counter()
        said = self._run([str(HERE / "probe.py"), str(probe), "run", *map(str, arguments)])
        assert f": {ran} steps ran, " in said, f"not {ran} steps ran: {said[-200:]}"
        return {"wall": time.perf_counter() - start, **json.loads(probe.read_text())}

    def _run(self, arguments: Sequence[str]) -> str:
        env = environ({"XDG_CACHE_HOME": str(self.folder / "xdg")})
        done = subprocess.run(
            [self.python, *arguments], cwd=self.folder, env=env, capture_output=True, text=True, timeout=LONGEST,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-500:]
        return done.stdout


def place(folder: Path, python: str) -> Inside:
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text("[tool.tidegate]\nmlflow = false\n")
    return Inside(folder, python)


def tasks(inside: Inside) -> dict[int, dict[str, float]]:
    """The layered DAG at every size: reading, checking, building, the graph; real runs up to a thousand tasks."""
    inside.run(ir.write(inside.folder / "warm.yaml", "layered", 11), ran=11)
    return {n: _tasks(inside, n) for n in TASKS}


def _tasks(inside: Inside, n: int) -> dict[str, float]:
    file = ir.write(inside.folder / f"layered-{n}.yaml", "layered", n)
    found = {**inside.ask("plan", file), "graph": inside.ask("graph", file)["seconds"]}
    if n in REAL:
        given = (file, "-p", f"x={n}")
        found |= {f"run {k}": v for k, v in inside.run(*given, ran=n).items()}
        found |= {f"cached {k}": v for k, v in inside.run(*given, ran=0).items()}
    return found


def lines(inside: Inside) -> dict[int, float]:
    """Wall seconds of a run of one step by the lines that it prints."""
    return {n: _median(inside, ir.write(inside.folder / f"log-{n}.yaml", "log", n), "--no-cache", ran=1) for n in LINES}


def stores(inside: Inside) -> dict[int, dict[str, float]]:
    """Seconds of a fresh run and of a cached one of two steps, by the runs that the store holds already."""
    file, store = ir.write(inside.folder / "chain-2.yaml", "chain", 2), inside.folder / "filled"
    found, held = {}, 0
    for n in RUNS:
        inside.ask("fill", store, held, n)
        held = n
        fresh = _median(inside, file, "--store", store, "--no-cache", ran=2)
        found[n] = {"fresh": fresh, "cached": _median(inside, file, "--store", store, ran=0)}
    shutil.rmtree(store)
    return found


def _median(inside: Inside, *arguments: object, ran: int) -> float:
    return statistics.median([inside.run(*arguments, ran=ran)["wall"] for _ in range(6)][1:])


def growth(by_size: Mapping[int, Mapping[str, float]], names: Mapping[str, str]) -> Growth:
    """Measured keys as series of points, under the names that a plot shows."""
    return {shown: [(n, found[key]) for n, found in by_size.items() if key in found] for key, shown in names.items()}


def kfp_compile(inside: Inside, python: str, n: int) -> float:
    """Seconds of kfp's compiler for the same DAG, whole process."""
    start = time.perf_counter()
    command: list[Any] = [python, HERE / "peers" / "kfp_compile.py", "compile", n, 0]
    subprocess.run([str(c) for c in command], cwd=inside.folder, env=environ({}), capture_output=True, check=True)
    return time.perf_counter() - start
