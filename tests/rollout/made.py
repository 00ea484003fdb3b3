"""A registry with small real models, a front before them, and steady traffic: what rollouts are tried on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.rollout.front import client
from tests.servers import free_port, wait_until
from tidegate.data.profile import Bins, Profile
from tidegate.registry.model import Entry, Registry
from tidegate.registry.policy import Policy, Rule
from tidegate.registry.rollout_policy import RolloutPolicy
from tidegate.rollout.front.fleet import read_running
from tidegate.rollout.front.process import is_alive, tell
from tidegate.rollout.router import STABLE
from tidegate.store.blobs import Blobs
from tidegate.store.local import LocalStore

NAME = "fraud"
# margins so wide that some hundred requests decide
RULES = RolloutPolicy(
    (5000,), max_error_increase=0.2, latency_tolerance=10.0, min_requests=50, min_time=0.5,
    deadline=60.0, ready_within=60.0, rollback_window=0.5,
)  # fmt: skip
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]}).encode()
HEADERS = "content-type: application/json\r\n"


def model(folder: Path, weight: float = 0.1, fails_above: float = 1e9, feature: str = "x") -> Path:
    """A model of one number, ``feature``: the logistic function of ``weight`` times it; scoring fails above some value."""
    import onnx
    from onnx import TensorProto, helper

    folder.mkdir(parents=True)
    const = [
        helper.make_tensor("w", TensorProto.FLOAT, [1], [weight]),
        helper.make_tensor("limit", TensorProto.FLOAT, [1], [fails_above]),
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
        helper.make_tensor("half", TensorProto.FLOAT, [1], [0.5]),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("column", TensorProto.INT64, [2], [-1, 1]),
        helper.make_tensor("flat", TensorProto.INT64, [1], [-1]),
    ]
    node = helper.make_node
    nodes = [
        node("Greater", [feature, "limit"], ["above"]),
        node("Cast", ["above"], ["at"], to=TensorProto.INT64),
        node("Gather", ["zero", "at"], ["nothing"]),  # there is only index 0
        node("Mul", [feature, "w"], ["scaled"]),
        node("Add", ["scaled", "nothing"], ["sum"]),
        node("Sigmoid", ["sum"], ["second"]),
        node("Sub", ["one", "second"], ["first"]),
        node("Greater", ["second", "half"], ["is_second"]),
        node("Cast", ["is_second"], ["label_"], to=TensorProto.INT64),
        node("Reshape", ["label_", "flat"], ["label"]),
        node("Reshape", ["first", "column"], ["left"]),
        node("Reshape", ["second", "column"], ["right"]),
        node("Concat", ["left", "right"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "m", [helper.make_tensor_value_info(feature, TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
         helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])], const,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, str(folder / "model.onnx"))
    said = {
        "schema": "tidegate/model/1", "task": "classification", "classes": [0, 1],
        "inputs": [{"name": feature, "datatype": "FP32", "shape": [-1]}],
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]},
                    {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
    }  # fmt: skip
    (folder / "signature.json").write_text(json.dumps(said))
    return folder


@dataclass
class Place:
    """A store with versions, a state folder, an environment."""

    root: Path
    rules: RolloutPolicy = RULES
    processes: list[subprocess.Popen[Any]] = field(default_factory=list)
    more: Mapping[str, str] = field(default_factory=dict)  # of the environment

    def __post_init__(self) -> None:
        self.store = LocalStore(self.root / "store")
        self.registry = Registry(self.store)
        self.port = free_port()

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "XDG_STATE_HOME": str(self.root / "s"),
            "TIDEGATE_STORE": self.store.uri,
            "TIDEGATE_USER": "ann",
            **self.more,
        }

    @property
    def folder(self) -> Path:
        return self.root / "s" / "tidegate" / "front" / NAME

    def register(self, alias: str, weight: float = 0.1, fails_above: float = 1e9, feature: str = "x") -> int:
        """Add a version, as a pipeline whose gate passed would have."""
        number = len(self.registry.state(NAME).versions) + 1
        blobs = Blobs(self.store)
        content = blobs.add(model(self.root / f"model-{number}", weight + number / 1e6, fails_above, feature))
        profile = Profile(10, Bins((0.4, 0.5, 0.6), (0, 0, 10, 0)))
        champion = self.registry.state(NAME).champion()
        policy = Policy(NAME, (Rule("accuracy", "above", 0.5),), rollout=self.rules)
        said: dict[str, Any] = {"policy": json.loads(policy.json())}
        if champion:
            table = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1000, 0], [0, 0, 0, 0]]
            moved = {"edges": [0.4, 0.5, 0.6], "moved": [0, 0, 1000, 0], "table": table}
            said["predictions"] = {"champion": champion.digest, **moved}
        body = {
            "version": number, "digest": content.digest, "kind": content.kind, "size": content.size, "alias": alias,
            "evidence": _digest(blobs, said),
            "verdict": {"outcome": "pass", "model": content.digest},
            "lineage": {"profile": _digest(blobs, json.loads(profile.json()))},
        }  # fmt: skip
        self.registry.transact(NAME, lambda _: Entry("version", body), actor="test")
        return number

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``tidegate``."""
        command = [sys.executable, "-m", "tidegate", *arguments]
        made = subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(made)
        return made

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run ``tidegate`` to its end."""
        made = self.start(*arguments)
        out, err = made.communicate(timeout=120)
        return made.returncode, out, err

    def front(self, *options: str) -> None:
        """Start the front, and wait until it answers."""
        command = [sys.executable, "-m", "tidegate", "front", NAME, "--port", str(self.port), *options]
        with (self.root / "front.log").open("wb") as log:
            self.processes.append(subprocess.Popen(command, env=self.env, stdout=log, stderr=log))
        wait_until(lambda: bool(read_running(self.folder).ready(STABLE)))

    def stop(self) -> None:
        """End everything that was started, by its number."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(40)
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()
        running = read_running(self.folder)
        left = [*running.servers, *running.leaving]
        for one in [*(s.process for s in left), *([running.proxy] if running.proxy else [])]:
            if is_alive(one):
                tell(one, signal.SIGKILL)


def _digest(blobs: Blobs, body: Mapping[str, Any]) -> str:
    return str(blobs.add_bytes(json.dumps(body).encode()))


@contextmanager
def placed(rules: RolloutPolicy = RULES) -> Iterator[Place]:
    """A place in a folder with a short name: sockets need one."""
    place = Place(Path(tempfile.mkdtemp(prefix="tg-")), rules)
    try:
        yield place
    finally:
        place.stop()
        shutil.rmtree(place.root, ignore_errors=True)


@contextmanager
def traffic(port: int, body: bytes = BODY) -> Iterator[client.Answers]:
    """Ask a few hundred times a second; the answers are whole once it is left."""
    ended, found = threading.Event(), client.Answers()

    def ask() -> None:
        got = client.ask(
            port,
            10**9,
            body=body,
            path=f"/v2/models/{NAME}/infer",
            headers=HEADERS,
            connections=4,
            until=ended.is_set,
            pause=0.008,
        )
        found.seen.update(got.seen)
        found.slowest = max(found.slowest, got.slowest)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
