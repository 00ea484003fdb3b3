"""The documents of claims/: workflows with what is expected of them, for the interpreter and for a real controller."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "claims"


def documents() -> dict[str, dict[str, Any]]:
    """The workflows by name."""
    found = [d for f in sorted(FOLDER.glob("*.yaml")) for d in yaml.load_all(f.read_text(), yaml.CSafeLoader)]
    return {d["metadata"]["name"]: d for d in found}


def expected(document: dict[str, Any]) -> dict[str, Any]:
    """The annotation `expect`, which values.yaml explains."""
    found: dict[str, Any] = json.loads(document["metadata"]["annotations"]["expect"])
    return found


def differences(expect: dict[str, Any], phase: str, of: Callable[[str, str], Any]) -> Iterator[str]:
    """One line for each thing that is not as expected; ``of`` tells a task's `phase`, or one of its outputs."""
    for key, wanted in expect.items():
        if key == "hangs":
            continue
        task, _, what = key.rpartition(".")
        found = of(task, what) if task else phase
        if found != wanted:
            yield f"{key}: {found!r}, not {wanted!r}"
