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

import re
from dataclasses import dataclass

from tidegate.engines import settings
from tidegate.project import Project

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_TEXT = re.compile(r"[\x21-\x7e]*")
# setting -> what fits, and how that is said; a new setting is a field below and, where names are not enough, a row here
OBJECT = (_NAME, "a name of a Kubernetes object: a-z, 0-9, '-' and '.', 253 characters at most")
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
    """Read the settings of a project; raise ``ConfigError`` where one is unknown, or of another shape."""
    return settings.read(project, "argo", ArgoSettings, _RULES, OBJECT)
