"""Bounds on how much higher a rate of the canary is than its control's, valid at every moment."""

from __future__ import annotations

import numpy as np

from tidegate.rollout import bets


def upper_bound(odds: float, counts: np.ndarray, threshold: float, of: tuple[float, ...] = bets.STAKES) -> float:
    """Return the anytime-valid upper bound of (canary's rate - control's), to 1 % of it.

    Args:
        odds: the canary's weight by the control's.
        counts: canary's requests without the event and with it, the control's with it.
        threshold: of the logarithm of the wealth.
        of: the stakes.
    """
    low, high = 1e-5, 1.0
    for _ in range(2):
        tried = np.geomspace(low, high, 40)
        passed = log_wealth(odds, tried, counts, of) >= threshold
        if not passed.any():
            return 1.0
        at = int(np.argmax(passed))
        low, high = float(tried[max(at - 1, 0)]), float(tried[at])
    return high


def log_wealth(odds: float, above: np.ndarray, counts: np.ndarray, of: tuple[float, ...] = bets.STAKES) -> np.ndarray:
    """Return the logarithm of the wealth of bets that the canary's rate is less than each margin above the control's.

    Args:
        odds: see ``upper_bound``.
        above: the margins, ``[k]``.
        counts: see ``upper_bound``.
        of: the stakes.

    Returns:
        ``[k]``.
    """
    gains = np.maximum(bets.difference(odds, above, of), -1e9)  # a stake that one event takes whole stays a number
    sums = gains @ counts
    top = sums.max(1)
    return np.asarray(top + np.log(np.exp(sums - top[:, None]).mean(1)))
