"""Run a pandera schema, eagerly and on all rows, and say readably what failed."""

from __future__ import annotations

import html
from dataclasses import dataclass

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

from components.validate.schemas import iris, reviews, transactions
from tidegate.errors import ParameterError, Refused

# imported by name, so that a component's code digest covers them: a new schema is a file and a line here
SCHEMAS: dict[str, pa.DataFrameSchema] = {
    "iris": iris.schema,
    "reviews": reviews.schema,
    "transactions": transactions.schema,
}
SHOWN = 20


@dataclass(frozen=True)
class Report:
    """What a schema found: a line for each check that failed, the first ``SHOWN`` of them; ``total`` counts values."""

    schema: str
    rows: int
    lines: tuple[str, ...] = ()
    total: int = 0

    @property
    def html(self) -> str:
        """The report as a page."""
        title = html.escape(f"{self.schema}: {f'{self.total} failures' if self.total else 'every check holds'}")
        items = "".join(f"<li>{html.escape(line)}</li>" for line in self.lines)
        return f"<!doctype html><title>{title}</title><h1>{title}, {self.rows} rows</h1><ul>{items}</ul>"

    def refuse(self) -> None:
        """Fail the step if anything failed.

        Raises:
            Refused: with the first failures (code ``data-invalid``).
        """
        if self.total:
            raise Refused(
                f"the data breaks the schema {self.schema!r} in {self.total} places: {'; '.join(self.lines[:3])}",
                hint="The step's log lists more; mend the data or the schema.",
                code="data-invalid",
            )


def check(frame: pl.DataFrame, name: str) -> Report:
    """Check every row of a frame.

    Raises:
        ParameterError: no schema of that name.
    """
    if name not in SCHEMAS:
        raise ParameterError(f"there is no schema {name!r}", allowed=f"One of {', '.join(SCHEMAS)}.")
    try:
        SCHEMAS[name].validate(frame, lazy=True)
    except SchemaErrors as e:
        return _report(name, frame.height, e.failure_cases)
    return Report(name, frame.height)


def _report(name: str, rows: int, cases: pl.DataFrame) -> Report:
    found = cases.group_by("column", "check", maintain_order=True).agg(
        pl.len().alias("n"), pl.col("failure_case").first()
    )
    lines = [
        f"{r['column'] or 'the table'}: {r['check']} fails {r['n']} times, first {str(r['failure_case']).splitlines()[0][:80]}"
        for r in found.head(SHOWN).rows(named=True)
    ]
    return Report(name, rows, tuple(lines), cases.height)
