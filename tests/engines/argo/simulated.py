"""A cluster in this process: compiled Workflows go through the interpreter of Argo, each pod does what the launcher does.

Only what a container runtime would do is left out: a pod is a folder, kfp's lightweight components run in a forked
child of this process (importing kfp takes longer than most of them), other commands as processes here.
"""

import contextlib
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.engines.argo import controller
from tests.engines.argo.node import Document, Node, PodResult
from tidegate import api
from tidegate.author import step as author
from tidegate.engines.argo import beside, end, launcher
from tidegate.engines.argo.container import LAST, LAUNCHER
from tidegate.engines.argo.memory import MemoryCluster
from tidegate.engines.argo.outcome import Ended, outcome
from tidegate.engines.argo.packed import Packed
from tidegate.engines.argo.pod import read_pod
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.argo.site import Site
from tidegate.engines.argo.start import Submission, argo_engine
from tidegate.engines.argo.workflow import PLAN_ANNOTATION
from tidegate.engines.base import Arguments, check_arguments
from tidegate.engines.pod.context import run_context
from tidegate.plan.events import FAILED, SUCCEEDED, Outcome, Report
from tidegate.plan.model import Plan
from tidegate.prepared import Prepared, packed_definition
from tidegate.store.base import Store
from tidegate.store.memory import MemoryStore
from tidegate.store.runs import RunRecord, Runs, iso

SETTINGS = ArgoSettings(image="localhost:5000/tidegate")
STATES = {"Succeeded": SUCCEEDED, "Failed": FAILED, "Error": FAILED}


@dataclass
class SimulatedEngine:
    """An engine that compiles to Argo and runs what it compiled.

    Args:
        store: a store.
        packed: the definition.
        record: the run's first record.
        folder: where pods are.
        job: does what the shim does with the job in a pod's folder.
    """

    store: Store
    packed: Packed
    record: RunRecord
    folder: Path
    job: Callable[[Path], None] = lambda folder: perform_job(folder)
    ran: controller.Run | None = None
    pods: list[Path] = field(default_factory=list)

    def run(self, plan: Plan, arguments: Arguments, report: Report) -> Outcome:
        made = argo_engine(
            self.packed, plan, arguments, self.record, self.store, MemoryCluster(), SETTINGS, Submission()
        )
        self.body = copy.deepcopy(dict(made.workflow or {}))
        self.body["metadata"]["creationTimestamp"] = iso(time.time())
        with handlers_restored():
            self.ran = controller.run(self.body, self.pod)
        records = {r.path: r for r in Runs(self.store).steps(self.record.id)}
        ended = Ended(STATES.get(self.ran.phase, self.ran.phase), error={"code": "argo", "message": self.ran.message})
        found = outcome(plan, arguments, run_context(plan, self.record, self.store.uri), records, ended)
        for step in found.steps:
            report(step)
        return found

    def pod(self, template: str, body: Document, inputs: dict[str, str], node: Node) -> PodResult:
        folder = self.folder / f"pod-{len(self.pods)}"
        folder.mkdir(parents=True)
        self.pods.append(folder)
        (folder / "plan").write_text(self.body["spec"]["podMetadata"]["annotations"][PLAN_ANNOTATION])
        good = self.containers(body, folder)
        outputs = {p["name"]: folder / "out" / Path(p["valueFrom"]["path"]).name for p in named_outputs(body)}
        return PodResult(
            "Succeeded" if good else "Failed", {n: f.read_text() for n, f in outputs.items() if f.exists()}
        )

    def containers(self, body: Document, folder: Path) -> bool:
        if "sidecars" not in body:
            return self.launch(body["container"], folder) == 0
        site = self.site(body["sidecars"][0], folder)
        code, left = beside.prepare(site)
        if not left:
            return code == 0
        self.job(folder)
        beside.keep(site, left, [])
        return (folder / "done").read_text() == "0"

    def launch(self, container: Document, folder: Path) -> int:
        *_, program = container["command"]
        return {LAUNCHER: launcher.run, LAST: end.end}[program](self.site(container, folder))

    def site(self, container: Document, folder: Path) -> Site:
        env = {e["name"]: str(e["value"]) for e in container["env"] if "value" in e}
        pod = read_pod({**env, "TIDEGATE_FOLDER": str(folder), "TIDEGATE_PLAN": str(folder / "plan")})
        return Site(pod, self.store)


