"""A task's own variables, and what a component that asks for its task's configuration (kfp's ``TaskConfig``) is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.engines.resolve import Resolver
from tidegate.ir.placeholder import parse
from tidegate.plan.model import Container, Interface

_TASK_CONFIG = {
    "KUBERNETES_AFFINITY": ("affinity", "nodeAffinity"),
    "KUBERNETES_TOLERATIONS": ("tolerations", "tolerations"),
    "KUBERNETES_NODE_SELECTOR": ("nodeSelector", "nodeSelector"),
}


def task_env(container: Container, resolver: Resolver) -> dict[str, str]:
    """The variables that a task's command gets; a component may be told of them instead."""
    own = container.env if container.passthroughs.get("ENV", True) else {}
    return {n: resolver.text(t) for n, t in own.items()}


def with_task_config(interface: Interface, container: Container, resolver: Resolver) -> Mapping[str, Any]:
    """The executor input, with what a TaskConfig parameter is to be told."""
    files = resolver.files
    names = [n for n, p in interface.parameters.items() if p.type == "TASK_CONFIG"]
    if not names:
        return files
    config: dict[str, Any] = {}
    for field in container.passthroughs:
        if field == "ENV":
            config["env"] = [{"name": n, "value": resolver.text(t)} for n, t in container.env.items()]
        elif field == "RESOURCES":
            config["resources"] = _resources(container, resolver)
        elif field in _TASK_CONFIG and (said := container.kubernetes.get(_TASK_CONFIG[field][1])):
            config[_TASK_CONFIG[field][0]] = said.get("labels", said) if isinstance(said, Mapping) else said
    values = {**files["inputs"]["parameterValues"], **dict.fromkeys(names, config)}
    return {**files, "inputs": {**files["inputs"], "parameterValues": values}}


def _resources(container: Container, resolver: Resolver) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (kind, resource) in {
        "resourceCpuLimit": ("limits", "cpu"),
        "resourceMemoryLimit": ("limits", "memory"),
        "resourceCpuRequest": ("requests", "cpu"),
        "resourceMemoryRequest": ("requests", "memory"),
    }.items():
        if said := container.resources.get(name):
            found.setdefault(kind, {})[resource] = resolver.text(parse(said))
    return found
