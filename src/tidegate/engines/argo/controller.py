"""Argo's workflow controllers in a cluster: which serve a namespace, and how old they are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.engines.argo.cluster import DEPLOYMENT, Cluster, Object

OLDEST = (4, 0, 7)  # 4.0.3 to 4.0.6 hang when an output of a skipped task is read
_NAME = "workflow-controller"
_TAG = re.compile(r":v?(\d+)\.(\d+)\.(\d+)[^/]*$")


@dataclass(frozen=True)
class Controller:
    """A workflow controller, as its Deployment says."""

    name: str
    home: str
    images: tuple[str, ...]
    args: tuple[str, ...]
    env: Mapping[str, str]

    @property
    def place(self) -> str:
        """The Deployment, as kubectl wants it."""
        return f"-n {self.home} deployment/{self.name}"

    @property
    def version(self) -> tuple[int, ...]:
        """By the tag of its image, else of its executor's; () where neither says."""
        tags = (_TAG.search(image.partition("@")[0]) for image in self.images)
        return next((tuple(int(n) for n in tag.groups()) for tag in tags if tag), ())

    def serves(self, namespace: str) -> bool:
        """Whether it runs the Workflows of a namespace."""
        words = [w for a in self.args for w in a.split("=", 1)]
        managed = next((b for a, b in itertools.pairwise(words) if a == "--managed-namespace"), self.home)
        return "--namespaced" not in words or managed == namespace


def find_controllers(cluster: Cluster) -> Iterator[Controller]:
    """Yield every controller that runs as a Deployment, whatever it is called."""
    for deployment in cluster.list(DEPLOYMENT):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            if found := _read(deployment, container):
                yield found


def _read(deployment: Object, container: Mapping[str, Any]) -> Controller | None:
    args = (*container.get("command", ()), *container.get("args", ()))
    executors = re.findall(r"--executor-image[ =](\S+)", " ".join(args))
    image = container.get("image", "")
    if not executors and image.partition("@")[0].rpartition("/")[2].partition(":")[0] != _NAME:
        return None
    env = {e["name"]: e.get("value", "") for e in container.get("env", ())}
    meta = deployment["metadata"]
    return Controller(meta["name"], meta["namespace"], (image, *executors), args, env)
