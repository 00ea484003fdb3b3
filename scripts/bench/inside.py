"""What is measured inside tidegate's own process. ``python inside.py plan|graph|fill …`` prints JSON.

* ``plan FILE``: seconds to read the YAML, to check it, to build the plan from it.
* ``graph FILE``: seconds the pure graph takes for a whole run, no step and no store behind it.
* ``fill STORE FROM TO``: write run records FROM to TO, of two steps each with cache entries and logs, without fsync.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidegate.engines.base import Arguments, check_arguments
from tidegate.engines.graph import Graph
from tidegate.engines.values import Values
from tidegate.ir.check import check
from tidegate.ir.load import read_spec
from tidegate.plan.build import build
from tidegate.plan.events import SUCCEEDED
from tidegate.store.cache import Cache
from tidegate.store.disk import RealDisk
from tidegate.store.local import LocalStore
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs, StepRecord


class Hurried(RealDisk):
    """A disk that is not waited for: the filled store is thrown away."""

    def fsync(self, fd: int) -> None:
        pass

    def fsync_folder(self, path: Path) -> None:
        pass


def plan(file: str) -> dict[str, float]:
    definition, read = _timed(lambda: read_spec(Path(file)))
    _, checked = _timed(lambda: check(definition.spec))
    _, built = _timed(lambda: build(definition.spec))
    return {"read": read, "check": checked, "build": built}


def graph(file: str) -> dict[str, float]:
    planned = build(read_spec(Path(file)).spec)
    made = Graph(planned, check_arguments(planned, Arguments({"x": 1})), {})
    steps, seconds = _timed(lambda: _run(made))
    return {"steps": steps, "seconds": seconds}


def _run(made: Graph) -> int:
    made.start()
    steps = 0
    while not made.done:
        ready, made.ready = made.ready, []
        for step in ready:
            made.finish(step, SUCCEEDED, Values({"Output": 1}))
        steps += len(ready)
    return steps


def fill(store: str, first: str, last: str) -> dict[str, float]:
    opened = LocalStore(Path(store), Hurried())
    _, seconds = _timed(lambda: [_fill(opened, i) for i in range(int(first), int(last))])
    return {"seconds": seconds}


def _fill(store: LocalStore, i: int) -> None:
    runs, run = Runs(store), f"20200101-{i:06d}-abcdef"
    runs.create(RunRecord(run, "chain-2", "sha256:" + "0" * 64, {"x": i}))
    for step in ("t0", "t1"):
        key = hashlib.sha256(f"{run}{step}".encode()).hexdigest()
        outputs = {"parameters": {"Output": i}, "artifacts": []}
        Cache(store).put(key, outputs, run=run, step=step)
        store.put(f"runs/{run}/logs/{step}.txt", b"a line\n")
        runs.step(run, StepRecord(step, SUCCEEDED, key=key, inputs={"parameters": {"a": i, "b": 1}}, outputs=outputs))
    runs.finish(run, OutcomeRecord(SUCCEEDED, {"parameters": {"Output": i}}))


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps({"plan": plan, "graph": graph, "fill": fill}[sys.argv[1]](*sys.argv[2:])))
