"""Kedro: ``python kedro_chain.py chain|fan|cached N X``. One process; threads for the fan, files for the cached chain."""

import sys
import time
from pathlib import Path

from kedro.io import AbstractDataset, DataCatalog, MemoryDataset
from kedro.pipeline import node, pipeline
from kedro.runner import SequentialRunner, ThreadRunner

WORKLOAD, N, X = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class Number(AbstractDataset):
    """A number in a file."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def load(self) -> int:
        return int(self.path.read_text())

    def save(self, data: int) -> None:
        self.path.write_text(str(data))

    def _exists(self) -> bool:
        return self.path.exists()

    def _describe(self) -> dict:
        return {"path": str(self.path)}


def add(a: int) -> int:
    return a + 1


def nap(a: int) -> int:
    time.sleep(0.5)
    return a


def chain() -> None:
    nodes = [node(add, f"v{i}", f"v{i + 1}", name=f"add-{i}") for i in range(N)]
    found = {f"v{i + 1}": Number(f"v{i + 1}") for i in range(N)} if WORKLOAD == "cached" else {}
    catalog = DataCatalog({"v0": MemoryDataset(X), **found})
    made = SequentialRunner().run(pipeline(nodes), catalog, only_missing_outputs=WORKLOAD == "cached")
    print(made[f"v{N}"].load() if made else found[f"v{N}"].load())


def fan() -> None:
    nodes = [node(nap, "x", f"v{i}", name=f"nap-{i}") for i in range(N)]
    ThreadRunner(max_workers=N).run(pipeline(nodes), DataCatalog({"x": MemoryDataset(X)}))


if __name__ == "__main__":
    fan() if WORKLOAD == "fan" else chain()
