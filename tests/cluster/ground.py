"""What one run of these tests has: a copy of the working tree with its images, a namespace, a bucket, and tidegate."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.cluster.bucket import Bucket
from tests.cluster.ran import Ran
from tests.cluster.space import Space
from tidegate.store.open import open_store

SECONDS = 900
PLAIN = {n: v for n, v in os.environ.items() if not n.startswith(("TIDEGATE_", "AWS_", "MLFLOW_"))}


@dataclass(frozen=True)
class Ground:
    """Where everything is.

    Attributes:
        root: a copy of the working tree, with the images.lock of the images built from it.
        flows: a project with the compiled flows, and what secrets and images are on this machine.
        local: the store of local runs.
        images: images of the tests' own by name.
    """

    root: Path
    flows: Path
    local: Path
    space: Space
    bucket: Bucket
    images: Mapping[str, str]
    account: str = "tidegate-submit"

    def env(self, **more: str) -> dict[str, str]:
        """The environment of somebody who submits."""
        own = {
            "PYTHONPATH": str(self.root / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_CACHE_HOME": str(self.local.parent / "cache"),
            "XDG_STATE_HOME": str(self.local.parent / "state"),
            "KUBECONFIG": str(self.space.folder / f"{self.account}.kubeconfig"),
            "TIDEGATE_ARGO_NAMESPACE": self.space.name,
        }
        return {**PLAIN, **own, **self.bucket.values("steps"), **more}

    def file(self, flow: str) -> str:
        """A flow's definition: a file of the project, or a compiled one of ours by name."""
        return str(self.root / flow) if flow.endswith(".py") else str(self.flows / f"{flow}.yaml")

    def refused(self, flow: str) -> Path:
        """The file of a definition that is not among the flows since something is wrong with it."""
        folder = self.flows / "refused"
        folder.mkdir(exist_ok=True)
        return folder / f"{flow}.yaml"

    def start(self, *words: str, **env: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tidegate", *words]
        return subprocess.Popen(
            command, env=self.env(**env), cwd=self.flows, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def tidegate(self, *words: str, **env: str) -> Ran:
        """Run a command of tidegate to its end."""
        return self.ended(self.start(*words, **env))

    def ended(self, process: "subprocess.Popen[str]", store: str = "") -> Ran:
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
            err += "\nit took too long, and was stopped"
        return Ran(process.returncode, out, err, open_store(store) if store else self.bucket.store("steps"))

    def there(self, flow: str, *words: str, **env: str) -> Ran:
        """Run a flow on the cluster."""
        return self.ended(self.begin(flow, *words, **env))

    def begin(self, flow: str, *words: str, **env: str) -> "subprocess.Popen[str]":
        """Submit a flow to the cluster, and watch it."""
        return self.start("run", self.file(flow), "--engine", "argo", "--no-mirror", "--json", *words, **env)

    def here(self, flow: str, *words: str, **env: str) -> Ran:
        """Run a flow on this machine."""
        words = ("run", self.file(flow), "--store", str(self.local), "--no-mirror", "--json", *words)
        return self.ended(self.start(*words, **env), str(self.local))

    def of(self, account: str) -> "Ground":
        """The same for somebody else."""
        return replace(self, account=account)

    def workflow(self, pipeline: str, seconds: float = 120) -> str:
        """The newest Workflow of a pipeline, once it is there."""
        return self.appears("workflows", f"tidegate.dev/pipeline={pipeline}", seconds)

    def pod(self, workflow: str, step: str, phase: str = "Running", seconds: float = 300) -> str:
        """The pod of a step of a Workflow, once it is in a phase."""
        end = time.monotonic() + seconds
        said = "jsonpath={range .items[*]}{.metadata.name} {.status.phase}{'\\n'}{end}"
        while time.monotonic() < end:
            pods = self.space.kubectl("get", "pods", "-l", f"workflows.argoproj.io/workflow={workflow}", "-o", said)
            found = dict(line.split() for line in pods.splitlines() if len(line.split()) == 2)
            if names := [n for n, p in found.items() if n.startswith(f"{workflow}-{step}-") and p == phase]:
                return names[0]
            time.sleep(0.5)
        raise AssertionError(f"no pod of {step} in {workflow} was {phase}: {found}")

    def appears(self, kind: str, labels: str, seconds: float) -> str:
        end = time.monotonic() + seconds
        words = ("get", kind, "-l", labels, "--sort-by=.metadata.creationTimestamp", "-o", "name")
        while time.monotonic() < end:
            if names := self.space.kubectl(*words).split():
                return names[-1].partition("/")[2]
            time.sleep(0.5)
        raise AssertionError(f"no {kind} with {labels}")

    def left(self, workflow: str) -> list[str]:
        """Pods of a Workflow that have not ended."""
        labels = f"workflows.argoproj.io/workflow={workflow}"
        fields = "status.phase!=Succeeded,status.phase!=Failed"
        return self.space.kubectl("get", "pods", "-l", labels, "--field-selector", fields, "-o", "name").split()


def copied(source: Path, target: Path) -> None:
    """A copy of what git knows of a working tree, or does not ignore."""
    command = ["git", "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in names:
        if name and (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((source / name).read_bytes())
