"""What Metaflow's own client knows: where runs are kept, how earlier tries of a step ended, why a run failed.

Runs are kept where Metaflow's settings say. Without any they go into a folder of this machine, one a project, that
outlives the step; where none can be made (a pod with a read-only disk), into a temporary one that does not.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigError, StepFailed
from tidegate.project import state_folder

_FRAME = re.compile(r'^ *File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)\n(?: *(?P<code>.+)\n)?', re.M)


@dataclass(frozen=True)
class Earlier:
    """A run that an earlier try of this step left: it ended well, or so many finished tasks can be taken over."""

    id: str
    successful: bool
    tasks: int


@dataclass(frozen=True)
class Client:
    """Metaflow's client over the place where runs are kept.

    Attributes:
        metaflow: the module.
        folder: the parent of ``.metaflow``, with the local datastore and metadata.
    """

    metaflow: Any
    folder: Path

    def earlier(self, flow: str, tag: str) -> Earlier | None:
        """The newest run with a tag that got anything done, None where there is none or it cannot be read."""
        with contextlib.suppress(Exception):  # what a kill left half-written costs time, not the step
            for run in self.metaflow.Flow(flow).runs(tag):
                finished = [t.path_components[2] for t in _tasks(run) if t.successful]
                if "start" in finished:
                    return Earlier(run.id, bool(run.successful), len(finished))
        return None

    def run(self, flow: str, run_id: str) -> Any:
        """Metaflow's ``Run``."""
        return self.metaflow.Run(f"{flow}/{run_id}")

    def why(self, flow: str, run_id: str, log: Sequence[str]) -> StepFailed:
        """Say why a run failed: what a task of it raised, with the user's own frames; else the end of the log."""
        if not run_id:
            return self._before(flow, log)
        failed = sorted((t for t in _tasks(self.run(flow, run_id)) if not t.successful), key=lambda t: int(t.id))
        raised = next(((t, e) for t in failed if (e := t.exception)), None)
        if not raised:
            where = f" in step {failed[0].path_components[2]}" if failed else ""
            found = f"the flow {flow} failed{where}, and no exception is known; it may have been killed"
            return StepFailed(found, shown={"tail": _tail(log)}, code="flow-failed")
        task, error = raised
        found = f"{str(error.type).removeprefix('builtins.')}: {error.exception}"
        where = f"in step {task.path_components[2]} of the flow {flow}, task {task.pathspec}"
        return StepFailed(found, allowed=where, shown={"frames": self._frames(error.stacktrace)}, code="flow-failed")

    def _before(self, flow: str, log: Sequence[str]) -> StepFailed:
        """It did not come to a run: Metaflow refused the flow or its parameters, or the file raised."""
        tail = _tail(log)
        found = f"the flow {flow} did not start: {tail[-1].strip() if tail else 'it said nothing'}"
        frames = self._frames("\n".join(log))
        return StepFailed(found, shown={"frames": frames} if frames else {"tail": tail}, code="flow-refused")

    def _frames(self, text: str) -> list[dict[str, Any]]:
        inside = str(Path(self.metaflow.__file__).parent)
        found = [m.groupdict(default="") for m in _FRAME.finditer(text + "\n")]
        return [{**f, "line": int(f["line"])} for f in found if not f["file"].startswith((inside, "<frozen"))]


def _tasks(run: Any) -> Iterator[Any]:
    return (task for step in run for task in step)


def _tail(log: Sequence[str]) -> list[str]:
    return [line.rstrip() for line in log if line.strip()][-5:]


def connect(root: Path) -> Client:
    """Find Metaflow, and the place where it keeps runs.

    Raises:
        ConfigError: Metaflow is not installed where the step runs (code ``metaflow-missing``).
    """
    try:
        metaflow, settings = importlib.import_module("metaflow"), importlib.import_module("metaflow.metaflow_config")
    except ModuleNotFoundError as e:
        raise ConfigError(
            f"the step's environment cannot import Metaflow: {e}",
            allowed="An environment, or an image family, with Metaflow in it.",
            hint="pip install 'tidegate[metaflow]'",
            code="metaflow-missing",
        ) from e
    folder = _folder(settings.DATASTORE_SYSROOT_LOCAL, state_folder(root) / "metaflow", settings.DATASTORE_LOCAL_DIR)
    if settings.DEFAULT_METADATA == "local":
        metaflow.metadata(f"local@{folder}")
    metaflow.namespace(None)
    return Client(metaflow, folder)


def _folder(said: str | None, ours: Path, inner: str) -> Path:
    folder = Path(said or ours)
    try:
        (folder / inner).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        if said:
            raise ConfigError(f"METAFLOW_DATASTORE_SYSROOT_LOCAL: {e}", allowed="A folder that steps can write.") from e
        folder = Path(tempfile.mkdtemp(prefix="tidegate-metaflow-"))
        (folder / inner).mkdir()
    return folder
