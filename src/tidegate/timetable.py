"""The schedules of a project as code: ``schedules.toml``, one table a schedule.

::

    [iris-nightly]                      # its name
    pipeline = "pipelines/iris/pipeline.py"
    cron = "0 3 * * 1-5"
    timezone = "Europe/Berlin"          # UTC by default
    concurrency = "forbid"              # or allow, replace
    catch-up = 600                      # how late it may start, in seconds
    suspended = false                   # without it, it stays as it is
    parameters = { seed = 4 }
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

from tidegate.cron import zone
from tidegate.errors import ConfigError, NotFound, UsageError

FILE = "schedules.toml"
CONCURRENCY = ("forbid", "allow", "replace")
_TYPES: Mapping[str, tuple[type, str]] = {
    "pipeline": (str, "FILE[:PIPELINE], beside this file"),
    "cron": (str, 'five fields of cron: "0 3 * * *"'),
    "timezone": (str, 'a zone of the IANA database: "Europe/Berlin"'),
    "concurrency": (str, f"one of: {', '.join(CONCURRENCY)}"),
    "catch-up": (int, "a number of seconds, 0 or more"),
    "suspended": (bool, "true or false"),
    "parameters": (dict, "a table of run parameters"),
}
_REQUIRED = ("pipeline", "cron")


@dataclass(frozen=True)
class Entry:
    """A schedule as it is written; ``suspended`` is None where that is left as it is."""

    name: str
    pipeline: str
    cron: str
    timezone: str = "UTC"
    concurrency: str = "forbid"
    catch_up: int = 600
    suspended: bool | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


def read_timetable(file: Path) -> list[Entry]:
    """Read the schedules of a file, in its order.

    Raises:
        NotFound: there is no such file.
        ConfigError: it cannot be read, or a schedule in it is not as it has to be (code ``schedules-invalid``), or is
            of a zone that there is not (code ``timezone-unknown``).
    """
    try:
        body = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"there is no {file}",
            allowed="A file with a table for each schedule.",
            hint="tidegate schedule apply FILE[:PIPELINE] --cron EXPR for a single one",
            code="schedules-missing",
        ) from None
    except (OSError, ValueError) as e:
        raise _invalid(f"{file} cannot be read: {e}", "A TOML file with a table for each schedule.") from e
    return [_entry(name, said, file) for name, said in body.items()]


def _entry(name: str, said: Any, file: Path) -> Entry:
    if not isinstance(said, dict):
        raise _invalid(f"{name!r} in {file} is no table", f"[{name}] with: {', '.join(_TYPES)}.")
    for key, value in said.items():
        _check(f"[{name}] in {file}", key, value)
    if missing := [key for key in _REQUIRED if not said.get(key)]:
        raise _invalid(f"[{name}] in {file} has no {' and no '.join(missing)}", f"{missing[0]} = …")
    pipeline = str(file.parent / said["pipeline"])
    return Entry(name, pipeline, **{k.replace("-", "_"): v for k, v in said.items() if k != "pipeline"})


def _check(where: str, key: str, value: Any) -> None:
    if key not in _TYPES:
        near = difflib.get_close_matches(key, _TYPES, 1)
        raise _invalid(f"{where} has an unknown key {key!r}", f"{', '.join(_TYPES)}.", f"{near[0]} = …" if near else "")
    kind, allowed = _TYPES[key]
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not fits or (key == "concurrency" and value not in CONCURRENCY) or (key == "catch-up" and value < 0):
        raise _invalid(f"{key} of {where} is {value!r}", f"It is {allowed}.")
    if key == "timezone":
        _check_zone(where, value)
    if key == "parameters" and (dates := [n for n, v in value.items() if isinstance(v, date | time)]):
        raise _invalid(
            f"the parameter {dates[0]!r} of {where} is a date", "JSON values.", "Write it as text, in quotes."
        )


def _check_zone(where: str, name: str) -> None:
    try:
        zone(name, 'timezone = "{}"')
    except UsageError as e:
        raise ConfigError(f"{where}: {e.found}", allowed=e.allowed, hint=e.hint, code=e.code) from None


def _invalid(found: str, allowed: str, hint: str = "") -> ConfigError:
    return ConfigError(found, allowed=allowed, hint=hint, code="schedules-invalid")
