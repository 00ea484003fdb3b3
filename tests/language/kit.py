"""What the language tests share: small kfp components, and a runner from a kfp pipeline to what it gave."""

import functools
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kfp import dsl
from kfp.compiler import Compiler

import tidegate
from tests.engines.argo.parity import by_value, check_traced, differences, undone
from tests.engines.argo.simulated import Simulation
from tidegate import api
from tidegate.prepared import Prepared, prepare
from tidegate.store.runs import Runs

SUCCEEDED, FAILED, SKIPPED = "SUCCEEDED", "FAILED", "SKIPPED"

component = functools.partial(dsl.component, base_image="python:3.11", install_kfp_package=False)


@component
def add(a: int, b: int) -> int:
    return a + b


@component
def say(text: str) -> str:
    return text


@component
def real(x: float) -> float:
    return x


@component
def flag(x: bool) -> bool:
    return x


@component
def fail(text: str = "no") -> str:
    raise ValueError(text)


@component
def upto(n: int) -> list:
    return list(range(n))


@component
def joined(words: list) -> str:
    return ",".join(str(w) for w in words)


@component
def write(text: str, out: dsl.Output[dsl.Dataset]):
    with open(out.path, "w") as f:
        f.write(text)


@component
def read(data: dsl.Input[dsl.Dataset]) -> str:
    with open(data.path) as f:
        return f.read()


@component
def read_all(data: dsl.Input[list[dsl.Dataset]]) -> list:
    # kfp's executor gives None for an empty list
    return [open(d.path).read() for d in data or []]


@component
def note(file: str, word: str):
    """Append a line to a file outside of the run, to see what ran and in which order."""
    with open(file, "a") as f:
        f.write(word + "\n")


@dataclass(frozen=True)
class Ran:
    """A run that ended, by value."""

    run: api.Run

    @property
    def state(self) -> str:
        return self.run.state

    @property
    def values(self) -> dict[str, Any]:
        """Output parameters."""
        return dict(self.run.outcome.parameters)

    @property
    def value(self) -> Any:
        """The only output parameter of a run that succeeded."""
        assert self.state == SUCCEEDED, self.run.outcome.error
        (value,) = self.values.values()
        return value

    @property
    def artifacts(self) -> dict[str, Any]:
        return dict(self.run.outcome.artifacts)

    @property
    def steps(self) -> dict[str, str]:
        """States by step name."""
        return {s.step: s.state for s in self.run.outcome.steps}

    def of(self, component: str) -> dict[str, str]:
        """States of the steps that call one component, in whatever dag they are."""
        return {n: s for n, s in self.steps.items() if re.sub(r"-\d+$", "", n.rpartition("/")[2]) == component}

    @property
    def error(self) -> dict[str, Any]:
        assert self.run.outcome.error
        return dict(self.run.outcome.error)

    def path(self, artifact: Any) -> Path:
        path = self.run.path(artifact)
        assert path
        return path

    def texts(self, output: str) -> list[str]:
        """The contents of an output artifact's files, in order."""
        assert self.state == SUCCEEDED, self.run.outcome.error
        return [self.path(a).read_text() for a in self.artifacts[output]]

    def text(self, output: str = "Output") -> str:
        (text,) = self.texts(output)
        return text

    def log(self, step: str) -> str:
        return Runs(self.run.store).read_log(self.run.id, step).decode()


@dataclass(frozen=True)
class Runner:
    """Compiles with kfp to YAML in a folder of its own, and runs that file there.

    Args:
        folder: where the test's files are.
        beside: another folder, for what is no business of the test.
        simulation: a cluster to run on, and to compare with what happens here; None to run here.
        own_values: two runs differ in what they give, whatever ran them.
    """

    folder: Path
    beside: Path
    simulation: Simulation | None = None
    own_values: bool = False

    def compile(self, pipeline: Any) -> Path:
        """Compile what kfp made; text is IR already."""
        file = self.folder / "compiled.yaml"
        if isinstance(pipeline, str):
            file.write_text(pipeline)
        else:
            Compiler().compile(pipeline, str(file))
        return file

    def __call__(
        self,
        pipeline: Any,
        /,
        artifacts: dict[str, Path] | None = None,
        jobs: int = 2,
        cache: bool = False,
        **parameters: Any,
    ) -> Ran:
        options = api.Options(str(self.folder / "store"), jobs, cache, artifacts or {}, mirror=False)
        prepared = prepare(str(self.compile(pipeline)))
        if self.simulation:
            return Ran(self._simulated(self.simulation, prepared, parameters, options))
        run = tidegate.run(prepared, parameters, options)
        check_traced(prepared.plan, run)
        return Ran(run)

    def _simulated(
        self, simulation: Simulation, prepared: Prepared, parameters: dict[str, Any], options: api.Options
    ) -> api.Run:
        """Run here first, for comparison."""
        with undone(self.folder, self.beside):
            wanted = by_value(tidegate.run(prepared, parameters, options))
        with simulation.on():
            run = tidegate.run(prepared, parameters, options)
        different = [*differences(by_value(run), wanted)]
        assert self.own_values or not different, "\n".join(different)
        return run

    def cli(self, pipeline: Any, *arguments: str) -> "Said":
        """Run through the command line."""
        file = self.compile(pipeline)
        command = [sys.executable, "-m", "tidegate", "run", str(file), "--no-mirror", "--json", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False)
        return Said(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Said:
    """What the command line said."""

    code: int
    out: str
    err: str

    @property
    def body(self) -> dict[str, Any]:
        """The one line of JSON on stdout."""
        (line,) = self.out.splitlines()
        body: dict[str, Any] = json.loads(line, parse_constant=lambda c: f"not JSON: {c}")
        return body


def outputs(**types: Any) -> Any:
    """The type of a pipeline with several outputs."""
    return NamedTuple("Outputs", list(types.items()))
