"""Logins to registries, from where docker, podman and buildah keep theirs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigError
from tidegate.images.reference import HUB

_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", HUB)


def basic(host: str) -> str:
    """Return the value of a Basic ``Authorization`` header for the registry, empty where nobody logged in.

    Raises:
        ConfigError: a file of logins cannot be read, or a helper it names fails.
    """
    for path in _files():
        body = _read(path)
        for key in (host, f"https://{host}", *(_HUB_KEYS if host == HUB else ())):
            if said := _login(body, key):
                return "Basic " + said
    return ""


def _files() -> Iterator[Path]:
    if said := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(said)
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    yield Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError) as e:
        raise ConfigError(f"{path} cannot be read: {e}", hint="Log in again: docker login REGISTRY.") from e
    return body if isinstance(body, dict) else {}


def _login(body: dict[str, Any], key: str) -> str:
    helper = (body.get("credHelpers") or {}).get(key)
    entry = (body.get("auths") or {}).get(key)
    if helper or (body.get("credsStore") and entry is not None and not entry.get("auth")):
        return _helped(str(helper or body["credsStore"]), key)
    return str(entry.get("auth") or "") if isinstance(entry, dict) else ""


def _helped(helper: str, key: str) -> str:
    command = f"docker-credential-{helper}"
    try:
        done = subprocess.run([command, "get"], input=key, capture_output=True, text=True, check=True, timeout=60)
        said = json.loads(done.stdout)
        return base64.b64encode(f"{said['Username']}:{said['Secret']}".encode()).decode()
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as e:
        raise ConfigError(f"{command} gives no login for {key}", hint=f"docker login {key}") from e
