"""The shim: a static program that runs a step's command inside an image that is not ours, compiled for the base image."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from tidegate.errors import ConfigError, Trouble
from tidegate.images.environment import ROOT
from tidegate.images.layer import Entry
from tidegate.images.own import PACKAGE

SOURCE = PACKAGE / "engines" / "argo" / "shim.c"
PATH = f"{ROOT}/shim"


def compiled(machine: str, source: Path = SOURCE) -> Entry:
    """Compile the shim.

    Raises:
        ConfigError: gcc is missing (code ``compiler-missing``), the image is for another machine than this one
            (``compiler-machine``), or this tidegate has no shim (``shim-missing``).
        Trouble: it does not compile (``compiler-failed``).
    """
    gcc = shutil.which("gcc")
    if not gcc:
        raise ConfigError(
            "the image holds the shim, which is compiled, and gcc is not here",
            allowed="gcc and a static C library.",
            hint="apt install gcc libc6-dev",
            code="compiler-missing",
        )
    if platform.machine() != machine:
        raise ConfigError(
            f"the shim for {machine} cannot be compiled on {platform.machine()}",
            allowed=f"Build on {machine}.",
            code="compiler-machine",
        )
    if not source.is_file():
        raise ConfigError(f"this tidegate has no {source.name}", hint="shim = false in image.toml", code="shim-missing")
    with tempfile.TemporaryDirectory(prefix="tidegate-shim-") as folder:
        shutil.copy(source, Path(folder) / "shim.c")  # one name and folder, whatever the machine calls them
        command = [gcc, "-static", "-Os", "-D_GNU_SOURCE", "-s", "-Wl,--build-id=none", "-o", "shim", "shim.c"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Trouble(f"{source} does not compile: {done.stderr[-800:]}", code="compiler-failed")
        return Entry(PATH, (Path(folder) / "shim").read_bytes(), executable=True)
