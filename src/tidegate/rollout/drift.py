"""Whether live rows and predictions are still those of a version's profile. Pure: counts in, findings out.

Rules:

* A window with fewer than ``rows`` rows cannot be told.
* A column, or the predictions, has drifted where the population stability index of its bins is ``psi`` or more (0.1 is
  commonly read as a change to look at, 0.2 or 0.25 as one to act on: Siddiqi, Credit Risk Scorecards, 2006), or where
  its share of missing values is ``missing`` or more away from the profile's.
* A text has two such indices, of its frequent values with all others as one, and of its lengths; the greater counts.
* Kolmogorov and Smirnov's distance is said beside it, for people. No row of the evaluation is needed.
* Counts by other bins than the profile's, and a column that one side does not have, cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tidegate.data.profile import Number, Profile, Text, ks, psi
from tidegate.registry.gate import CANNOT_TELL, FAIL, PASS, Finding

PREDICTIONS = "predictions"


@dataclass(frozen=True)
class Rules:
    """From when on a difference is drift."""

    psi: float = 0.2
    missing: float = 0.05
    rows: int = 1000


@dataclass(frozen=True)
class Column:
    """Live counts of one column by its profile's bins.

    Attributes:
        counts: of a number its values, of a text its lengths; what is missing is in none of them.
        missing: rows without a value.
        frequent: of a text, rows by frequent value.
    """

    counts: tuple[int, ...]
    missing: int = 0
    frequent: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Window:
    """Live counts of some time: rows, predictions by the profile's bins, columns by name."""

    rows: int
    predictions: tuple[int, ...]
    columns: Mapping[str, Column] = field(default_factory=dict)


def look(profile: Profile, window: Window, rules: Rules = Rules()) -> dict[str, Finding]:
    """Hold a window against a profile; return a finding for the predictions and for each column, by name.

    The predictions are found under ``predictions``; a column of that name under ``predictions (column)``.
    """
    if window.rows < rules.rows:
        text = f"{window.rows} rows are too few to tell; {rules.rows} are needed"
        return {PREDICTIONS: Finding(CANNOT_TELL, text, (("rows", window.rows), ("needed", rules.rows)))}
    said = {PREDICTIONS: _shifted(PREDICTIONS, [(profile.prediction.counts, window.predictions)], 0.0, rules)}
    for name, before, now in _columns(profile, window):
        said[f"{name} (column)" if name == PREDICTIONS else name] = _column(name, before, now, profile, window, rules)
    return said


def drifted(findings: Mapping[str, Finding]) -> list[str]:
    """Return the names of what has drifted."""
    return sorted(name for name, finding in findings.items() if finding.outcome == FAIL)


def _columns(profile: Profile, window: Window) -> Iterator[tuple[str, Number | Text | None, Column | None]]:
    for name in sorted({*profile.columns, *window.columns}):
        yield name, profile.columns.get(name), window.columns.get(name)


def _column(
    name: str, before: Number | Text | None, now: Column | None, profile: Profile, window: Window, rules: Rules
) -> Finding:
    if before is None or now is None:
        where = "live rows" if now is None else "the profile"
        return Finding(CANNOT_TELL, f"{name} is not in {where}")
    missing = now.missing / window.rows - before.missing / max(profile.rows, 1)
    if isinstance(before, Number):
        return _shifted(name, [(before.bins.counts, now.counts)], missing, rules)
    values = [*before.frequent.values(), before.rest], _values(before, now, window.rows)
    return _shifted(name, [values, (before.lengths.counts, now.counts)], missing, rules)


def _values(before: Text, now: Column, rows: int) -> list[int]:
    seen = [now.frequent.get(value, 0) for value in before.frequent]
    return [*seen, max(rows - now.missing - sum(seen), 0)]


def _shifted(name: str, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], missing: float, rules: Rules) -> Finding:
    if any(len(before) != len(now) for before, now in pairs):
        return Finding(CANNOT_TELL, f"{name} is counted by other bins than the profile's")
    indices = [psi(before, now) for before, now in pairs if sum(before) and sum(now)]
    distances = [ks(before, now) for before, now in pairs if sum(before) and sum(now)]
    if not indices and not missing:
        return Finding(CANNOT_TELL, f"{name} has no values")
    index, distance = max(indices, default=0.0), max(distances, default=0.0)
    if not (math.isfinite(index) and math.isfinite(missing)):
        return Finding(CANNOT_TELL, f"the counts of {name} are no counts")
    moved = index >= rules.psi or abs(missing) >= rules.missing
    numbers = (("psi", index), ("bound", rules.psi), ("ks", distance), ("missing", missing))
    text = f"{name}: PSI {index:.3g} ({'at least' if index >= rules.psi else 'below'} {rules.psi:g}), KS {distance:.3g}"
    if missing:
        text += f", {missing:+.1%} missing"
    return Finding(FAIL if moved else PASS, text, numbers)
