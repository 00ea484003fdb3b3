"""Versions that are made for a benchmark: the champion again, or the champion with more to do."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import onnx

from components.plant_fault.graph import plant
from tidegate.registry.model import Entry, Registry
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs

COLUMN = "amount"


def again(store: Store, name: str, work: int = 0) -> int:
    """Register the champion's graph under another digest, with so many products of matrices before it.

    Returns:
        The version.
    """
    registry, blobs = Registry(store), Blobs(store)
    champion = registry.version(name, "champion")[1]
    number = len(registry.state(name).versions) + 1
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "champion"), Path(folder, "made")
        blobs.fetch(champion.digest, source, kind=champion.kind)
        if work:
            plant(source, made, COLUMN, "slow", 0.0, work)
        else:
            shutil.copytree(source, made)
        graph = onnx.load(made / "model.onnx")
        graph.doc_string = f"version {number}, made for a benchmark"
        onnx.save(graph, made / "model.onnx")
        content = blobs.add(made)
    body = {k: v for k, v in asdict(champion).items() if k not in ("model", "actor", "run", "created")}
    said = {"version": number, "digest": content.digest, "kind": content.kind, "size": content.size}
    verdict = {**champion.verdict, "model": content.digest}
    registry.transact(name, lambda _: Entry("version", {**body, **said, "verdict": verdict}), actor="benchmark")
    return number
