"""How much a step may use: amounts as Kubernetes writes them, and what a process group really uses."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import DefinitionError
from tidegate.ir import placeholder

_AMOUNT = re.compile(r"\s*([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([numkKMGTPE]?i?)\s*")
_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_GIGA = 1e9


@dataclass(frozen=True)
class Limits:
    """What a step may use: bytes of memory, cores, seconds; 0 means no limit."""

    memory: float = 0.0
    cores: float = 0.0
    seconds: float = 0.0


def amount(text: str) -> float:
    """Read a Kubernetes quantity (``500m``, ``2``, ``512Mi``, ``1G``).

    Raises:
        DefinitionError: it is none.
    """
    with contextlib.suppress(ValueError, KeyError):
        if found := _AMOUNT.fullmatch(text):
            value = float(found[1]) * {**_UNITS, **_BINARY}[found[2]]
            if 0 <= value < math.inf:
                return value
    raise DefinitionError(
        f"{text!r} is no amount", allowed="A quantity such as 500m, 2, 512Mi or 1G.", code="resource-amount"
    )


def read_limits(resources: Mapping[str, Any], resolve: Callable[[placeholder.Template], str], seconds: float) -> Limits:
    """Read the limits of a ResourceSpec; its deprecated numbers count where the texts are missing."""
    memory, cores = resources.get("resourceMemoryLimit"), resources.get("resourceCpuLimit")
    return Limits(
        amount(resolve(placeholder.parse(memory))) if memory else float(resources.get("memoryLimit", 0)) * _GIGA,
        amount(resolve(placeholder.parse(cores))) if cores else float(resources.get("cpuLimit", 0)),
        seconds,
    )


def memory_of(group: int) -> int:
    """The resident memory of a process group, in bytes; 0 where there is no /proc."""
    page, found = os.sysconf("SC_PAGE_SIZE"), 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = stat.read_text().rpartition(")")[2].split()
            found += int(fields[21]) * page if int(fields[2]) == group else 0
    return found
