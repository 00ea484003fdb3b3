"""The Kubernetes settings of a task, as far as they mean something on this machine; the rest is named, never dropped.

Secrets and config maps are files that the project names (see ``host``), claims and empty directories are folders
mounted where the task expects them, the deadline is a timeout, fields of the pod are those of the step.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tidegate.engines.local.host import Host, read_values
from tidegate.engines.readable import readable
from tidegate.errors import DefinitionError
from tidegate.plan.model import Container, Plan

_APPLIED = {
    "secretAsEnv", "configMapAsEnv", "secretAsVolume", "configMapAsVolume", "pvcMount", "emptyDirMounts",
    "genericEphemeralVolume", "fieldPathAsEnv", "activeDeadlineSeconds", "enabledSharedMemory",
}  # fmt: skip
_PIPELINE_APPLIED = {"workspace", "activeDeadlineSeconds"}
_KINDS = {"secret": "secrets", "configMap": "config-maps"}


@dataclass(frozen=True)
class Mount:
    """A folder that a step sees at another path."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Local:
    """What the settings come to.

    Attributes:
        env: environment variables, those from secrets among them.
        secrets: every value that comes from a secret, by whichever way.
        mounts: folders that the step sees elsewhere.
        seconds: the deadline, 0 for none.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    seconds: float = 0.0


def not_applied(plan: Plan) -> str:
    """Name the settings of a plan that mean nothing here, empty when there are none."""
    found = {f for c in plan.executors.values() if isinstance(c, Container) for f in c.kubernetes if f not in _APPLIED}
    found |= {f for f in plan.settings if f not in _PIPELINE_APPLIED}
    found |= {
        "accelerator" for c in plan.executors.values() if isinstance(c, Container) and "accelerator" in c.resources
    }
    return ", ".join(sorted(found))


def check_settings(plan: Plan, host: Host) -> None:
    """Refuse, before anything starts, a plan that reads a secret or config map which is not here.

    Raises:
        DefinitionError: naming it and where to say where it is (code ``secret-missing``).
    """
    for container in plan.executors.values():
        if isinstance(container, Container):
            with readable():
                _check_container(container, host)


def _check_container(container: Container, host: Host) -> None:
    for kind in _KINDS:
        entries = (*container.kubernetes.get(f"{kind}AsEnv", ()), *container.kubernetes.get(f"{kind}AsVolume", ()))
        for entry in entries:
            if name := _constant_name(entry, kind):
                _env(kind, {**entry, f"{kind}NameParameter": name}, host)


def _constant_name(entry: Mapping[str, Any], kind: str) -> str:
    said = entry.get(f"{kind}NameParameter", {}).get("runtimeValue", {}).get("constant")
    return str(said if said is not None else entry.get(f"{kind}Name", ""))


def local(
    config: Mapping[str, Any], settings: Mapping[str, Any], host: Host, folder: Path, pod: Mapping[str, str]
) -> Local:
    """Work out what the settings of one task come to.

    Args:
        config: the KubernetesExecutorConfig.
        settings: the values of its ``…Parameter`` fields by place.
        host: where secrets, config maps and volumes are.
        folder: the step's own folder, for empty directories and the files of config maps.
        pod: fields of the pod by path (``metadata.name``).

    Raises:
        DefinitionError: a secret or config map that is not here, or settings of another shape.
    """
    with readable():
        return _local(config, settings, host, folder, pod)


def _local(
    config: Mapping[str, Any], settings: Mapping[str, Any], host: Host, folder: Path, pod: Mapping[str, str]
) -> Local:
    env = {e["name"]: pod.get(e.get("fieldPath", ""), "") for e in config.get("fieldPathAsEnv", ())}
    for kind in _KINDS:
        env |= {n: v for e in _entries(config, f"{kind}AsEnv", settings) for n, v in _env(kind, e, host).items()}
    mounts = [_claim(e, host) for e in _entries(config, "pvcMount", settings)]
    for kind in ("emptyDirMounts", "genericEphemeralVolume"):
        mounts += [
            Mount(_fresh(folder / "volumes" / _safe(e["volumeName"])), e["mountPath"]) for e in config.get(kind, ())
        ]
    for kind in _KINDS:
        mounts += [m for e in _entries(config, f"{kind}AsVolume", settings) for m in _files(kind, e, host, folder)]
    secrets = tuple(v for e in _objects("secret", config, settings) for v in _values("secret", *e, host).values())
    return Local(env, secrets, tuple(mounts), float(config.get("activeDeadlineSeconds", 0)))


def settings_key(config: Mapping[str, Any], settings: Mapping[str, Any], host: Host) -> dict[str, Any]:
    """What of the settings a result may depend on, for a cache key: all of them, and what secrets and config maps hold.

    Values of secrets are in it by a digest that is slow to compute, so that short ones cannot be guessed from a key.
    """
    if not config:
        return {}
    with readable():
        held = {
            f"{kind} {name}": [[k, _slow_digest(v)] for k, v in sorted(_values(kind, name, entry, host).items())]
            for kind in _KINDS
            for name, entry in _objects(kind, config, settings)
        }
    return {"config": dict(config), "settings": dict(settings), "objects": held}


@lru_cache(maxsize=1024)
def _slow_digest(value: str) -> str:
    data = value.encode("utf-8", "surrogateescape")
    return hashlib.scrypt(data, salt=b"tidegate cache key", n=2**14, r=8, p=1, dklen=32).hex()


def _objects(kind: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The secrets or config maps that the settings name, each with its entry."""
    entries = [e for way in ("AsEnv", "AsVolume") for e in _entries(config, f"{kind}{way}", settings)]
    return [(_name(kind, e), e) for e in entries]


