"""uv, which installs a hashed lock for a platform that may be another than this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tidegate.errors import ConfigError, Refused, Trouble

_TAIL = 1200


def install(lock: Path, target: Path, *, machine: str, python: str, options: Sequence[str] = ()) -> None:
    """Install exactly what the lock says into the folder ``target``.

    Args:
        lock: requirements, each with its hashes.
        target: the folder, which need not exist.
        machine: ``x86_64`` or ``aarch64``.
        python: the Python version it is for.
        options: further options of ``uv pip install``.

    Raises:
        ConfigError: uv is not here (code ``uv-missing``).
        Refused: a file does not have the locked hash (code ``hash-mismatch``).
        Trouble: a package cannot be had (code ``install-failed``).
    """
    uv = shutil.which("uv") or shutil.which(str(Path(sys.executable).with_name("uv")))
    if not uv:
        raise ConfigError("images need uv, which is not here", hint="pip install uv", code="uv-missing")
    command = [uv, "pip", "install", "--quiet", "--no-progress", "--require-hashes", "--no-deps", "--link-mode", "copy"]
    command += ["--python-platform", f"{machine}-manylinux_2_36", "--python-version", python, "--target", str(target)]
    command += ["--python", sys.executable]  # or uv looks for one, and fetches one
    env = {**os.environ, "SOURCE_DATE_EPOCH": "0", "PYTHONHASHSEED": "0"}
    done = subprocess.run([*command, *options, "-r", str(lock)], capture_output=True, text=True, check=False, env=env)
    if done.returncode == 0:
        return
    tail = " ".join(done.stderr.split())[-_TAIL:]
    if "Hash mismatch" in done.stderr:
        raise Refused(f"{lock} does not match what was fetched: {tail}", hint="scripts/lock.sh", code="hash-mismatch")
    hint = (
        "Make the lock again with hashes." if "--require-hashes" in done.stderr else "Look at the lock and the network."
    )
    raise Trouble(f"{lock} cannot be installed: {tail}", hint=hint, code="install-failed")
