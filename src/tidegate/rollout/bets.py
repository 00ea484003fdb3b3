"""Bets of the judge: factors of single events whose expectation is at most 1 while a hypothesis is true.

Requests are shared at random: one that comes to canary or control comes to the canary with odds ``c``, the ratio of
their weights. If an event ``a`` has the rate ``y_a`` in the canary and ``e_a`` in the control, and the factors are
``1 + u_a`` for the canary's event and ``1 - c * v_a`` for the control's, the expectation of the factor of one request is
``1 + P(canary) * sum(y_a * u_a - e_a * v_a)``. The control's own rates need not be known, may change, and cost no
estimate.

* *Ratio*: the hypothesis is ``y <= (1 + t) * e``; with ``v = (1 + t) * u`` the expectation is at most 1.
* *Difference*: the hypothesis is ``y >= e + d``; factors ``1 + s * (d - X)`` for a canary's request with ``X`` events
  and ``1 + c * s`` for the control's event.
* *Shares*: the hypothesis is that each of the canary's shares is within its tolerance of what the table makes of the
  control's shares: the event of a control's request in bin ``b`` is ``sum_a T[b, a] * v_a``.
* *Slower*: the hypothesis is that the canary's answers are no slower than the control's would be with a share ``t`` of
  each bin moved to the next (``T``). Then no score that grows with the bin has a mean above ``sum_b e_b * (T @ score)_b``.
  The score is the control's mid-rank (Mann & Whitney 1947). This is of answers, not of requests: it is fair while both
  arms answer as many of theirs.
* *Reference*: without a control, the hypothesis is ``y <= q``; ``1 + s * (X - q)``.

The best factors against rates that are ``r`` times the tolerated ones are ``1 + u = r * (1 + k) / (1 + k * r)`` with
``k = c * (1 + t)``: those of the likelihood ratio of the label "canary or control" of an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

RATIOS = (1.3, 1.7, 2.5, 4.0, 8.0, 20.0, 100.0, 1000.0)
STAKES = (0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 0.95, 1.0)
FINE = (0.001, 0.003, *STAKES)
BIN_RATIOS = (1.7, 6.0, 0.5)
SHIFTS = (0.2, 0.4, 0.8, 1.6)
RANKS = (0.1, 0.2, 0.4, 0.8)
_NORMAL = NormalDist()


def ratio(odds: float, tolerance: float, most: float = RATIOS[-1]) -> np.ndarray:
    """Return the gains of bets that the canary's rate is above the control's by more than the tolerance.

    Args:
        odds: the ratio of weights.
        tolerance: relative.
        most: how many times the tolerated rate the canary's may be.

    Returns:
        ``[m, 2]``: at an event of the canary, at one of the control.
    """
    r, k = np.array([r for r in RATIOS if r <= most]), odds * (1 + tolerance)
    return np.stack([np.log(r * (1 + k) / (1 + k * r)), np.log((1 + k) / (1 + k * r))], axis=1)


def difference(odds: float, margin: float | np.ndarray, stakes: Sequence[float] = STAKES) -> np.ndarray:
    """Return the gains of bets that the canary's rate is less than ``margin`` above the control's.

    Returns:
        ``[..., m, 3]``: at a canary's request without the event, at one with it, at an event of the control; the leading
        axes are those of ``margin``.
    """
    s, d = np.array(stakes), np.asarray(margin)[..., None]
    return np.stack(np.broadcast_arrays(np.log1p(s * d), np.log1p(s * (d - 1)), np.log1p(s * odds)), axis=-1)


def slower(odds: float, tolerance: float, control: np.ndarray) -> np.ndarray:
    """Return the gains of bets that the canary is slower than the control by more than the tolerance.

    Args:
        odds: the ratio of weights; 1 at most.
        tolerance: by how many bins an answer may be slower; of 0.25, a quarter of the answers by one.
        control: ``[B]``, how many of its answers were in each bin before the bets begin; it decides which bets are
            good, not whether they are fair.

    Returns:
        ``[m, 2 B]``: at an answer of the canary in each bin, at one of the control.
    """
    rank = (np.cumsum(control) - control / 2) / control.sum() - 0.5
    moved = np.interp(np.arange(len(rank)) + tolerance, np.arange(len(rank)), rank)
    s = np.array(RANKS)[:, None]
    return np.concatenate([np.log1p(s * rank), np.log1p(-odds * s * moved)], axis=1)


def reference(rate: float) -> np.ndarray:
    """Return the gains of bets that the canary's rate is above a fixed one.

    Returns:
        ``[m, 2]``: at a canary's request without the event, at one with it.
    """
    above = rate + (1 - rate) * np.geomspace(0.002, 0.99, 12)
    return np.stack([np.log((1 - above) / (1 - rate)), np.log(above / rate)], axis=1)


def shares(
    odds: float, table: np.ndarray, expected: np.ndarray, tolerance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return gains and prior of bets that the canary's shares are not those expected.

    Args:
        odds: the ratio of weights.
        table: ``[B, K]``, the share of each of the canary's bins among rows in each of the control's.
        expected: ``[K]``, about the shares the canary will have; it decides which bets are good, not whether they are
            fair.
        tolerance: ``[K]``, relative.

    Returns:
        ``[m, K + B]``: at a row in each of the canary's bins, in each of the control's; and ``[m]``.
    """
    wanted = np.concatenate([_single(len(expected)), _shifted(expected)])
    up, down = wanted > 1, wanted < 1
    excess = np.where(up, wanted / (1 + tolerance), np.where(down, wanted * (1 + tolerance), 1.0))
    excess = np.where((up & (excess < 1)) | (down & (excess > 1)), 1.0, excess)
    # the single bins name the excess itself
    singles = len(_single(len(expected)))
    excess[:singles] = wanted[:singles]
    room = np.where(excess > 1, 1 + tolerance, 1 / (1 + tolerance))
    k = odds * room
    u = excess * (1 + k) / (1 + k * excess) - 1
    gains = np.concatenate([np.log1p(u), np.log1p(-odds * (u * room) @ table.T)], axis=1)
    prior = np.concatenate(
        [np.full(singles, 0.5 / singles), np.full(len(wanted) - singles, 0.5 / (len(wanted) - singles))]
    )
    useful = (np.abs(u) > 1e-9).any(axis=1)
    return gains[useful], prior[useful]


