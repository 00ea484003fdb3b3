"""Where runs on Argo go: ``[tool.tidegate.argo]`` in pyproject.toml, or ``TIDEGATE_ARGO_<NAME>`` for one command.

::

    [tool.tidegate.argo]
    namespace = "pipelines"
    context = "staging"                # of your kubeconfig; the current one by default
    service-account = "tidegate-run"   # of the steps: it has no right at all
    executor-account = "tidegate-executor"
    store-secret = "tidegate-store"
    registrar-secret = "tidegate-store-registrar"
    image = "registry.example/tidegate@sha256:…"
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tidegate.errors import ConfigError
from tidegate.project import Project

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_TEXT = re.compile(r"[\x21-\x7e]*")
# setting -> what fits, and how that is said; a new setting is a field below and, where names are not enough, a row here
_OBJECT = (_NAME, "a name of a Kubernetes object: a-z, 0-9, '-' and '.', 253 characters at most")
_RULES = {
    "namespace": (_LABEL, "a name of a namespace: a-z, 0-9 and '-', 63 characters at most"),
    "context": (re.compile(r"[^\x00-\x1f]*"), "a context of your kubeconfig: kubectl config get-contexts"),
    "image": (_TEXT, "an image reference, best by digest: registry.example/tidegate@sha256:…"),
}


@dataclass(frozen=True)
class ArgoSettings:
    """The names of what runs need in a cluster."""

    namespace: str = "pipelines"
    context: str = ""
    service_account: str = "tidegate-run"
    executor_account: str = "tidegate-executor"
    store_secret: str = "tidegate-store"
    registrar_secret: str = "tidegate-store-registrar"
    image: str = ""


def read_settings(project: Project) -> ArgoSettings:
    """Read the settings of a project; the environment comes before pyproject.toml, defaults come last.

    Raises:
        ConfigError: a setting is unknown, or of another shape.
    """
    said = _table(project.settings.get("argo", {}))
    asked = {name: os.environ.get(variable(name)) or said.get(name) for name in _names()}
    return ArgoSettings(**{_field(name): _checked(name, value) for name, value in asked.items() if value is not None})


def variable(name: str) -> str:
    """The environment variable that sets ``name`` for one command."""
    return f"TIDEGATE_ARGO_{_field(name).upper()}"


def _names() -> list[str]:
    return [f.name.replace("_", "-") for f in fields(ArgoSettings)]


def _field(name: str) -> str:
    return name.replace("-", "_")


def _table(said: object) -> Mapping[str, Any]:
    if not isinstance(said, dict):
        raise ConfigError(f"[tool.tidegate] argo is {said!r}, no table", allowed=f"A table of: {', '.join(_names())}.")
    for name in said:
        if name not in _names():
            raise ConfigError(
                f"[tool.tidegate.argo] has an unknown setting {name!r}", allowed=f"Its settings: {', '.join(_names())}."
            )
    return said


def _checked(name: str, value: object) -> str:
    pattern, allowed = _RULES.get(name, _OBJECT)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ConfigError(
            f"the setting {name} of [tool.tidegate.argo] is {value!r}",
            allowed=f"It is {allowed}.",
            hint=f"Set it in pyproject.toml, or {variable(name)} for one command.",
        )
    return value
