"""Wealth: bets against a hypothesis, begun again and again, so that a late fault is found as soon as an early one.

A *bet* multiplies its stake at each event by a factor whose expectation is at most 1 while the hypothesis is true; the
logarithm of what it made is a sum over counts. A mixture of bets is a bet (a mixture likelihood ratio: Lindon & Malek
2022; Howard et al. 2021). By Ville's inequality a stake of 1 ever grows to 1/alpha with probability alpha at most: we
may look at it whenever we like.

A bet that lost for an hour has to win all of it back before it sees a fault. So only ``FIRST`` of the stake is placed at
the beginning; the rest is placed little by little, every ``every`` seconds, on the same bets begun afresh, as shares that
are fixed beforehand and add up to 1. What is not placed yet is kept and counts as it is; so does what was taken back
from bets that are closed. The sum is a mixture over the moment of the change, hence still an e-process (an e-detector
whose false alarms are bounded over all time; Shin, Ramdas & Rinaldo 2022 restart without shares and bound their rate).

Which bets are open follows the binary digits of the moment they began: the ``i``-th is closed after ``4 * 2**v`` moments,
where ``2**v`` divides ``i``. At each moment two or so of each age of 1, 2, 4, 8 … are open, 24 at most in an hour and
26 in two; one that began shortly after the fault is always among them.

All arrays may have leading axes: many rollouts are simulated at once by the same code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

FIRST = 0.75
MOMENTS = 3600
_LIFE = 4


@dataclass(frozen=True, eq=False)
class Wealth:
    """A stake of 1 and what became of it.

    Attributes:
        gains: log factor of bet ``m`` at one event of kind ``d``, ``[m, d]``.
        prior: the share of each bet, ``[m]``, adding up to 1.
        horizon: how many moments, ``every`` seconds apart, are the first in which half of the rest is placed; with 0
            the whole stake is placed at once.
        every: seconds from one moment to the next.
        cap: the most that the logarithm of a bet may grow at one look.
        sums: the logarithm of what each bet would have made since the step began, ``[..., m]``.
        starts: ``sums`` when each open bet began, ``[open, ..., m]``.
        stakes: what was placed on each of them, ``[open]``.
        closing: the moment at which each is closed, ``[open]``.
        kept: what is not placed, or was taken back, ``[...]``.
        moment: the last one at which a bet began.
    """

    gains: np.ndarray
    prior: np.ndarray
    horizon: int
    every: float
    cap: float
    sums: np.ndarray
    starts: np.ndarray
    stakes: np.ndarray
    closing: np.ndarray
    kept: np.ndarray
    moment: int = 0

    @property
    def log(self) -> np.ndarray:
        """The natural logarithm of the wealth, ``[...]``."""
        return _log(self.kept + np.tensordot(self.stakes, _made(self), axes=(0, 0)))


def begin(
    gains: np.ndarray, prior: np.ndarray, horizon: float = 0.0, cap: float = math.inf, many: tuple[int, ...] = ()
) -> Wealth:
    """Place the first stake.

    Args:
        gains: see ``Wealth``.
        prior: see ``Wealth``.
        horizon: seconds in which a fault should be found as easily as in any other; 0 for a stake placed at once.
        cap: see ``Wealth``.
        many: leading axes.
    """
    sums = np.zeros((*many, len(prior)))
    first = FIRST if horizon else 1.0
    every = max(1.0, horizon / MOMENTS)
    return Wealth(
        gains, prior / prior.sum(), math.ceil(horizon / every), every, cap, sums, sums[None], np.array([first]),
        np.array([math.inf]), np.full(many, 1.0 - first),
    )  # fmt: skip


def spread(wealth: Wealth, many: tuple[int, ...]) -> Wealth:
    """Return the wealth of many rollouts before any of them saw an event."""
    sums = np.zeros((*many, len(wealth.prior)))
    return replace(wealth, sums=sums, starts=sums[None], kept=np.full(many, float(wealth.kept)))


def after(wealth: Wealth, events: np.ndarray, seconds: float) -> Wealth:
    """Return the wealth after more events.

    Args:
        wealth: before.
        events: how many of each kind since the look before, ``[..., d]``.
        seconds: since the step began, at the end of these events.
    """
    grown = np.minimum(events @ wealth.gains.T, wealth.cap)
    return _begun_afresh(replace(wealth, sums=wealth.sums + grown), seconds)


def _begun_afresh(wealth: Wealth, seconds: float) -> Wealth:
    """Close what has had its time, and begin again if a moment has come since the last look."""
    moment = int(seconds / wealth.every) if wealth.horizon else 0
    if moment <= wealth.moment:
        return wealth
    over = wealth.closing <= moment
    back = np.tensordot(wealth.stakes[over], _made(wealth)[over], axes=(0, 0)) if over.any() else 0.0
    stake = sum(_share(i, wealth.horizon) for i in range(wealth.moment + 1, moment + 1))
    zeros = max((i & -i).bit_length() - 1 for i in range(wealth.moment + 1, moment + 1))
    return replace(
        wealth,
        starts=np.concatenate([wealth.starts[~over], wealth.sums[None]]),
        stakes=np.append(wealth.stakes[~over], stake),
        closing=np.append(wealth.closing[~over], moment + _LIFE * 2**zeros),
        kept=wealth.kept + back - stake,
        moment=moment,
    )


def _share(moment: int, horizon: int) -> float:
    """The share of the stake for one moment: half of the rest in the first horizon, a sixth in the second, and so on."""
    block = (moment - 1) // horizon + 1
    return (1 - FIRST) / (block * (block + 1)) / horizon


def _made(wealth: Wealth) -> np.ndarray:
    """What a stake of 1 on each open bet is worth, ``[open, ...]``."""
    grown = np.minimum(wealth.sums - wealth.starts, 600.0)  # e**600 is more than any threshold, and still a number
    return np.asarray(np.exp(grown) @ wealth.prior)


def _log(value: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.maximum(value, 1e-300)))
