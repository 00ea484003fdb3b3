"""Environments for components with ``packages_to_install``: one per distinct set, made once, never the caller's own.

kfp writes a pip line in front of a lightweight component. What this environment already satisfies is not installed;
else uv makes an environment in the user's cache folder that holds the packages and nothing of the caller's but kfp and
tidegate, which run the component.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path
from urllib.parse import urlsplit

from tidegate.errors import StepFailed
from tidegate.project import cache_folder

_PIP_INSTALL = re.compile(r"-m pip install (.*?)(?= && |\n|$)")
_WITH_VALUE = {
    "--index-url": "--index-url",
    "--extra-index-url": "--extra-index-url",
    "--trusted-host": "--allow-insecure-host",
}
_DONE = ".complete"


@dataclass(frozen=True)
class Packages:
    """What a component wants installed: requirements as pip reads them, and uv's options for indexes."""

    requirements: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def satisfied(self) -> bool:
        """Whether this environment has everything already."""
        return all(map(_satisfied, self.requirements))


def wanted(lines: Sequence[str]) -> Packages:
    """Read the pip lines in front of a component; kfp itself is always there."""
    requirements: list[str] = []
    options: list[str] = []
    for command in (found for line in lines for found in _PIP_INSTALL.findall(line)):
        words = shlex.split(command)
        if "--no-deps" in words:  # the line that kfp adds to install itself
            continue
        while words:
            word = words.pop(0)
            if word in _WITH_VALUE and words:
                value = words.pop(0)
                # kfp trusts the host of an index by its whole address; uv wants the host alone
                options += [_WITH_VALUE[word], urlsplit(value).netloc or value if word == "--trusted-host" else value]
            elif not word.startswith("-") and not re.match(r"kfp\b(?!-)", word):
                requirements.append(word)
    return Packages(tuple(requirements), tuple(options))


def _satisfied(requirement: str) -> bool:
    from importlib import metadata

    from packaging.requirements import InvalidRequirement, Requirement

    try:
        found = Requirement(requirement)
        if found.url:
            return False
        if found.marker and not found.marker.evaluate():
            return True
        return found.specifier.contains(metadata.version(found.name), prereleases=True)
    except (InvalidRequirement, metadata.PackageNotFoundError):
        return False


def interpreter(packages: Packages, making: Callable[[], None]) -> Path:
    """Return the Python of the environment that holds the packages, making it when it is not there yet.

    Args:
        packages: what it holds.
        making: called before it is made, which takes a while.

    Raises:
        StepFailed: uv is missing, or a package cannot be installed (code ``packages-failed``).
    """
    said = json.dumps([sys.version_info[:2], sys.prefix, sorted(packages.requirements), packages.options])
    folder = cache_folder() / "environments" / hashlib.sha256(said.encode()).hexdigest()[:32]
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system when its holder dies
        if not (folder / _DONE).exists():
            making()
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, python, packages)
            (folder / _DONE).touch()
    return python


def _make(folder: Path, python: Path, packages: Packages) -> None:
    _uv("venv", "--quiet", "--python", sys.executable, str(folder))
    _uv(
        "pip",
        "install",
        "--quiet",
        "--python",
        str(python),
        *packages.options,
        "typing-extensions",
        *packages.requirements,
    )
    shared = folder / "tidegate"
    shared.mkdir()
    for module in ("tidegate", "kfp"):
        found = util.find_spec(module)
        assert found
        assert found.submodule_search_locations
        (shared / module).symlink_to(next(iter(found.submodule_search_locations)))


def shared_modules(python: Path) -> Path:
    """The folder of such an environment that goes on PYTHONPATH: tidegate and kfp, nothing else of the caller's."""
    return python.parents[1] / "tidegate"


def _uv(*args: str) -> None:
    uv = shutil.which("uv") or shutil.which(str(Path(sys.executable).with_name("uv")))
    if not uv:
        raise StepFailed(
            "packages_to_install needs uv, which is not here", hint="pip install uv", code="packages-failed"
        )
    done = subprocess.run([uv, *args], capture_output=True, text=True, check=False)
    if done.returncode:
        tail = " ".join(done.stderr.split())[-400:]
        raise StepFailed(f"packages_to_install cannot be installed: {args[-1]}: {tail}", code="packages-failed")


@cache
def installed(python: Path) -> tuple[str, ...]:
    """The distributions of such an environment, by name and version."""
    return tuple(
        sorted(p.name.removesuffix(".dist-info") for p in python.parents[1].glob("lib/*/site-packages/*.dist-info"))
    )
