"""The small changes that a definition needs to run on a real KFP backend; pure, and shown by ``--dry-run``.

Only components of our own are changed: their command becomes the launcher, which is told the run and the step's place
in it by the pod's own labels and annotations, and the store by a mounted Secret; KFP's caching is off for them, for they have
their own. Interfaces stay as they are, and every other component stays whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tidegate.author.command import COMMAND, REGISTRAR
from tidegate.engines.kfp.settings import KfpSettings
from tidegate.plan.build import digest

LAUNCHER = ("python", "-m", "tidegate.engines.kfp.launcher")
RUN_ID, NODE, PLAN, ORIGIN, CACHE = (f"TIDEGATE_{n}" for n in ("RUN_ID", "NODE", "PLAN", "ORIGIN", "CACHE"))
SECRET_FOLDER = "/var/run/tidegate/store"
_FIELDS = {RUN_ID: "metadata.labels['pipeline/runid']", NODE: "metadata.annotations['workflows.argoproj.io/node-name']"}


@dataclass(frozen=True)
class Prepared:
    """A definition as KFP is given it.

    Attributes:
        spec: the PipelineSpec.
        platforms: kfp's platform document.
        digest: of both, but for where they came from: the same digest is the same pipeline version.
        changes: what was changed, a line each.
    """

    spec: Mapping[str, Any]
    platforms: Mapping[str, Any]
    digest: str
    changes: tuple[str, ...]


def prepare(
    spec: Mapping[str, Any],
    platforms: Mapping[str, Any],
    settings: KfpSettings,
    *,
    origin: Mapping[str, str] | None = None,
    use_cache: bool = True,
) -> Prepared:
    """Return the definition as KFP is given it.

    Args:
        spec: the checked PipelineSpec.
        platforms: kfp's platform document.
        settings: names in the cluster.
        origin: commit, user and so on, for runs that nobody of ours starts.
        use_cache: whether steps may use results of earlier runs.
    """
    plan = digest([spec, platforms]) if platforms else digest(spec)
    spec, changed = deepcopy(dict(spec)), deepcopy(dict(platforms))
    own = _own(spec)
    kubernetes = _executors(changed) if own else {}
    for label, container in own.items():
        container["command"] = list(LAUNCHER)
        secret = settings.registrar_secret if _registers(container) else settings.store_secret
        _set_env(container, {PLAN: plan} | ({} if use_cache else {CACHE: "false"}))
        _tell(kubernetes.setdefault(label, {}), secret)
    tasks = [*_uncache(spec, set(own))]
    said = digest([spec, changed])
    for container in own.values():
        _set_env(container, {ORIGIN: json.dumps(dict(origin or {}), sort_keys=True)})
    changes = [f"{label}: run by tidegate's launcher, with the Secret's store" for label in own]
    changes += [f"{task}: KFP's caching is off; tidegate's cache is asked" for task in tasks]
    return Prepared(spec, changed, said, tuple(changes))


def _own(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The containers of our own components, by the label of their executor."""
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    containers = {label: e["container"] for label, e in executors.items() if "container" in e}
    return {label: c for label, c in containers.items() if tuple(c.get("command", ())) == COMMAND}


def _registers(container: Mapping[str, Any]) -> bool:
    return any(e["name"] == REGISTRAR for e in container.get("env", ()))


def _executors(platforms: dict[str, Any]) -> dict[str, Any]:
    kubernetes = platforms.setdefault("kubernetes", {})
    found: dict[str, Any] = kubernetes.setdefault("deploymentSpec", {}).setdefault("executors", {})
    return found


def _set_env(container: dict[str, Any], values: Mapping[str, str]) -> None:
    container["env"] = [*container.get("env", ()), *({"name": n, "value": v} for n, v in values.items())]


def _tell(config: dict[str, Any], secret: str) -> None:
    """Let a pod know its run, its node and the store."""
    fields = [{"name": n, "fieldPath": path} for n, path in _FIELDS.items()]
    config["fieldPathAsEnv"] = [*config.get("fieldPathAsEnv", ()), *fields]
    # a pod without it starts all the same, and its launcher says what is missing; KFP would wait for ever and say nothing
    volume = {"secretName": secret, "mountPath": SECRET_FOLDER, "optional": True}
    name = {"secretNameParameter": {"runtimeValue": {"constant": secret}}}
    config["secretAsVolume"] = [*config.get("secretAsVolume", ()), {**volume, **name}]


def _uncache(spec: Mapping[str, Any], own: set[str]) -> Iterator[str]:
    """Switch KFP's caching off for tasks of our own components; yield their names."""
    components = spec.get("components", {})
    for component in (spec["root"], *components.values()):
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            called = components.get(task["componentRef"]["name"], {})
            if called.get("executorLabel") in own:
                task["cachingOptions"] = {}
                yield name
