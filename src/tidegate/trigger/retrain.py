"""How often new data may start a run: at most so many a day, not too soon after the last, not within quiet hours.

These are limits of cost, told by the clock on the wall of a zone; that no work is done twice does not depend on them.
What that clock leaves out in spring is no quiet hour, and what it shows twice in autumn is one twice. Each limit has a
code of its own, so that the history tells when one takes the place of another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from tidegate.errors import UsageError
from tidegate.store.base import Store

QUIET_HOURS, GAP, PER_DAY = "quiet-hours", "gap", "runs-per-day"
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True)
class Hours:
    """A part of each day, its beginning within it and its end not; it may go over midnight."""

    start: time
    end: time

    def hold(self, at: time) -> bool:
        """Whether a time is within them."""
        if self.start <= self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end


def parse_hours(text: str) -> Hours:
    """Read ``HH:MM-HH:MM``.

    Raises:
        UsageError: it is something else (code ``hours-invalid``).
    """
    found = _HOURS.fullmatch(text)
    if not found or text[:5] == text[6:]:
        raise UsageError(f"{text!r} are no hours", allowed="HH:MM-HH:MM, such as 22:00-06:00.", code="hours-invalid")
    a, b, c, d = map(int, found.groups())
    return Hours(time(a, b), time(c, d))


@dataclass(frozen=True)
class Refusal:
    """Why no run starts: a code, the same for people, and after how many seconds it is worth asking again."""

    code: str
    detail: str
    again: float


@dataclass(frozen=True)
class Retrain:
    """What limits how often runs start.

    Attributes:
        per_day: runs a day at most; 0: any number.
        gap: seconds between the starts of two runs at least.
        debounce: seconds for which nothing newer must have come, whole or not.
        hours: when none starts; None: at any time.
        zone: of days and hours.
    """

    per_day: int = 0
    gap: float = 0.0
    debounce: float = 0.0
    hours: Hours | None = None
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))

    def refusal(self, now: float, last: float | None) -> Refusal | None:
        """Why no run starts at this moment, None where one may; ``last`` is when the last one started."""
        local = datetime.fromtimestamp(now, self.zone)
        if self.hours and self.hours.hold(local.time()):
            end = self.hours.end
            return Refusal(QUIET_HOURS, f"quiet hours until {end:%H:%M} {self.zone.key}", seconds_until(end, local))
        if last is not None and now - last < self.gap:
            return Refusal(GAP, f"the last run started less than {self.gap:g} s ago", last + self.gap - now)
        return None

    def place(self, store: Store, name: str, work: str, now: float) -> Refusal | None:
        """Take one of the day's places for a piece of work, None; the place that it has already is its own."""
        local = datetime.fromtimestamp(now, self.zone)
        places = (f"triggers/{name}/days/{local:%Y-%m-%d}/{n:04d}" for n in range(self.per_day))
        if not self.per_day or any(store.put_new(place, work.encode()) for place in places):
            return None
        said = f"{self.per_day} runs have started on {local:%Y-%m-%d} ({self.zone.key})"
        return Refusal(PER_DAY, said, seconds_until(time(0), local))


def seconds_until(at: time, local: datetime) -> float:
    """Seconds until the clock shows ``at`` next, the later moment where its hour is repeated or left out that day."""
    day = local.date() + timedelta(days=local.time() >= at)
    moments = (datetime.combine(day, at.replace(fold=fold), local.tzinfo) for fold in (0, 1))
    return max(m.timestamp() for m in moments) - local.timestamp()
