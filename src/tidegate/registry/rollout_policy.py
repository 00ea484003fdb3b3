"""The table ``[rollout]`` of a policy.toml: how a version gets live traffic, and when it is taken back.

::

    [rollout]
    steps = [5, 25, 50, 100]      # % of live traffic, each more than the one before; [100] alone is blue/green
    alpha = 0.01                  # of the whole rollout: how often an equal version may be rolled back
    max_error_increase = 0.005    # promoted only when its error rate is shown to be no more than this above the other's,
                                  # and its share of 4xx no more than twice this
    error_tolerance = 0.25        # rolled back when its error rate, or share of 4xx, is shown to be over 25 % above the other's
    latency_tolerance = 0.25      # the same for the share of requests slower than the other's 95th percentile
    prediction_tolerance = 0.25   # the same for each bin of the predictions, against what the gate saw
    min_requests = 500            # a step ends well on no fewer requests of the candidate
    min_time = "10s"              # and in no less time
    deadline = "1h"               # of each step
    on_deadline = "rollback"      # or "hold": the weights stay, a person decides; neither promotes
    ready_within = "5m"           # its servers must answer by then
    rollback_window = "1h"        # after the promotion the version before stays warm, and is judged against
    holdback = 5                  # % that stay with it meanwhile, and in a step of 100 %
    shadow = "0s"                 # copies of requests first, whose answers nobody sees; needs a front that can mirror
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tidegate.errors import PolicyError

ROLLBACK, HOLD = "rollback", "hold"
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST = 30 * 86400.0


@dataclass(frozen=True)
class RolloutPolicy:
    """A checked table; shares in parts of 10,000, times in seconds."""

    steps: tuple[int, ...] = (500, 2500, 5000, 10_000)
    alpha: float = 0.01
    max_error_increase: float = 0.005
    error_tolerance: float = 0.25
    latency_tolerance: float = 0.25
    prediction_tolerance: float = 0.25
    min_requests: int = 500
    min_time: float = 10.0
    deadline: float = 3600.0
    on_deadline: str = ROLLBACK
    ready_within: float = 300.0
    rollback_window: float = 3600.0
    holdback: int = 500
    shadow: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The table as a policy's canonical JSON has it."""
        body = {k: v for k, v in asdict(self).items() if k not in _SPANS}
        shares = {"steps": [s / 100 for s in self.steps], "holdback": self.holdback / 100}
        return {**body, **shares, **{k: f"{getattr(self, k):.3f}s" for k in _SPANS}}


_SPANS = {  # least and most seconds
    "min_time": (0.0, LONGEST),
    "deadline": (1.0, LONGEST),
    "ready_within": (1.0, 86400.0),
    "rollback_window": (0.0, LONGEST),
    "shadow": (0.0, LONGEST),
}
_NUMBERS = {  # least and most, both allowed
    "alpha": (1e-6, 0.2),
    "max_error_increase": (1e-6, 0.5),
    "error_tolerance": (0.0, 10.0),
    "latency_tolerance": (0.0, 10.0),
    "prediction_tolerance": (0.0, 10.0),
}
KEYS = {"steps", "min_requests", "on_deadline", "holdback", *_SPANS, *_NUMBERS}


def read(body: Mapping[str, Any], where: str) -> RolloutPolicy:
    """Check the values of a table whose keys are known.

    Raises:
        PolicyError: a value is not what it may be.
    """
    said: dict[str, Any] = {k: _between(body[k], *_NUMBERS[k], f"{where}: {k}") for k in _NUMBERS if k in body}
    said |= {k: span(body[k], *_SPANS[k], f"{where}: {k}") for k in _SPANS if k in body}
    if "steps" in body:
        said["steps"] = shares(body["steps"], f"{where}: steps")
    if "min_requests" in body:
        said["min_requests"] = _count(body["min_requests"], f"{where}: min_requests")
    if "holdback" in body:
        said["holdback"] = round(100 * _between(body["holdback"], 1, 20, f"{where}: holdback"))
    if "on_deadline" in body:
        said["on_deadline"] = _one_of(body["on_deadline"], (ROLLBACK, HOLD), f"{where}: on_deadline")
    made = RolloutPolicy(**said)
    if "min_time" in body and made.min_time > made.deadline:
        raise PolicyError(
            f"{where}: min_time is {body['min_time']!r}, longer than the deadline of a step ({made.deadline:g}s)",
            allowed="A least time within the deadline.",
        )
    return made


def shares(value: Any, where: str) -> tuple[int, ...]:
    """Return percentages as parts of 10,000.

    Raises:
        PolicyError: they are none, or do not grow.
    """
    allowed = "Percentages from 0.1 to 100, each more than the one before, 20 at most, such as [5, 25, 50, 100]."
    if not isinstance(value, list) or not 1 <= len(value) <= 20 or not all(_is_number(v) for v in value):
        raise PolicyError(f"{where} is {value!r}", allowed=allowed)
    parts = tuple(round(100 * v) if abs(v) <= 100 else 0 for v in value)
    if any(not 10 <= p <= 10_000 for p in parts) or list(parts) != sorted(set(parts)):
        raise PolicyError(f"{where} is {value!r}", allowed=allowed)
    return parts


def span(value: Any, least: float, most: float, where: str) -> float:
    """Return a text such as ``90s`` or ``1h`` in seconds.

    Raises:
        PolicyError: it is none, or out of range.
    """
    found = _SPAN.fullmatch(value) if isinstance(value, str) and len(value) < 20 else None
    seconds = float(found[1]) * _SECONDS[found[2]] if found else -1.0
    if not least <= seconds <= most:
        allowed = f'A time from {least:g}s to {most / 86400:g}d, such as "90s", "15m", "1h" or "2d".'
        raise PolicyError(f"{where} is {value!r}", allowed=allowed)
    return seconds


def _between(value: Any, least: float, most: float, where: str) -> float:
    if not _is_number(value) or not least <= value <= most:
        raise PolicyError(f"{where} is {value!r}", allowed=f"A number from {least:g} to {most:g}.")
    return float(value)


def _count(value: Any, where: str) -> int:
    if type(value) is not int or not 1 <= value <= 10**9:
        raise PolicyError(f"{where} is {value!r}", allowed="A whole number from 1 to 1,000,000,000.")
    return value


def _one_of(value: Any, allowed: tuple[str, ...], where: str) -> str:
    if value not in allowed:
        raise PolicyError(f"{where} is {value!r}", allowed=" or ".join(map(repr, allowed)) + ".")
    return str(value)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and value == value
