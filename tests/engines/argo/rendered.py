"""The manifests as ``kubectl kustomize`` renders them, as far as ours go: a cluster test holds the two against each other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).parents[3] / "manifests" / "argo"
CLUSTER_WIDE = ("Namespace",)


def render(folder: Path = MANIFESTS, namespace: str = "pipelines") -> list[dict[str, Any]]:
    return [_placed(body, namespace) for body in _read(folder)]


def _read(folder: Path) -> Iterator[dict[str, Any]]:
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for name in said["resources"]:
        path = folder / name
        found = list(_read(path) if path.is_dir() else yaml.safe_load_all(path.read_text()))
        for body in found:
            for labels in said.get("labels", ()):
                body["metadata"]["labels"] = {**body["metadata"].get("labels", {}), **labels["pairs"]}
        yield from found


def _placed(body: dict[str, Any], namespace: str) -> dict[str, Any]:
    meta = body["metadata"]
    if body["kind"] in CLUSTER_WIDE:
        return {**body, "metadata": {**meta, "name": namespace}}
    subjects = {"subjects": [{**s, "namespace": namespace} for s in body["subjects"]]} if "subjects" in body else {}
    return {**body, **subjects, "metadata": {**meta, "namespace": namespace}}
