"""Expressions of cron as Argo's controller reads them, and the moments that they name.

Cron is no standard: that Sunday is not 7, that ``*/2`` of days does not leave the choice to weekdays, that an hour which
the clocks leave out never comes and one that they repeat comes twice is how the controller's own library has it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from tidegate.errors import UsageError

DAYS = 5 * 366  # beyond that the controller gives up
NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_ALLOWED = f"Five fields: minute, hour, day of month, month, day of week; or one of {', '.join(NAMED)}."
_EXAMPLE = "'0 3 * * 1-5' is 03:00 from Monday to Friday."
_ITEM = re.compile(r"(?:([*?])|(\w+)(?:-(\w+))?)(?:/(\d{1,4}))?")
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_WEEKDAYS = "sun mon tue wed thu fri sat".split()


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, tuple(_MONTHS)),
    _Field("day of week", 0, 6, tuple(_WEEKDAYS)),
)


@dataclass(frozen=True)
class Expression:
    """What each field allows; ``either``: a day is right by its number or by its weekday, since both are limited."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def on(self, day: date) -> bool:
        """Whether it names moments of this day."""
        number, weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and ((number or weekday) if self.either else (number and weekday))


def parse(text: str) -> Expression:
    """Read an expression.

    Raises:
        UsageError: the controller would refuse it, or read it as never (code ``cron-invalid``).
    """
    if text.startswith(("TZ=", "CRON_TZ=")):
        raise _wrong(text, "names a time zone", "Name the zone apart: --timezone Europe/Berlin")
    if text.startswith("@every"):
        raise _wrong(text, "counts from whenever the controller started", "Name the times: '*/15 * * * *'")
    fields = NAMED.get(text, text).split()
    if len(fields) != len(_FIELDS):
        raise _miscounted(text, fields)
    minutes, hours, days, months, weekdays = (_values(text, f, said) for f, said in zip(_FIELDS, fields, strict=True))
    found = Expression(minutes, hours, days, months, weekdays, not (_any(fields[2]) or _any(fields[4])))
    if not any(found.on(date(2023, 1, 1) + timedelta(d)) for d in range(DAYS)):
        raise _wrong(text, "names a day that never comes")
    return found


def _values(text: str, field: _Field, said: str) -> frozenset[int]:
    return frozenset(value for item in said.split(",") for value in _range(text, field, item))


def _range(text: str, field: _Field, item: str) -> range:
    found = _ITEM.fullmatch(item)
    if not found:
        raise _wrong(text, f"has {item!r} as {field.name}")
    star, first, last, step = found.groups()
    low = field.low if star else _value(text, field, first)
    high = field.high if star or (step and not last) else _value(text, field, last or first)
    if low > high or (step and not int(step)):
        raise _wrong(text, f"has {item!r} as {field.name}, which is no value at all")
    return range(low, high + 1, int(step or 1))


def _value(text: str, field: _Field, word: str) -> int:
    if word.lower() in field.words:
        return field.words.index(word.lower()) + field.low
    if not word.isascii() or not word.isdigit() or not field.low <= int(word) <= field.high:
        hint = "Sunday is 0 or sun." if word == "7" and field.words else _EXAMPLE
        raise _wrong(text, f"has {word!r} as {field.name}, which goes from {field.low} to {field.high}", hint)
    return int(word)


def _any(field: str) -> bool:
    """Whether a field leaves the choice to another: a star does, one with a step of more than 1 does not."""
    return any(f and f[1] and int(f[4] or 1) == 1 for f in map(_ITEM.fullmatch, field.split(",")))


def _miscounted(text: str, fields: list[str]) -> UsageError:
    if text.startswith("@"):
        near = difflib.get_close_matches(text, NAMED, 1, 0.4)
        return _wrong(text, "is no name for a time", near[0] if near else "@daily")
    without_seconds = " ".join(fields[1:])
    return _wrong(
        text,
        f"has {len(fields)} fields",
        f"Without seconds: '{without_seconds}'" if len(fields) == len(_FIELDS) + 1 else _EXAMPLE,
    )


def _wrong(text: str, what: str, hint: str = _EXAMPLE) -> UsageError:
    return UsageError(f"the schedule {text!r} {what}", allowed=_ALLOWED, hint=hint, code="cron-invalid")


@dataclass(frozen=True)
class Cron:
    """When and how a schedule runs.

    Attributes:
        schedule: five fields of cron; empty where ``every`` says it.
        timezone: of the IANA database; UTC by default.
        concurrency: ``Forbid``, ``Allow`` or ``Replace`` a run that has not ended.
        catch_up: how many seconds late a missed run may still start.
        suspended: it does not run by itself.
        every: a run each so many seconds.
    """

    schedule: str
    timezone: str = "UTC"
    concurrency: str = "Forbid"
    catch_up: int = 600
    suspended: bool = False
    every: int = 0

    @property
    def said(self) -> str:
        """When it runs, in words."""
        return f"every {self.every} s" if self.every else f"{self.schedule} ({self.timezone})"


def next_moments(cron: Cron, now: datetime, count: int = 3) -> list[datetime]:
    """The moments at which a schedule runs next, in its own zone; none where it counts from whenever it began.

    Raises:
        UsageError: its expression or its zone cannot be read.
    """
    where = zone(cron.timezone)
    if cron.every:
        return []
    return [m.astimezone(where) for m in islice(moments(parse(cron.schedule), where, now), count)]


def zone(name: str, typed: str = "--timezone {}") -> ZoneInfo:
    """The time zone of this name.

    Args:
        name: of the zone.
        typed: how one is named where this one was.

    Raises:
        UsageError: the IANA database has none (code ``timezone-unknown``).
    """
    known = available_timezones() | {"UTC"}
    if name not in known:
        near = difflib.get_close_matches(name, sorted(known), 3)
        raise UsageError(
            f"there is no time zone {name!r}",
            allowed="A name of the IANA database, such as UTC or Europe/Berlin.",
            hint=" or ".join(map(typed.format, near or ["UTC"])),
            code="timezone-unknown",
        )
    return ZoneInfo(name)


def moments(expression: Expression, where: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Yield the moments that come after another, in UTC, until none comes for five years."""
    day, idle = after.astimezone(where).date(), 0
    while idle < DAYS:
        if expression.on(day):
            yield from (m for m in _of_day(expression, where, day) if m > after)
        idle = 0 if expression.on(day) else idle + 1
        day += timedelta(1)


def _of_day(expression: Expression, where: ZoneInfo, day: date) -> list[datetime]:
    """The moments of one day on the clocks of a zone: none for a time they leave out, two for one they repeat."""
    found = set()
    for hour in expression.hours:
        for minute in expression.minutes:
            for fold in (0, 1):
                local = datetime.combine(day, time(hour, minute, fold=fold), where)
                moment = local.astimezone(UTC)
                if moment.astimezone(where).replace(tzinfo=None) == local.replace(tzinfo=None, fold=0):
                    found.add(moment)
    return sorted(found)
