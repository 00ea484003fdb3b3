"""Wealth: a stake that a true hypothesis lets grow to 1/alpha with probability alpha at most, however it is begun."""

import math

import numpy as np
import pytest

from conftest import LONG
from tidegate.rollout import bets, wealth

EVEN = np.ones(len(bets.RATIOS))


def expectation(gains: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Of the factor of one event, which is of each kind with its chance; what is left changes nothing."""
    return np.exp(gains) @ chances + (1 - chances.sum())


@pytest.mark.parametrize("odds", [0.05, 1.0, 3.0])
@pytest.mark.parametrize("rate", [0.0001, 0.01, 0.6])
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.25])
def test_no_bet_on_a_ratio_is_in_favour_while_the_rate_is_tolerated(odds: float, rate: float, factor: float) -> None:
    canary = odds / (1 + odds)
    chances = np.array([canary * rate * factor, (1 - canary) * rate])
    assert (expectation(bets.ratio(odds, 0.25), chances) <= 1 + 1e-12).all()


@pytest.mark.parametrize("odds", [0.05, 1.0, 3.0])
@pytest.mark.parametrize("margin", [0.001, 0.005, 0.2])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.5])
def test_no_bet_on_a_difference_is_in_favour_while_the_canary_is_worse_by_the_margin(
    odds: float, margin: float, rate: float
) -> None:
    canary = odds / (1 + odds)
    for worse in (margin, margin + 0.1):
        bad = rate + worse
        chances = np.array([canary * (1 - bad), canary * bad, (1 - canary) * rate])
        said = np.exp(bets.difference(odds, margin)) @ chances + (1 - canary) * (1 - rate)
        assert (said <= 1 + 1e-12).all()


def test_no_bet_against_a_fixed_rate_is_in_favour_while_it_is_kept() -> None:
    for rate in (0.0, 0.003, 0.005):
        assert (np.exp(bets.reference(0.005)) @ np.array([1 - rate, rate]) <= 1 + 1e-12).all()


@pytest.mark.parametrize("odds", [0.05, 1.0])
def test_no_bet_on_shares_is_in_favour_while_each_share_is_tolerated(odds: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        table = rng.dirichlet(np.full(6, 0.3), 4)
        control = rng.dirichlet(np.ones(4))
        expected, tolerance = control @ table, rng.uniform(0, 0.5, 6)
        gains, _ = bets.shares(odds, table, rng.dirichlet(np.ones(6)), tolerance)
        corner = rng.choice([-1.0, 0.0, 1.0], 6)  # as much, or as little, as is tolerated
        mine = expected * (1 + tolerance) ** corner
        canary = odds / (1 + odds)
        chances = np.concatenate([canary * mine, (1 - canary) * control])
        assert (np.exp(gains) @ chances <= chances.sum() + 1e-9).all()


@pytest.mark.parametrize("odds", [0.05, 1.0])
@pytest.mark.parametrize("tolerance", [0.0, 0.25, 1.5])
def test_no_bet_on_slower_answers_is_in_favour_while_they_are_slower_by_no_more_bins_than_tolerated(
    odds: float, tolerance: float
) -> None:
    rng, canary = np.random.default_rng(5), odds / (1 + odds)
    for _ in range(50):
        control = rng.dirichlet(np.ones(8))
        gains = bets.slower(odds, tolerance, rng.dirichlet(np.ones(8)))
        for by, is_fair in ((tolerance, True), (tolerance / 2, True), (tolerance + 1, False)):
            chances = np.concatenate([canary * _later(control, by), (1 - canary) * control])
            assert (np.exp(gains) @ chances <= chances.sum() + 1e-9).all() == is_fair


def _later(shares: np.ndarray, by: float) -> np.ndarray:
    """The shares of bins after answers moved up by so many of them, those of the last but staying there."""
    moved = np.zeros(len(shares))
    for far, part in ((int(by), 1 - by % 1), (int(by) + 1, by % 1)):
        np.add.at(moved, np.minimum(np.arange(len(shares)) + far, len(shares) - 1), part * shares)
    return moved


def test_what_is_placed_and_what_is_kept_add_up_to_the_stake() -> None:
    made = wealth.begin(bets.ratio(1.0, 0.25), EVEN, horizon=600)
    for second in range(1, 3000):
        made = wealth.after(made, np.zeros(2), float(second))
        assert float(np.exp(made.log)) == pytest.approx(1)
        assert len(made.stakes) <= 32
    assert 0 < float(made.kept) < 1


def test_beginning_again_late_or_at_every_look_spends_the_same() -> None:
    made, seldom = (wealth.begin(bets.ratio(1.0, 0.25), EVEN, horizon=600) for _ in range(2))
    for second in range(1, 401):
        made = wealth.after(made, np.zeros(2), float(second))
    seldom = wealth.after(seldom, np.zeros(2), 400.0)
    placed = [w.stakes.sum() + float(w.kept) for w in (made, seldom)]
    assert placed == pytest.approx([1, 1])


def test_a_fault_after_an_hour_of_health_is_found_as_if_the_hour_had_not_been() -> None:
    def seconds_to_find(healthy: int, *, again: bool) -> int:
        made = wealth.begin(bets.ratio(1.0, 0.25), EVEN, horizon=3600 if again else 0)
        for second in range(1, healthy + 1):
            made = wealth.after(made, np.array([5.0, 5.0]), float(second))
        for second in range(1, 600):
            made = wealth.after(made, np.array([15.0, 5.0]), float(healthy + second))
            if made.log >= math.log(2500):
                return second
        return 600

    assert seconds_to_find(3600, again=True) <= seconds_to_find(0, again=True) + 8
    assert seconds_to_find(3600, again=False) == 600


def test_one_look_adds_no_more_than_its_limit() -> None:
    made = wealth.begin(bets.ratio(1.0, 0.25), EVEN, cap=1.0)
    for look in range(1, 5):
        made = wealth.after(made, np.array([1000.0, 0.0]), 0.1 * look)
        assert made.log == pytest.approx(look)


def test_a_wealth_beyond_all_numbers_is_still_one() -> None:
    made = wealth.begin(bets.ratio(0.05, 0.25), EVEN, horizon=60)
    for second in range(1, 200):
        made = wealth.after(made, np.array([1e6, 0.0]), float(second))
    assert made.log > 500
    ruined = wealth.after(wealth.begin(bets.ratio(0.05, 0.25), EVEN), np.array([0.0, 1e9]), 1.0)
    assert ruined.log < -500


@pytest.mark.parametrize("cap", [math.inf, 1.0])
def test_false_alarms_are_no_more_than_alpha_at_the_edge_of_what_is_tolerated(cap: float) -> None:
    """The hypothesis at its worst, 25 % more events than the control, begun again all the time, looked at each second."""
    many, seconds = (20_000, 3600) if LONG else (1000, 200)
    rng = np.random.default_rng(11)
    made = wealth.spread(wealth.begin(bets.ratio(1.0, 0.25), EVEN, horizon=seconds, cap=cap), (many,))
    top = np.zeros(many)
    for second in range(1, seconds + 1):
        made = wealth.after(made, rng.poisson((2.5, 2.0), (many, 2)), float(second))
        top = np.maximum(top, made.log)
    for alpha in (0.01, 0.05, 0.2):
        spare = 3 * math.sqrt(alpha * (1 - alpha) / many)
        assert (top >= -math.log(alpha)).mean() <= alpha + spare
