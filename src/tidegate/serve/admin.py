"""The admin port: state, counts and metrics to read, drain and reload to order."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tidegate.serve.access import Access, Found
from tidegate.serve.connection import Connection
from tidegate.serve.crew import Counted
from tidegate.serve.http import Head, HttpError
from tidegate.serve.ruler import TEXT, Measured
from tidegate.serve.sheet import Numbers

Answer = tuple[int, Any]
METRICS = b"text/plain; version=0.0.4; charset=utf-8"


class Admin:
    """The application of the admin port.

    Args:
        access: who may ask.
        answers: by the route's name: gives a status and a body, as JSON unless it is bytes.
    """

    def __init__(self, access: Access, answers: dict[str, Callable[[], Answer]]) -> None:
        self._access, self._answers = access, answers

    def plan(self, head: Head) -> Found:
        """See ``Application``."""
        return self._access.find(head)

    def ask(self, connection: Connection, plan: Found, body: bytes) -> None:  # noqa: ARG002
        """See ``Application``."""
        try:
            status, said = self._answers[plan.route.name]()
        except Exception as e:  # a bug of ours must not end a connection without an answer
            status, said = 500, {"error": f"{type(e).__name__}"}
        if isinstance(said, bytes):
            connection.reply(status, said, kind=METRICS)
        else:
            connection.reply(status, json.dumps(said).encode())

    def refused(self, connection: Connection, head: Head | None, error: HttpError) -> None:  # noqa: ARG002
        """See ``Application``."""
        body = json.dumps({"error": str(error)}).encode()
        connection.reply(error.status, body, fields=error.fields)


def scores(counted: Counted) -> dict[str, Any]:
    """How the predictions of a version are spread."""
    counts = [int(n) for n in counted.numbers()["predictions"]]
    ruler = counted.ruler
    said = {"of": ruler.of, "profile": ruler.profile, "edges": list(ruler.edges)}
    return {**said, "counts": counts, "rows": sum(counts)}


def inputs(counted: Counted) -> dict[str, Any]:
    """What the inputs of a version looked like, by column."""
    numbers = counted.numbers()
    columns = {c.name: _input(i, c, numbers) for i, c in enumerate(counted.ruler.inputs)}
    return {"profile": counted.ruler.profile, "columns": columns}


def _input(i: int, column: Measured, numbers: Numbers) -> dict[str, Any]:
    rows, total, squares, missing = numbers[f"input{i}"]
    said = {"kind": column.kind, "rows": int(rows), "missing": int(missing), "sum": total, "squares": squares}
    said |= {"edges": list(column.edges), "counts": [int(n) for n in numbers[f"bins{i}"]]}
    if column.kind == TEXT:
        seen = [int(n) for n in numbers[f"frequent{i}"]]
        said |= {"frequent": dict(zip(column.frequent, seen, strict=True)), "rest": int(rows) - sum(seen)}
    return said