def _entries(config: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a setting with the values of their parameters in the place of these."""
    return [
        {**entry, **{p: settings[f"{name}.{i}.{p}"] for p in entry if f"{name}.{i}.{p}" in settings}}
        for i, entry in enumerate(config.get(name, ()))
    ]


def _name(kind: str, entry: Mapping[str, Any]) -> str:
    said = entry.get(f"{kind}NameParameter")
    return str(said if said and not isinstance(said, Mapping) else entry.get(f"{kind}Name", ""))


def _values(kind: str, name: str, entry: Mapping[str, Any], host: Host) -> dict[str, str]:
    known = host.secrets if kind == "secret" else host.config_maps
    if name in known:
        return read_values(known[name])
    pairs = entry.get("keyToEnv", [])
    if entry.get("optional") or (pairs and all(p["envVar"] in os.environ for p in pairs)):
        return {p[f"{kind}Key"]: os.environ[p["envVar"]] for p in pairs if p["envVar"] in os.environ}
    what = {"secret": "secret", "configMap": "config map"}[kind]
    raise DefinitionError(
        f"a task reads the {what} {name!r}, which is not on this machine",
        allowed="A file of KEY=VALUE lines or a folder with a file a key"
        + (", or its variables in the environment of tidegate." if pairs else "."),
        hint=f'In pyproject.toml, [tool.tidegate.kubernetes]: {_KINDS[kind]}.{name} = "PATH"',
        code="secret-missing",
    )


def _env(kind: str, entry: Mapping[str, Any], host: Host) -> dict[str, str]:
    name = _name(kind, entry)
    values = _values(kind, name, entry, host)
    key = f"{kind}Key"
    absent = [p[key] for p in entry.get("keyToEnv", ()) if values and p[key] not in values]
    if absent and not entry.get("optional"):
        raise DefinitionError(
            f"{name!r} has no key {absent[0]!r}", allowed=f"Its keys: {', '.join(values)}.", code="secret-missing"
        )
    return {p["envVar"]: values[p[key]] for p in entry.get("keyToEnv", ()) if p[key] in values}


def _files(kind: str, entry: Mapping[str, Any], host: Host, folder: Path) -> list[Mount]:
    name = _name(kind, entry)
    values = _values(kind, name, entry, host)
    if not values:
        return []
    source = _fresh(folder / "volumes" / f"{kind}-{_safe(name)}")
    for key, value in values.items():
        (source / _safe(key)).write_text(value)
    return [Mount(source, entry["mountPath"], read_only=True)]


def _claim(entry: Mapping[str, Any], host: Host) -> Mount:
    name = entry.get("pvcNameParameter") or entry.get("constant") or ""
    source = host.volume(str(name)) / entry.get("subPath", "").strip("/")
    if not source.resolve().is_relative_to(host.volume(str(name)).resolve()):
        raise DefinitionError(f"the sub-path {entry['subPath']!r} leaves its volume", code="volume-path")
    return Mount(_fresh(source), entry["mountPath"])


def _fresh(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".") or "volume"
