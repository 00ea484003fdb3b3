"""Values typed on the command line, and values printed: parameters by declared type, floats that JSON cannot say."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidegate.errors import ParameterError
from tidegate.plan.model import Plan
from tidegate.plan.value import STRING, Artifact


def parameters(plan: Plan, typed: Sequence[str], file: Path | None) -> dict[str, Any]:
    """Parameters from ``-p NAME=VALUE`` over those of a JSON or YAML file.

    A value is text for a text parameter and JSON otherwise; ``null`` leaves an optional parameter out.
    """
    return {**(_from_file(file) if file else {}), **dict(_parsed(plan, t) for t in typed)}


def split(typed: str, flag: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``."""
    name, equals, value = typed.partition("=")
    if not equals or not name:
        raise ParameterError(f"{flag} {typed!r} has no value", allowed=f"{flag} NAME=VALUE.", code="parameter-syntax")
    return name.strip(), value


def _parsed(plan: Plan, typed: str) -> tuple[str, Any]:
    name, value = split(typed, "-p")
    declared = plan.root.interface.parameters.get(name)
    if declared is None or declared.type == STRING:
        return name, value
    try:
        return name, json.loads(value.lower() if value.lower() in ("true", "false") else value)
    except ValueError:
        return name, value


def _from_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except (OSError, ValueError) as e:
        raise ParameterError(f"{path} cannot be read: {e}", code="parameter-file") from e
    if not isinstance(found, dict):
        raise ParameterError(f"{path} is no mapping of parameters", allowed="NAME: VALUE pairs.", code="parameter-file")
    return found


def _yaml(text: str) -> Any:
    """Read YAML in which a date is text, as kfp's parameters know none; raise ``ValueError``."""
    import yaml

    class Plain(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
            for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        return yaml.load(text, Loader=Plain)
    except yaml.YAMLError as e:
        raise ValueError(str(e)) from e


def as_json(value: Any) -> Any:
    """A value as strict JSON: NaN and the infinities become the strings NaN, Infinity, -Infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {k: as_json(v) for k, v in value.items()}
    return [as_json(v) for v in value] if isinstance(value, list | tuple) else value


def artifact_as_json(artifact: Artifact, path: Path | None) -> dict[str, Any]:
    """An output artifact as ``--json`` prints it."""
    return {
        "uri": artifact.uri,
        "digest": artifact.digest,
        "type": artifact.type.partition("@")[0],
        "metadata": as_json(artifact.metadata),
        "path": str(path) if path else None,
    }
