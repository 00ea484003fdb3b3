"""Where runs on Kubeflow Pipelines go: ``[tool.tidegate.kfp]`` in pyproject.toml, or ``TIDEGATE_KFP_<NAME>``.

::

    [tool.tidegate.kfp]
    host = "https://kubeflow.example/pipeline"   # by default as kfp finds it: KF_PIPELINES_ENDPOINT, its own context
    namespace = "team-a"                         # of a profile, where there are several users
    experiment = "fraud"                         # the project's name by default
    service-account = "pipeline-runner"          # of the steps; the server's default otherwise
    store-secret = "tidegate-store"
    registrar-secret = "tidegate-store-registrar"
    ui = "https://kubeflow.example/pipeline"     # where people look; the host by default
    timezone = "UTC"                             # in which the installation reads cron (CRON_SCHEDULE_TIMEZONE)

``TIDEGATE_KFP_TOKEN`` is a token for the API; it is read from the environment only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tidegate.cron import zone
from tidegate.engines import settings
from tidegate.errors import ConfigError, UsageError
from tidegate.project import Project

_NAME = re.compile(r"(?=.{0,253}$)([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?")
_ADDRESS = (re.compile(r"(https?://[\x21-\x7e]+)?"), "an address: https://kubeflow.example/pipeline")
_OBJECT = (_NAME, "a name of a Kubernetes object: a-z, 0-9, '-' and '.', 253 characters at most")
_RULES = {
    "host": _ADDRESS,
    "ui": _ADDRESS,
    "timezone": (re.compile(r".*"), "a zone of the IANA database: Europe/Berlin"),
    "experiment": (re.compile(r"[^\x00-\x1f]{0,127}"), "a name of at most 127 characters"),
}


@dataclass(frozen=True)
class KfpSettings:
    """Where the API is, and the names of what runs need there."""

    host: str = ""
    namespace: str = ""
    experiment: str = ""
    service_account: str = ""
    store_secret: str = "tidegate-store"
    registrar_secret: str = "tidegate-store-registrar"
    ui: str = ""
    timezone: str = "UTC"


def read_settings(project: Project) -> KfpSettings:
    """Read the settings of a project; raise ``ConfigError`` where one is unknown, or of another shape."""
    found = settings.read(project, "kfp", KfpSettings, _RULES, _OBJECT)
    _check_zone(found.timezone)
    return found if found.experiment else replace(found, experiment=project.name or "Default")


def _check_zone(name: str) -> None:
    try:
        zone(name, '[tool.tidegate.kfp] timezone = "{}"')
    except UsageError as e:
        said = f"the setting timezone of [tool.tidegate.kfp]: {e.found}"
        raise ConfigError(said, allowed=e.allowed, hint=e.hint, code=e.code) from None
