"""How often new data may start a run: at most so many a day, not too soon after the last, not within quiet hours.

These are limits of cost, told by the clock on the wall; that no work is done twice does not depend on them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, time
from zoneinfo import ZoneInfo

from tidegate.errors import UsageError
from tidegate.store.base import Store

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
class Retrain:
    """What limits how often runs start.

    Attributes:
        per_day: runs a day at most; 0: any number.
        gap: seconds between the starts of two runs at least.
        hours: when none starts; None: at any time.
        zone: of days and hours.
    """

    per_day: int = 0
    gap: float = 0.0
    hours: Hours | None = None
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))

    def refusal(self, now: float, last: float | None) -> str:
        """Why no run starts at this moment, empty where one may; ``last`` is when the last one started."""
        local = datetime.fromtimestamp(now, self.zone)
        if self.hours and self.hours.hold(local.time()):
            return f"quiet hours until {self.hours.end:%H:%M} {self.zone.key}"
        if last is not None and now - last < self.gap:
            return f"the last run started less than {self.gap:g} s ago"
        return ""

    def admits(self, store: Store, name: str, work: str, now: float) -> bool:
        """Take one of the day's places for a piece of work; the place that it has already is its own."""
        day = datetime.fromtimestamp(now, self.zone).date().isoformat()
        places = (f"triggers/{name}/days/{day}/{n:04d}" for n in range(self.per_day))
        return not self.per_day or any(store.put_new(place, work.encode()) for place in places)
