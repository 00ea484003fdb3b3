"""What fronts and servers count, made into counts since a step began: the one place where numbers are doubted.

Rules:

* Counters only grow while their *epoch* stays the same. Another epoch is another process, which began at 0; what it has
  counted so far is new. The epochs that are there at the very first reading were there before: they count from then on.
* A reading that is lower anywhere than the one before of its epoch came late: it is not looked at. The same reading
  twice adds nothing.
* A reading that is missing, of another length, or holds what is no whole number from 0 to 2^53 is not looked at; what it
  would have told is in the next good one. Nothing is estimated.
* Counts of a step begin where those of the step before end; what comes while the front has other weights is of none.
* Both arms fail where each fails at least ``BOTH`` of its requests, the canary at least ``BLOCK`` of them, since that was
  last asked: then the fault is not the candidate's alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import add, lt, sub
from typing import Any

from tidegate.rollout.router import ARMS, CANARY, LATENCY_EDGES, Observation, Tally

MOST = 2**53
BOTH, BLOCK = 0.5, 20
_EPOCHS = 64
_WIDTH = 3 + len(LATENCY_EDGES) + 1


@dataclass(frozen=True)
class Score:
    """The histogram of predictions that one server process counted since it started."""

    epoch: str
    counts: Sequence[int]


@dataclass(frozen=True)
class Meter:
    """A row of counters that several processes count in.

    Attributes:
        total: since the step began.
        last: the last good reading of each epoch, the oldest epoch first.
    """

    total: tuple[int, ...]
    last: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def after(self, epoch: str, values: Sequence[Any], *, is_first: bool = False) -> Meter:
        """Return the meter after one reading.

        Args:
            epoch: the process that counted.
            values: what it says.
            is_first: of all readings: what an unknown epoch counted until now is not of this step.
        """
        if not is_good(values, len(self.total)):
            return self
        before = self.last.get(epoch, tuple(values) if is_first else (0,) * len(self.total))
        if any(map(lt, values, before)):
            return self
        total = tuple(map(add, self.total, map(sub, values, before)))
        last = {**{k: v for k, v in self.last.items() if k != epoch}, epoch: tuple(values)}
        return Meter(total, dict(list(last.items())[-_EPOCHS:]))

    def restarted(self) -> Meter:
        """The same meter at the beginning of a step."""
        return replace(self, total=(0,) * len(self.total))


@dataclass(frozen=True)
class Counts:
    """Counts of every arm since a step began.

    Attributes:
        tallies: requests, errors, refusals and the histogram of latency, by arm, as the front counted them.
        scores: the histogram of predictions, by arm, as the servers counted them.
        asked: requests and errors of canary and control when both were last asked whether they fail.
        both_fail: whether they did.
        is_new: whether nothing was read yet.
    """

    tallies: Mapping[str, Meter]
    scores: Mapping[str, Meter]
    asked: tuple[int, int, int, int] = (0, 0, 0, 0)
    both_fail: bool = False
    is_new: bool = True

    def tally(self, arm: str) -> Tally:
        """The front's counts of an arm."""
        requests, errors, refused, *latency = self.tallies[arm].total
        return Tally(requests, errors, tuple(latency), refused)

    def predictions(self, arm: str) -> tuple[int, ...]:
        """The servers' counts of an arm."""
        return self.scores[arm].total


def begin(bins: Mapping[str, int]) -> Counts:
    """Return the counts of a rollout before anything was read.

    Args:
        bins: how many bins the predictions of each arm are counted in.
    """
    return Counts({a: Meter((0,) * _WIDTH) for a in ARMS}, {a: Meter((0,) * bins[a]) for a in ARMS})


def restarted(counts: Counts) -> Counts:
    """Return the counts at the beginning of a step."""
    tallies = {a: m.restarted() for a, m in counts.tallies.items()}
    scores = {a: m.restarted() for a, m in counts.scores.items()}
    return replace(counts, tallies=tallies, scores=scores, asked=(0, 0, 0, 0), both_fail=False)


def after(
    counts: Counts, observation: Observation | None, scores: Mapping[str, Iterable[Score]], control: str
) -> Counts:
    """Return the counts after another look.

    Args:
        counts: before.
        observation: what the front says; None where it could not be seen.
        scores: what each arm's servers say, as far as they answered.
        control: the arm that the canary is compared with.
    """
    tallies, new = dict(counts.tallies), counts.is_new
    for arm, tally in (observation.arms if observation else {}).items():
        if arm in tallies and observation:
            row = (tally.requests, tally.errors, tally.refused, *tally.latency)
            tallies[arm] = tallies[arm].after(observation.epoch, row, is_first=new)
    meters = dict(counts.scores)
    for arm, said in scores.items():
        for score in said:
            if arm in meters:
                meters[arm] = meters[arm].after(score.epoch, score.counts, is_first=new)
    is_new = new and observation is None
    return _asked(replace(counts, tallies=tallies, scores=meters, is_new=is_new), control)


def unchanged(before: Counts, after: Counts) -> Counts:
    """Return the counts as they were, but where the readings end: what came under other weights is of no step."""
    tallies = {a: replace(m, total=before.tallies[a].total) for a, m in after.tallies.items()}
    scores = {a: replace(m, total=before.scores[a].total) for a, m in after.scores.items()}
    return replace(before, tallies=tallies, scores=scores, is_new=after.is_new)


def _asked(counts: Counts, control: str) -> Counts:
    arms = counts.tally(CANARY), counts.tally(control)
    now = (arms[0].requests, arms[0].errors, arms[1].requests, arms[1].errors)
    requests, errors, others, their_errors = (n - b for n, b in zip(now, counts.asked, strict=True))
    if requests < BLOCK or others < BLOCK:
        return counts
    fail = errors >= BOTH * requests and their_errors >= BOTH * others
    return replace(counts, asked=now, both_fail=fail)


def is_good(values: Any, width: int) -> bool:
    """Whether a row of counters can be one."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes) or len(values) != width:
        return False
    return not values or ({*map(type, values)} == {int} and min(values) >= 0 and max(values) <= MOST)
