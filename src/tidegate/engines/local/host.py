"""What this machine offers to steps in place of a cluster: images, secrets, config maps, volumes.

Settings of ``[tool.tidegate]`` in pyproject.toml::

    [tool.tidegate.images]               # how the command of an image runs where there are no containers
    "alpine:*" = "host"                  # as it is, on this machine
    "ghcr.io/me/*" = "nix develop -c"    # behind a command

    [tool.tidegate.kubernetes]           # what cluster objects are here
    secrets.db = "secrets/db.env"        # KEY=VALUE lines, or a folder with one file a key
    config-maps.app = "config/app"
    volumes.data-claim = "data"          # a folder
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigError
from tidegate.project import Project, state_folder

HOST = "host"
_RUNTIMES = ("podman", "docker")
_ENV_LINE = re.compile(r"(?:export\s+)?([A-Za-z_.-][A-Za-z0-9_.-]*)\s*=\s*(.*)")


@dataclass(frozen=True)
class Host:
    """The settings above, read: patterns of images with the words before their commands, and where objects are."""

    root: Path
    images: tuple[tuple[str, tuple[str, ...]], ...] = ()
    secrets: Mapping[str, Path] = field(default_factory=dict)
    config_maps: Mapping[str, Path] = field(default_factory=dict)
    volumes: Mapping[str, Path] = field(default_factory=dict)

    def prefix(self, image: str) -> tuple[str, ...] | None:
        """The words before the command of an image, by the first pattern that fits; None where none does."""
        tagged = image if re.search(r"[:@][^/]*$", image) else f"{image}:latest"
        return next(
            (words for p, words in self.images if any(fnmatch.fnmatchcase(i, p) for i in (image, tagged))), None
        )

    def volume(self, claim: str) -> Path:
        """The folder of a claim: the one that the settings name, else one in the user's state folder."""
        safe = re.sub(r"[^A-Za-z0-9._-]", "-", claim).lstrip(".") or "claim"
        return self.volumes.get(claim) or state_folder(self.root) / "volumes" / safe


def read_host(project: Project) -> Host:
    """Read the settings of a project.

    Raises:
        ConfigError: a setting is of another shape.
    """
    images = project.setting("images") or {}
    if isinstance(images, str):
        images = _json(images)
    objects = _table(project.settings.get("kubernetes", {}), "kubernetes")
    kinds = {
        kind: _table(objects.get(kind, {}), f"kubernetes.{kind}") for kind in ("secrets", "config-maps", "volumes")
    }
    paths = {kind: {n: project.root / str(p) for n, p in table.items()} for kind, table in kinds.items()}
    return Host(
        project.root,
        tuple((p, _words(p, w)) for p, w in _table(images, "images").items()),
        paths["secrets"],
        paths["config-maps"],
        paths["volumes"],
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigError(f"TIDEGATE_IMAGES is {text[:80]!r}", allowed='A JSON object: {"alpine:*": "host"}.') from None


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"[tool.tidegate.{name}] is {value!r}", allowed="A table: NAME = VALUE lines.")
    return value


def _words(pattern: str, said: Any) -> tuple[str, ...]:
    words = shlex.split(said) if isinstance(said, str) else said
    if not words or not isinstance(words, list) or not all(isinstance(w, str) for w in words):
        allowed = '"host", or the words to put before its command.'
        raise ConfigError(f"the image pattern {pattern!r} is mapped to {said!r}", allowed=allowed)
    return () if words == [HOST] else tuple(words)


@cache
def container_runtime() -> str:
    """The path of a podman or docker that answers, empty where there is none."""
    for name in _RUNTIMES:
        if (path := shutil.which(name)) and _answers(path):
            return path
    return ""


def _answers(path: str) -> bool:
    # a docker client without its daemon is installed on many machines
    try:
        return not subprocess.run([path, "info"], capture_output=True, timeout=20, check=False).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


def read_values(path: Path) -> dict[str, str]:
    """Read the keys of a secret or config map: a folder with one file a key, or a file of KEY=VALUE lines.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        if path.is_dir():
            return {f.name: f.read_text() for f in sorted(path.iterdir()) if f.is_file()}
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(
            f"{path} cannot be read: {e}", allowed="KEY=VALUE lines, or a folder with a file a key."
        ) from e
    pairs = [_ENV_LINE.fullmatch(line.strip()) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if None in pairs:
        raise ConfigError(f"{path} has a line that is no KEY=VALUE")
    return {p[1]: _unquoted(p[2]) for p in pairs if p}


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def python_first(env: Mapping[str, str], folder: Path) -> str:
    """PATH with the folder of the interpreter that runs tidegate in front: its ``python`` is the one meant."""
    return f"{folder}{os.pathsep}{env.get('PATH', os.defpath)}"
