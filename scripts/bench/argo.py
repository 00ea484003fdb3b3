"""tidegate on Argo beside bare Argo Workflows of the same images, on a cluster, in one go.

Needs what ``tidegate run --engine argo`` needs: KUBECONFIG, TIDEGATE_STORE, images.lock, and docs/argo.md's namespace.
Bare workflows run in the same namespace, with the same accounts and limits, and without anything of ours inside. Their
command does nothing. So does the component beside it: it is of a project made for that, whose image is pushed to REGISTRY.

    argo.py --push REGISTRY [--base REF] [-n 3] [--only sizes|iris|one|wide] [--out docs/benchmarks-argo.md]
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tidegate.author.images import read_lock
from tidegate.engines.argo.cluster import DEPLOYMENT, POD, WORKFLOW, WORKFLOW_LABEL, Cluster
from tidegate.engines.argo.container import RESTRICTED
from tidegate.engines.argo.kube import open_cluster
from tidegate.engines.argo.packed import Packed
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.argo.start import argo_settings
from tidegate.engines.argo.workflow import workflow
from tidegate.ir.write import to_yaml
from tidegate.prepared import prepare
from tidegate.project import read_project

ROOT = Path(__file__).parents[2]
LENGTH = 10
ON_ARGO = ("--engine", "argo", "--no-mirror")
FOREIGN = """
from kfp import dsl

@dsl.container_component
def work():
    return dsl.ContainerSpec(image="{image}", command=["python", "-c", "pass"])
"""
OURS = """
from kfp import dsl
from components.nothing.component import nothing

def work():
    return nothing()
"""
NOTHING = '''"""Do nothing."""

import tidegate


@tidegate.component(image="train")
def nothing() -> int:
    """Return 0."""
    return 0
'''
PIPELINE = """
@dsl.pipeline(name="trivial")
def trivial():
    before = None
    for _ in range({count}):
        task = work()
        if {chained} and before:
            task.after(before)
        before = task
