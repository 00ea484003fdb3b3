"""Run a pandera schema, eagerly and on all rows, and say readably what failed."""

from __future__ import annotations

import html
from dataclasses import dataclass

import polars as pl

from components.validate.schemas import iris, reviews, transactions
from tidegate.errors import Refused, UsageError

SCHEMAS = {"iris": iris.schema, "reviews": reviews.schema, "transactions": transactions.schema}
SHOWN = 20


@dataclass(frozen=True)
class Failures:
    """What a schema found: one line a failed check, capped."""

    schema: str
    rows: int
    lines: tuple[str, ...]
    total: int

    @property
    def html(self) -> str:
        """The report as a page."""
        items = "".join(f"<li>{html.escape(line)}</li>" for line in self.lines)
        verdict = f"{self.total} failures" if self.total else "every check holds"
        return f"<!doctype html><title>{self.schema}</title><h1>{self.schema}: {verdict}, {self.rows} rows</h1><ul>{items}</ul>"

    def refuse(self) -> None:
        """Raise what a step should fail with, if anything failed."""
        if self.total:
            raise Refused(
                f"the data breaks the schema {self.schema!r} in {self.total} places: {'; '.join(self.lines[:3])}",
                hint="The step's report lists them; mend the data or the schema.",
                code="data-invalid",
            )


def check(frame: pl.DataFrame, name: str) -> Failures:
    """Check a frame.

    Raises:
        UsageError: no schema of that name.
    """
    from pandera.errors import SchemaErrors

    if name not in SCHEMAS:
        raise UsageError(f"there is no schema {name!r}", allowed=f"One of {', '.join(SCHEMAS)}.")
    try:
        SCHEMAS[name].validate(frame, lazy=True)
    except SchemaErrors as e:
        return _failures(name, frame.height, e.failure_cases)
    return Failures(name, frame.height, (), 0)


def _failures(name: str, rows: int, cases: pl.DataFrame) -> Failures:
    grouped = cases.group_by("column", "check", maintain_order=True).agg(
        pl.len().alias("n"), pl.col("failure_case").first()
    )
    lines = [
        f"{r['column']}: {r['check']} fails {r['n']} times, first {r['failure_case']!r}"
        for r in grouped.rows(named=True)
    ]
    return Failures(name, rows, tuple(lines[:SHOWN]), cases.height)
