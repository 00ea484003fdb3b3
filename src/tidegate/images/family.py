"""Families: one folder of ``images/`` each, with a hashed lock and an optional ``image.toml``, or a Containerfile."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigError, NotFound
from tidegate.images.base import PLATFORMS
from tidegate.images.source import FILES
from tidegate.project import Project

SETTINGS = "images-build"
_NAME = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
_FORMS: dict[str, type] = {"base": str, "python": str, "platform": str, "shim": bool, "env": dict, "files": list}


@dataclass(frozen=True)
class Family:
    """What an image is built from.

    Attributes:
        name: ``base``, ``train``, ``serve`` …
        folder: its folder.
        root: the project's root.
        base: the base image's name, empty where nothing names one.
        python: the Python version that its base has.
        platform: ``linux/amd64`` or ``linux/arm64``.
        shim: whether it holds the program that runs commands in images of others.
        env: environment variables it sets.
        files: what of the project goes into it.
    """

    name: str
    folder: Path
    root: Path
    base: str = ""
    python: str = "3.11"
    platform: str = "linux/amd64"
    shim: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[str] = FILES

    @property
    def lock(self) -> Path:
        """Its hashed lock."""
        return self.folder / "requirements.txt"

    @property
    def containerfile(self) -> Path | None:
        """Its Containerfile, None where tidegate builds it by itself."""
        return next((p for n in ("Containerfile", "Dockerfile") if (p := self.folder / n).is_file()), None)


def names(project: Project) -> list[str]:
    """The families of the project."""
    folders = sorted(p for p in (project.root / "images").glob("*") if p.is_dir())
    return [
        p.name for p in folders if any((p / n).is_file() for n in ("requirements.txt", "Containerfile", "Dockerfile"))
    ]


def read(project: Project, name: str, base: str = "") -> Family:
    """Read a family: its ``image.toml``, else the project's ``[tool.tidegate.images-build]``.

    Args:
        project: the project.
        name: the family.
        base: a base image that comes before every other.

    Raises:
        ConfigError: the name, or a setting, is none.
        NotFound: the project has no such family.
    """
    if len(name) > 63 or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} is no name of an image family",
            allowed="Lower-case letters, digits, - and _ between them.",
            code="family-name",
        )
    if name not in (known := names(project)):
        raise NotFound(
            f"there is no image family {name!r}",
            allowed=", ".join(known) or "The project has none.",
            hint=f"Copy images/base of tidegate's repository, or make images/{name}/requirements.txt: docs/images.md",
            code="family-missing",
        )
    folder = project.root / "images" / name
    said = {**_project_settings(project), **_image_toml(folder / "image.toml")}
    if base:
        said["base"] = base
    made = Family(name, folder, project.root, **said)
    if made.platform not in PLATFORMS:
        raise ConfigError(f"{made.platform!r} is no platform", allowed=", ".join(PLATFORMS), code="platform-unknown")
    if not re.fullmatch(r"3\.\d{1,2}", made.python):
        raise ConfigError(f"python = {made.python!r} is no version", allowed="3.11 and the like.")
    return made


def _project_settings(project: Project) -> dict[str, Any]:
    said = project.settings.get(SETTINGS) or {}
    return _checked(said, f"[tool.tidegate.{SETTINGS}]")


def _image_toml(path: Path) -> dict[str, Any]:
    try:
        return _checked(tomllib.loads(path.read_text()), str(path)) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path} cannot be read: {e}") from e


def _checked(said: Any, where: str) -> dict[str, Any]:
    allowed = ", ".join(_FORMS)
    if not isinstance(said, dict):
        raise ConfigError(f"{where} is no table", allowed=allowed)
    for name, value in said.items():
        if name not in _FORMS:
            raise ConfigError(f"{where} has the unknown setting {name!r}", allowed=allowed)
        inner = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
        if not isinstance(value, _FORMS[name]) or not all(isinstance(v, str) for v in inner):
            raise ConfigError(f"{where}: {name} = {value!r}", allowed=f"A {_FORMS[name].__name__} (of texts).")
    return dict(said)