def _single(bins: int) -> np.ndarray:
    """One bin has more or less than it should."""
    return np.concatenate([1 + (r - 1) * np.eye(bins) for r in BIN_RATIOS])


def _shifted(expected: np.ndarray) -> np.ndarray:
    """All scores are shifted: by how much the shares of ordered bins change, were the score normal."""
    return np.array([_shift(expected, s) for shift in SHIFTS for s in (shift, -shift)])


def _shift(expected: np.ndarray, shift: float) -> list[float]:
    below = np.clip(np.cumsum(expected)[:-1], 1e-9, 1 - 1e-9)
    moved = [_NORMAL.cdf(_NORMAL.inv_cdf(float(p)) - shift) for p in below]
    found = np.diff([0.0, *moved, 1.0])
    return [float(a / b) if b > 0 else 1.0 for a, b in zip(found, expected, strict=True)]


def smoothed(table: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the table as shares of its rows, one more row spread like all of them added to each."""
    counts = np.array(table, dtype=float)
    whole = (counts.sum(0) + 0.5) / (counts.sum() + 0.5 * counts.shape[1])
    return np.asarray((counts + whole) / (counts.sum(1, keepdims=True) + 1))


def uncertainty(table: Sequence[Sequence[int]], alpha: float) -> np.ndarray:
    """Return by how much, relative, the shares that follow from a table may be wrong because its rows are finite.

    The standard error of each expected share at the control's shares on the table's own rows, times the normal quantile
    that leaves ``alpha`` for all bins and both directions together.
    """
    counts = np.array(table, dtype=float)
    shares_, rows = smoothed(table), counts.sum(1)
    weight = (rows + 1) / (rows + 1).sum()
    expected = weight @ shares_
    variance = (weight**2 / (rows + 1)) @ (shares_ * (1 - shares_))
    z = _NORMAL.inv_cdf(1 - min(0.5, alpha / (2 * len(expected))))
    return np.asarray(z * np.sqrt(variance) / expected)