def named_outputs(body: Document) -> Sequence[Any]:
    found: Sequence[Any] = body.get("outputs", {}).get("parameters", ())
    return found


@contextlib.contextmanager
def handlers_restored() -> Iterator[None]:
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def strings(file: Path) -> list[str]:
    return [os.fsdecode(w) for w in file.read_bytes().split(b"\0")[:-1]] if file.exists() else []


def perform_job(folder: Path) -> None:
    """What the shim does with a job."""
    _, *words = strings(folder / "job")
    if not words:
        return
    env = dict(e.split("=", 1) for e in strings(folder / "env"))
    with (folder / "log").open("ab") as log:
        code = forked(words, env, folder, log.fileno()) if "--component_module_path" in " ".join(words) else None
        if code is None:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            full = {**os.environ, "PATH": path, **env}
            try:
                code = subprocess.run(words, env=full, stdout=log, stderr=log, stdin=subprocess.DEVNULL).returncode
            except OSError as e:
                log.write(f"cannot run {words[0]}: {e}\n".encode())
                code = 127
    (folder / "exit").write_text(str(code))


def forked(words: list[str], env: Mapping[str, str], folder: Path, log: int) -> int:
    """Run a lightweight component in a child."""
    flags = {w: words[i + 1] for i, w in enumerate(words[:-1]) if w in ("--executor_input", "--function_to_execute")}
    said = flags["--executor_input"]
    said = Path(said.removeprefix("@tidegate:")).read_text() if said.startswith("@tidegate:") else said
    source = folder / "ephemeral_component.py"
    source.write_text(words[words.index("--executor_input") - 1])
    if not (child := os.fork()):
        code = 1
        try:
            os.dup2(log, 1), os.dup2(log, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.environ.update(env)
            (folder / "input.json").write_text(json.dumps(json.loads(said)))
            file = f"@{folder / 'input.json'}"
            code = author.main(
                ["--executor_input", file, "--function_to_execute", flags["--function_to_execute"],
                 "--component_module_path", str(source)]
            )  # fmt: skip
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def calling(functions: Mapping[str, Callable[..., Any]]) -> Callable[[Path], None]:
    """A job whose words are the name of a function and the executor's input: the function is called here."""

    def perform(folder: Path) -> None:
        if len(words := strings(folder / "job")) == 1:
            return
        said = json.loads(words[2])
        try:
            made = functions[words[1]](**said["inputs"].get("parameterValues", {}))
        except ValueError:
            (folder / "exit").write_text("1")
            return
        output = Path(said["outputs"]["parameters"]["Output"]["outputFile"])
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(made if isinstance(made, str) else json.dumps(made))
        (folder / "exit").write_text("0")

    return perform


def run_calls(
    spec: dict[str, Any], inputs: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]], folder: Path
) -> tuple[Outcome, SimulatedEngine]:
    """Run a checked definition whose commands name functions."""
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["args"] = ["{{$}}"]
    store, packed = MemoryStore(), Packed(spec, {}, use_cache=False)
    plan = packed.plan
    arguments = check_arguments(plan, Arguments(inputs))
    record = RunRecord("run-1", plan.name, plan.digest, dict(arguments.parameters), "argo")
    Runs(store).create(record)
    engine = SimulatedEngine(store, packed, record, folder, calling(functions))
    try:
        return engine.run(plan, arguments, lambda _: None), engine
    finally:
        shutil.rmtree(folder)


@dataclass
class Simulation:
    """Lets ``tidegate.run`` use the simulated cluster; the engines that ran are in ``made``."""

    folder: Path
    made: list[SimulatedEngine] = field(default_factory=list)

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(api, "_engine", self.engine)
            patch.setattr(api, "_check_engine", lambda *_: None)
            yield

    def engine(
        self, prepared: Prepared, _a: Arguments, options: api.Options, store: Store, record: RunRecord, _f: Any
    ) -> SimulatedEngine:
        packed = packed_definition(prepared, record, use_cache=options.cache)
        self.made.append(SimulatedEngine(store, packed, record, self.folder / f"cluster-{len(self.made)}"))
        return self.made[-1]