"""


Row = tuple[str, str, str]


@dataclass(frozen=True)
class Bench:
    """Where and how often is measured.

    Attributes:
        cluster: it.
        settings: names there.
        project: has the component that does nothing, and its image.
        n: how often.
    """

    cluster: Cluster
    settings: ArgoSettings
    project: Path
    n: int

    def kinds(self) -> list[tuple[str, str, str]]:
        """What runs beside bare pods: whose it is, its source, its image."""
        train = read_lock(self.project).image("train")
        return [("of ours", OURS, train), ("of somebody else", FOREIGN, self.settings.image)]


def main() -> int:
    """Measure and print; with ``--out`` also write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--push", metavar="REGISTRY", help="where the image of the component that does nothing goes")
    parser.add_argument("--base", metavar="REF", help="the image that it is built upon, over every setting")
    parser.add_argument("-n", type=int, default=3)
    parser.add_argument("--wide", type=int, default=50)
    parser.add_argument("--only", choices=("sizes", "iris", "one", "wide"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if not args.push and args.only not in ("sizes", "iris"):
        parser.error("--push REGISTRY: an image of the component that does nothing has to be somewhere")
    settings = argo_settings(read_project(ROOT))
    cluster = open_cluster(settings.context)
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Bench(cluster, settings, Path(folder), args.n), args)
    text = "\n".join(["| what | measured | goal |", "|---|---|---|", *(f"| {' | '.join(r)} |" for r in rows)])
    print(text)
    if args.out:
        args.out.write_text(
            f"{HEAD.format(load=os.getloadavg()[0], cores=os.cpu_count(), requeue=requeue(cluster))}\n{text}\n"
        )
    return 0


def measured(bench: Bench, args: argparse.Namespace) -> list[Row]:
    """What was asked for, row by row."""
    if args.only not in ("sizes", "iris"):
        make_project(bench.project, args.push, args.base)
    parts: dict[str, Callable[[], list[Row]]] = {
        "sizes": lambda: sizes(bench.settings),
        "iris": lambda: iris(bench.cluster, bench.settings),
        "one": lambda: one(bench),
        "wide": lambda: wide(bench, args.wide),
    }
    return [row for name, part in parts.items() if args.only in (None, name) for row in part()]


def make_project(folder: Path, registry: str, base: str | None) -> None:
    """Make a project of one component that does nothing, with the environments of this one, and push its image."""
    for name in ("pyproject.toml", "images"):
        bring = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        bring(ROOT / name, folder / name)
    (folder / "components/nothing").mkdir(parents=True)
    (folder / "components/nothing/component.py").write_text(NOTHING)
    tidegate("images", "build", "train", "--push", registry, *(["--base", base] if base else []), project=folder)


HEAD = """# Argo: tidegate beside bare workflows

Written by `scripts/bench/argo.py` on a single-node cluster ({cores} cores, load {load:.1f} at the end), controller with
DEFAULT_REQUEUE_TIME={requeue}.
"""


def requeue(cluster: Cluster) -> str:
    """How long the controller waits before it looks at a workflow again, as its Deployment says."""
    found = cluster.find(DEPLOYMENT, "workflow-controller", "argo") or {}
    containers = found.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
    said = {e["name"]: e.get("value") for c in containers for e in c.get("env", ())}
    return str(said.get("DEFAULT_REQUEUE_TIME", "10s, its default,")) if found else "something unknown"


def sizes(settings: ArgoSettings) -> list[Row]:
    """Compiled YAML against the IR it came from."""
    found = []
    for name in ("iris", "fraud", "sentiment"):
        prepared = prepare(str(ROOT / f"pipelines/{name}/pipeline.py"))
        body = workflow("x", Packed(prepared.definition.spec, prepared.definition.platforms or {}), settings)
        ratio = len(yaml.safe_dump(body, sort_keys=False, width=1 << 30)) / len(to_yaml(prepared.definition))
        found.append((f"YAML of {name} / its IR", f"{ratio:.2f}", "≤ 1.0"))
    return found


def tidegate(*words: str, project: Path = ROOT, **env: str) -> str:
    """Run the command line in a project; return what it says."""
    command = [sys.executable, "-m", "tidegate", *words]
    done = subprocess.run(command, cwd=project, env={**os.environ, **env}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def iris(cluster: Cluster, settings: ArgoSettings) -> list[Row]:
    """The iris pipeline: pods a task, fresh and from the cache."""
    rows = []
    for how, flags in (("fresh", ["--no-cache"]), ("cached", [])):
        started = time.monotonic()
        body = json.loads(tidegate("run", "pipelines/iris/pipeline.py", *ON_ARGO, "--json", *flags))
        seconds = time.monotonic() - started
        pods = cluster.list(POD, settings.namespace, {WORKFLOW_LABEL: body["run_id"]})
        tasks = [p for p in pods if "tidegate-end" not in p["metadata"]["name"]]
        cached = sum(s["cached"] for s in body["steps"])
        goal = "1.0 pods a task" if how == "fresh" else "–"
        text = f"{seconds:.1f} s, {len(tasks) / len(body['steps']):.1f} pods a task, {cached} of {len(body['steps'])} cached"
        rows.append((f"iris, {how}", text, goal))
    return rows


def bare(name: str, image: str, tasks: int, *, chained: bool) -> dict[str, Any]:
    """A Workflow of Argo alone, whose pods run an empty Python program."""
    container = {"image": image, "command": ["python", "-c", "pass"], "securityContext": RESTRICTED}
    items = [{"name": f"t-{i}", "template": "one"} for i in range(tasks)]
    if chained:
        items = [items[0], *(item | {"depends": f"t-{i}"} for i, item in enumerate(items[1:]))]
    spec = {
        "entrypoint": "main",
        "templates": [{"name": "main", "dag": {"tasks": items}}, {"name": "one", "container": container}],
    }
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name}, "spec": spec}


