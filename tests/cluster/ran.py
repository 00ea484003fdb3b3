"""A run by the command line that ended, by value."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tidegate.plan.events import SKIPPED
from tidegate.store.base import Store
from tidegate.store.runs import Runs, StepRecord


@dataclass(frozen=True)
class Ran:
    """What ``tidegate run --json`` said, and the store that it wrote to."""

    code: int
    out: str
    err: str
    store: Store

    @property
    def body(self) -> dict[str, Any]:
        """The one line of JSON on stdout."""
        assert self.out, self.err
        (line,) = self.out.splitlines()
        body: dict[str, Any] = json.loads(line)
        return body

    @property
    def id(self) -> str:
        return str(self.body["run_id"])

    @property
    def state(self) -> str:
        return str(self.body["state"])

    @property
    def error(self) -> dict[str, Any]:
        """What ended the run, or why there was none."""
        if self.out:
            found: dict[str, Any] = self.body["error"] or {}
            return found
        said = re.search(r"^error\[([a-z-]+)\]: (.*)", self.err, re.MULTILINE)
        return {"code": said[1], "message": said[2]} if said else {}

    @property
    def steps(self) -> dict[str, str]:
        return {s["name"]: s["state"] for s in self.body["steps"]}

    @cached_property
    def records(self) -> dict[str, StepRecord]:
        return {r.path: r for r in Runs(self.store).steps(self.id)}

    @property
    def farewell(self) -> list[str]:
        """The end of what was said on stderr: all that somebody reads whose run failed."""
        lines = self.err.splitlines()
        return lines[
            max(
                (i for i, line in enumerate(lines) if re.match(r"step .* failed|the run ended early", line)), default=0
            ) :
        ]

    @property
    def said(self) -> str:
        return "\n".join(self.farewell)

    def log(self, step: str) -> str:
        return Runs(self.store).read_log(self.id, step).decode()

    def seen(self) -> dict[str, Any]:
        """All that must be the same wherever it ran."""
        outputs = {n: _placeless(v) for n, v in self.body["outputs"].items()}
        records = {p: _record(r) for p, r in self.records.items() if r.state != SKIPPED}  # Argo has no pod to record it
        return {"state": self.state, "code": self.code, "outputs": outputs, "steps": self.steps, "records": records}


def _record(record: StepRecord) -> dict[str, Any]:
    error = record.error or {}
    return {
        "state": record.state,
        "cached": record.cached,
        "attempts": record.attempts,
        "inputs": _placeless(record.inputs),
        "outputs": _placeless(record.outputs),
        "error": (error.get("code"), error.get("message")),
    }


def _placeless(value: Any) -> Any:
    """A value without where copies of artifacts are."""
    if isinstance(value, dict):
        return {k: _placeless(v) for k, v in value.items() if not ("digest" in value and k in ("uri", "path"))}
    return [_placeless(v) for v in value] if isinstance(value, list) else value


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """One line for each place in which two values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from differences(a.get(key), b.get(key), f"{where}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{where}[{i}]")
    elif a != b:
        yield f"{where}: {str(a)[:300]!r} there, {str(b)[:300]!r} here"
