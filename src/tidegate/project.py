"""The project: the folder that holds pyproject.toml, and its ``[tool.tidegate]`` settings.

A setting is read from ``TIDEGATE_<NAME>``, else ``[tool.tidegate] <name>``, else its default; flags come before both.

Every step's process imports this module: what only some functions need is imported there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigError

PROJECT_FILE = "pyproject.toml"
SERVE_TOKEN = "TIDEGATE_SERVE_TOKEN"
SHORTEST = 16  # of tokens, in bytes


@dataclass(frozen=True)
class Project:
    """A project's root folder, settings and name: that of its ``[project]`` table, else its folder's."""

    root: Path
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    def setting(self, name: str) -> Any:
        """Return the setting ``name`` from the environment or pyproject.toml, None where neither says anything."""
        return os.environ.get("TIDEGATE_" + name.upper().replace("-", "_")) or self.settings.get(name)

    @property
    def store_uri(self) -> str:
        """The store's address: a URI, or a folder (relative ones stand beside pyproject.toml)."""
        uri = str(self.setting("store") or ".tidegate")
        return uri if ":" in uri else str((self.root / uri).resolve())


def user_name() -> str:
    """Who acts: ``TIDEGATE_USER``, else the system's name of the user, else the user's number."""
    import getpass

    try:
        return os.environ.get("TIDEGATE_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid-{os.getuid()}"


def serve_token() -> str:
    """The bearer token that servers ask for and their front, rollouts and monitors have; empty where there is none.

    Raises:
        ConfigError: see ``check_token``.
    """
    said = os.environ.get(SERVE_TOKEN, "")
    return check_token(said, SERVE_TOKEN).decode() if said else ""


def check_token(text: str, where: str) -> bytes:
    """Return a token without the white space around it.

    Raises:
        ConfigError: it is too short, or nothing that a header can hold (code ``token-invalid``).
    """
    token = text.strip()
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{where} holds no token",
            allowed=f"{SHORTEST} printable characters or more, no spaces.",
            hint=f"export {SERVE_TOKEN}=$(openssl rand -hex 32)",
            code="token-invalid",
        )
    return token.encode()


def cache_folder() -> Path:
    """The user's own cache folder: what is in it can be made again (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate"


def state_home() -> Path:
    """The user's own folder for what outlives a run on this machine (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tidegate"


def state_folder(root: Path) -> Path:
    """The folder for what steps keep on this machine, one a project: volumes, workspaces."""
    import hashlib

    return state_home() / f"{root.name or 'root'}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"


def find_root(start: Path) -> Path:
    """Return the nearest folder at or above ``start`` with a pyproject.toml, else ``start`` itself.

    ``TIDEGATE_PROJECT`` (set inside steps) comes first.
    """
    if said := os.environ.get("TIDEGATE_PROJECT"):
        return Path(said)
    start = start.resolve()
    return next((p for p in (start, *start.parents) if (p / PROJECT_FILE).is_file()), start)


def read_project(start: Path | None = None) -> Project:
    """Read the project around ``start`` (default: the working directory).

    Raises:
        ConfigError: pyproject.toml cannot be parsed.
    """
    import tomllib

    root = find_root(start or Path.cwd())
    path = root / PROJECT_FILE
    if not path.is_file():
        return Project(root, name=root.name)
    try:
        body = tomllib.loads(path.read_text())
        settings = body.get("tool", {}).get("tidegate", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as e:
        raise ConfigError(f"{path} cannot be read: {e}", hint="Mend the file, or run from another folder.") from e
    if not isinstance(settings, dict):
        raise ConfigError(f"[tool.tidegate] in {path} is no table", allowed="A TOML table of settings.")
    return Project(root, settings, str(body.get("project", {}).get("name") or root.name))