def submitted(cluster: Cluster, settings: ArgoSettings, body: Mapping[str, Any]) -> float:
    """Run a Workflow to its end; return its seconds without its exit handler."""
    made = copy.deepcopy(dict(body))
    made["metadata"]["namespace"] = settings.namespace
    made["spec"] |= common(settings)
    cluster.create(made)
    name = made["metadata"]["name"]
    while not (found := cluster.find(WORKFLOW, name, settings.namespace) or {}).get("status", {}).get("finishedAt"):
        time.sleep(0.5)
    assert found["status"]["phase"] == "Succeeded", found["status"].get("message")
    return seconds(found["status"]["nodes"][name])


def common(settings: ArgoSettings) -> dict[str, Any]:
    """What ours says of accounts and rights: without it a restricted namespace takes no pod."""
    prepared = prepare(str(ROOT / "pipelines/iris/pipeline.py"))
    spec = workflow("x", Packed(prepared.definition.spec, {}), settings)["spec"]
    names = ("serviceAccountName", "automountServiceAccountToken", "executor", "securityContext", "podSpecPatch")
    return {n: spec[n] for n in names}


def seconds(node: Mapping[str, Any]) -> float:
    """From the start to the end of a node; Argo counts whole seconds."""
    start, end = (datetime.fromisoformat(node[k]) for k in ("startedAt", "finishedAt"))
    return (end - start).total_seconds()


def one(bench: Bench) -> list[Row]:
    """A trivial task beside a bare one of the same image: chains, in turn, since Argo counts whole seconds."""
    rows = []
    for kind, work, image in bench.kinds():
        times: dict[str, list[float]] = {"bare": [], "here": []}
        for i in range(bench.n):
            body = bare(f"bare-{stamp()}-{i}", image, LENGTH, chained=True)
            times["bare"].append(submitted(bench.cluster, bench.settings, body) / LENGTH)
            times["here"].append(trivial(bench, work, LENGTH, chained=True) / LENGTH)
        plain, mine = statistics.median(times["bare"]), statistics.median(times["here"])
        text = f"{mine - plain:+.2f} s (bare {plain:.2f} s; {bench.n} chains of {LENGTH} each)"
        rows.append((f"a trivial task {kind} over a bare one", text, "≤ 0.5 s"))
    return rows


def wide(bench: Bench, count: int) -> list[Row]:
    """Many tasks at once, ours beside bare ones of the same image, in turn; the first round only brings the images."""
    rows = []
    for kind, work, image in bench.kinds():
        times: dict[str, list[float]] = {"bare": [], "here": []}
        for i in range(bench.n + 1):
            body = bare(f"bare-{stamp()}-wide-{i}", image, count, chained=False)
            times["bare"].append(submitted(bench.cluster, bench.settings, body))
            times["here"].append(trivial(bench, work, count, chained=False))
            print(f"{kind}, round {i}: bare {times['bare'][-1]:.0f} s, here {times['here'][-1]:.0f} s", file=sys.stderr)
        plain, mine = (statistics.median(t[1:]) for t in times.values())
        text = f"{mine:.0f} s, bare {plain:.0f} s: {mine / plain:.2f} (medians of {bench.n})"
        rows.append((f"{count} tasks at once {kind}", text, "≤ 1.2"))
    return rows


def trivial(bench: Bench, work: str, count: int, *, chained: bool) -> float:
    """Tasks through tidegate: inputs brought, outputs kept, a record written; return the workflow's seconds."""
    file = bench.project / "trivial.py"
    file.write_text((work + PIPELINE).format(image=bench.settings.image, count=count, chained=chained))
    env = {"TIDEGATE_ARGO_IMAGE": bench.settings.image}
    said = tidegate("run", str(file), *ON_ARGO, "--no-cache", project=bench.project, **env)
    name = said.split("run ")[-1].split()[0]
    found = bench.cluster.find(WORKFLOW, name, bench.settings.namespace) or {}
    return seconds(found["status"]["nodes"][name])


def stamp() -> str:
    """Something that no other workflow is called."""
    return f"{time.time_ns() % 10**10:x}"


if __name__ == "__main__":
    raise SystemExit(main())
