"""The settings of an engine: a table ``[tool.tidegate.ENGINE]`` in pyproject.toml, ``TIDEGATE_ENGINE_NAME`` over it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from tidegate.errors import ConfigError
from tidegate.project import Project

Rule = tuple[re.Pattern[str], str]  # what fits, and how that is said
Settings = TypeVar("Settings")


def read(project: Project, section: str, kind: type[Settings], rules: Mapping[str, Rule], other: Rule) -> Settings:
    """Read the settings of a project; the environment comes before pyproject.toml, defaults come last.

    Args:
        project: whose they are.
        section: the engine's name.
        kind: a dataclass of texts, a field a setting, ``-`` written as ``_``.
        rules: what fits a setting, by name.
        other: what fits those that have no rule of their own.

    Raises:
        ConfigError: a setting is unknown, or of another shape.
    """
    names = [f.name.replace("_", "-") for f in fields(kind)]  # type: ignore[arg-type]
    said = _table(project.settings.get(section, {}), section, names)
    asked = {name: os.environ.get(variable(section, name)) or said.get(name) for name in names}
    given = {n: _checked(section, n, v, rules.get(n, other)) for n, v in asked.items() if v is not None}
    return kind(**{_field(name): value for name, value in given.items()})


def variable(section: str, name: str) -> str:
    """The environment variable that sets ``name`` for one command."""
    return f"TIDEGATE_{section}_{_field(name)}".upper()


def _field(name: str) -> str:
    return name.replace("-", "_")


def _table(said: object, section: str, names: list[str]) -> Mapping[str, Any]:
    if not isinstance(said, dict):
        raise ConfigError(
            f"[tool.tidegate] {section} is {said!r}, no table", allowed=f"A table of: {', '.join(names)}."
        )
    for name in said:
        if name not in names:
            raise ConfigError(
                f"[tool.tidegate.{section}] has an unknown setting {name!r}",
                allowed=f"Its settings: {', '.join(names)}.",
            )
    return said


def _meant(name: str, value: object, pattern: re.Pattern[str]) -> str:
    """The setting as it was meant, where that is clear: an address without its scheme."""
    return f'{name} = "http://{value}" ' if value and pattern.fullmatch(f"http://{value}") else f"{name} = … "


def _checked(section: str, name: str, value: object, rule: Rule) -> str:
    pattern, allowed = rule
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ConfigError(
            f"the setting {name} of [tool.tidegate.{section}] is {value!r}",
            allowed=f"It is {allowed}.",
            hint=f"{_meant(name, value, pattern)}in pyproject.toml, or {variable(section, name)} for one command",
        )
    return value
