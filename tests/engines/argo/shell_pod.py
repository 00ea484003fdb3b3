"""Runs the containers of a pod template as processes here: for small documents that the tests of claims share with a
real cluster. What a container calls /tmp, and each volume, is a folder of its own.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.engines.argo.node import Document, Node, PodResult


class ShellPods:
    """Stands for the pods of one workflow."""

    def __init__(self, folder: Path, workflow: Document) -> None:
        self.folder, self.spec, self.number = folder, workflow["spec"], 0

    def __call__(self, template: str, body: Document, inputs: dict[str, str], node: Node) -> PodResult:
        self.number += 1
        folder = self.folder / str(self.number)
        self.paths: dict[str, Path] = {"/tmp": folder / "tmp"} | {
            m["mountPath"]: folder / m["name"] for m in mounts(body)
        }
        for path in self.paths.values():
            path.mkdir(parents=True, exist_ok=True)
        self.write_downward(body, folder)
        self.put_artifacts(body)
        good = self.run_containers(body)
        names = [(p["name"], p["valueFrom"]["path"]) for p in body.get("outputs", {}).get("parameters", ())]
        outputs = {n: self.here(p).read_text() for n, p in names if self.here(p).exists()}
        return PodResult("Succeeded" if good else "Failed", outputs, self.take_artifacts(body))

    def here(self, path: str) -> Path:
        mount = max((m for m in self.paths if path.startswith(m)), key=len)
        return self.paths[mount] / path.removeprefix(mount).lstrip("/")

    def run_containers(self, body: Document) -> bool:
        for container in body.get("initContainers", ()):
            if self.start(container).wait(20):
                return False
        beside = [self.start(c) for c in body.get("sidecars", ())]
        good = self.start(body["container"]).wait(20) == 0
        for process in beside:
            process.terminate()
        return all(process.wait(20) in (0, -15) for process in beside) and good

    def start(self, container: Document) -> "subprocess.Popen[bytes]":
        words = [self.moved(w) for w in (*container["command"], *container.get("args", ()))]
        words[0] = sys.executable if words[0] == "python3" else words[0]
        env = {"PATH": os.environ["PATH"]} | {e["name"]: str(e["value"]) for e in container.get("env", ())}
        return subprocess.Popen(words, env=env, cwd=self.paths["/tmp"])

    def moved(self, word: str) -> str:
        for mount, path in self.paths.items():
            word = re.sub(rf"(?<![\w/]){mount}(?![\w])", str(path), word)
        return word

    def write_downward(self, body: Document, folder: Path) -> None:
        annotations = {
            **self.spec.get("podMetadata", {}).get("annotations", {}),
            **body.get("metadata", {}).get("annotations", {}),
        }
        for volume in (*self.spec.get("volumes", ()), *body.get("volumes", ())):
            for item in volume.get("downwardAPI", {}).get("items", ()):
                if found := re.fullmatch(r"metadata\.annotations\['(.*)'\]", item["fieldRef"]["fieldPath"]):
                    (folder / volume["name"]).mkdir(exist_ok=True)
                    (folder / volume["name"] / item["path"]).write_text(annotations[found[1]])

    def put_artifacts(self, body: Document) -> None:
        for artifact in body.get("inputs", {}).get("artifacts", ()):
            key = artifact.get("at") or artifact.get("s3", {}).get("key")
            if key:
                copied(self.folder / "bucket" / key, self.here(artifact["path"]))

    def take_artifacts(self, body: Document) -> dict[str, str]:
        artifacts = body.get("outputs", {}).get("artifacts", ())
        for artifact in artifacts:
            copied(self.here(artifact["path"]), self.folder / "bucket" / artifact["s3"]["key"])
        return {a["name"]: a["s3"]["key"] for a in artifacts}


def mounts(body: Document) -> Iterable[Any]:
    """The mounts of all containers."""
    for container in (body["container"], *body.get("initContainers", ()), *body.get("sidecars", ())):
        yield from container.get("volumeMounts", ())


def copied(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
