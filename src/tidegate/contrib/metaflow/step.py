"""The step of a flow: run it by Metaflow, or go on with what an earlier try left, and take out what the component gives.

So a retry, or a run that is resumed, repeats no task that was finished; nothing but the same step's is ever taken over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidegate.author.closure import closure
from tidegate.contrib.metaflow import outputs
from tidegate.contrib.metaflow.client import Client, Earlier, connect
from tidegate.contrib.metaflow.flow import TYPES
from tidegate.contrib.metaflow.given import OURS, read
from tidegate.contrib.metaflow.interface import METRICS, VARIABLE, Interface, as_function
from tidegate.contrib.metaflow.run import environment, follow, words
from tidegate.errors import StepFailed
from tidegate.project import find_root


def load(function: str) -> Any:
    """Return the function of a flow's component: what ``tidegate.author.step`` asks for."""
    return as_function(Interface.of(function, os.environ[VARIABLE]), perform)


def perform(interface: Interface, arguments: Mapping[str, Any]) -> Any:
    """Run the flow with the arguments of its component; write its outputs, return its output parameters.

    Raises:
        StepFailed: the flow failed, or an artifact of it is missing or cannot be written.
        ConfigError: there is no Metaflow.
    """
    root = find_root(Path.cwd())
    path, _, name = interface.flow.partition(":")
    client, code = connect(root), closure(path, root).digest
    given = read(interface, arguments, code)
    with given.placed(client.folder / "inputs") as values:
        asked = [w for p in interface.parameters for w in words(p, values[p.input])]
        earlier = client.earlier(name, given.tags[-1]) if given.tags else None
        if earlier and earlier.successful:
            print(f"tidegate: an earlier try was run to its end by Metaflow: {name}/{earlier.id}", flush=True)
            run_id = earlier.id
        else:
            run_id = _run(client, root, path, name, _command(earlier, asked, given.tags))
        run = client.run(name, run_id)
        print(f"tidegate: {run.pathspec}; METAFLOW_DATASTORE_SYSROOT_LOCAL={client.folder} shows it", flush=True)
        return _taken(interface, arguments, run, code)


def _command(earlier: Earlier | None, asked: Sequence[str], tags: Sequence[str]) -> list[str]:
    tagged = [f"--tag={t}" for t in tags]
    if earlier:
        print(f"tidegate: Metaflow resumes run {earlier.id} of an earlier try; finished: {earlier.tasks}", flush=True)
        return ["resume", f"--origin-run-id={earlier.id}", *tagged]
    return ["run", *tagged, *asked]


def _run(client: Client, root: Path, path: str, name: str, command: list[str]) -> str:
    ended = follow(root / path, command, environment(root, client.folder))
    if ended.code:
        raise client.why(name, ended.run_id, ended.log)
    return ended.run_id


def _taken(interface: Interface, arguments: Mapping[str, Any], run: Any, code: str) -> Any:
    """Write artifacts and metrics with where they come from; return the output parameters in their order."""
    lineage = _lineage(interface, run, code)
    for name, kind in interface.artifacts.items():
        if kind not in TYPES:
            made = outputs.write(name, _artifact(run, name), kind, Path(arguments[name].path))
            arguments[name].metadata.update(lineage | made)
    if interface.metrics:
        numbers = {n: outputs.number(n, _artifact(run, n)) for n in interface.metrics}
        arguments[METRICS].metadata.update(lineage | numbers)
    values = {n: outputs.parameter(n, _artifact(run, n), t) for n, t in interface.values.items()}
    return tuple(values.values()) or None


def _lineage(interface: Interface, run: Any, code: str) -> dict[str, Any]:
    """Where an artifact comes from; ``source`` is what the registry says of a model's data."""
    version = next((t.partition(":")[2] for t in run.tags if t.startswith("metaflow_version:")), "")
    return {
        "source": f"metaflow:{run.pathspec}",
        "flow": interface.flow,
        "flow_code": code,
        "metaflow_run": run.pathspec,
        "metaflow_version": version,
        "metaflow_tags": sorted(t for t in run.tags if not t.startswith(OURS)),
    }


def _artifact(run: Any, name: str) -> Any:
    task = run.end_task
    if name not in task:
        raise StepFailed(
            f"the end step of {run.pathspec} has no artifact {name!r}",
            allowed=f"It has {', '.join(sorted(a.id for a in task))}.",
            hint=f"Set self.{name} before the end, and merge it where branches join.",
            code="flow-artifact",
        )
    return task[name].data
