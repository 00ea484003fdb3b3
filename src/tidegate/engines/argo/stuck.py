"""Pods that cannot start before somebody mends something: Argo waits for them for ever, and often says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tidegate.engines.argo.cluster import NODE_ANNOTATION, Object

_HOPELESS = (
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError",
    "ErrImageNeverPull",
)  # fmt: skip
_QUOTA = "exceeded quota"
_WAITS = ("Unschedulable", _QUOTA)  # another run may end, another node come
_ASKED = re.compile(r"requested: (.*), used: .*, limited: (.*)")
_AMOUNT = re.compile(r"([0-9.]+)([a-zA-Z]*)")
_UNITS = {"m": 1e-3, "": 1.0, "k": 1e3} | {
    u + i: float(1024 if i else 1000) ** (n + 1) for n, u in enumerate("KMGTPE") for i in ("", "i")
}


def waits(text: str) -> bool:
    """Whether a pending pod's message says that it cannot start as things are."""
    return any(s in text for s in (*_HOPELESS, *_WAITS))


def hopeless(text: str) -> bool:
    """Whether no time will help: what waits for a quota may wait, unless it asks for more than all of it."""
    return any(s in text for s in _HOPELESS) or (_QUOTA in text and _never_fits(text))


def _never_fits(text: str) -> bool:
    if not (found := _ASKED.search(text)):
        return False
    asked, limited = (dict(p.split("=", 1) for p in side.split(",") if "=" in p) for side in found.groups())
    return any(_amount(a) > _amount(limited[n]) for n, a in asked.items() if n in limited)


def _amount(text: str) -> float:
    found = _AMOUNT.match(text)
    return float(found[1]) * _UNITS.get(found[2], 1.0) if found else 0.0


def waiting(pods: Iterable[Object]) -> Iterator[tuple[str, str]]:
    """Yield node ids of pods of which a container cannot start, and why."""
    for pod in pods:
        for reason in _reasons(pod.get("status", {})):
            yield pod["metadata"].get("annotations", {}).get(NODE_ANNOTATION, ""), reason


def _reasons(status: Mapping[str, Any]) -> Iterator[str]:
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        said = container.get("state", {}).get("waiting") or {}
        if said.get("reason") in _HOPELESS:
            yield f"{said['reason']}: {said.get('message', '')}"
