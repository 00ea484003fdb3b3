"""One run of a flow as Metaflow's command line starts it, ``python flow.py run``: its words, its environment, its log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.author.command import LOADER
from tidegate.contrib.metaflow.flow import FILE, Parameter
from tidegate.contrib.metaflow.interface import VARIABLE
from tidegate.errors import StepFailed
from tidegate.project import user_name

LONGEST = 131072  # bytes of one argument, MAX_ARG_STRLEN of Linux
_LAST_LINES = 200
_OURS = ("_KFP_RUNTIME", LOADER, VARIABLE, "TIDEGATE_EXECUTOR_INPUT")


@dataclass(frozen=True)
class Ended:
    """How Metaflow's process ended: its exit code, the run's id if it came to one, the end of its log."""

    code: int
    run_id: str
    log: Sequence[str]


def words(parameter: Parameter, value: Any) -> list[str]:
    """A parameter on Metaflow's command line, an artifact by its path; one that is not given is the flow's to fill in.

    Raises:
        StepFailed: an included file is none, or the value is too long for a command line.
    """
    if value is None:
        return []
    word = f"--{parameter.name}={_text(parameter, value)}"
    if len(word.encode()) >= LONGEST:
        raise StepFailed(
            f"the parameter {parameter.name!r} of the flow has {len(word.encode())} bytes",
            allowed=f"Metaflow takes parameters on its command line: less than {LONGEST} bytes each.",
            hint="Take it by IncludeFile, which becomes an input artifact.",
            code="flow-parameter",
        )
    return [word]


def _text(parameter: Parameter, value: Any) -> str:
    if parameter.type == FILE and not Path(value).is_file():
        raise StepFailed(
            f"the input {parameter.input!r} is no file",
            allowed="IncludeFile takes one file, not a folder.",
            hint=f"Take its path: Parameter({parameter.name!r}) in the flow, an artifact's class in the pipeline.",
            code="flow-parameter",
        )
    return value if isinstance(value, str) else json.dumps(value)


def follow(file: Path, command: Sequence[str], env: Mapping[str, str]) -> Ended:
    """Run ``python FILE COMMAND`` beside the file to its end; what it writes is passed on."""
    with tempfile.TemporaryDirectory(prefix="tidegate-flow-") as folder:
        said = Path(folder, "run-id")
        process = subprocess.Popen(
            [sys.executable, "-u", str(file), *command, f"--run-id-file={said}"],
            cwd=file.parent,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        last: deque[str] = deque(maxlen=_LAST_LINES)
        with process:
            assert process.stdout
            for line in process.stdout:
                print(line, end="", flush=True)
                last.append(line.rstrip("\n"))
        return Ended(process.returncode, said.read_text() if said.exists() else "", last)


def environment(root: Path, folder: Path) -> dict[str, str]:
    """Metaflow's environment: the project's modules can be imported, as in components, and runs are kept in ``folder``."""
    env = {n: v for n, v in os.environ.items() if n not in _OURS}
    paths = [str(root), str(root / "src"), env.get("PYTHONPATH", "")]
    env |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder)}
    # Metaflow refuses to work for nobody and for root
    name = user_name()
    return {"METAFLOW_USER": "tidegate" if name == "root" else name} | env
