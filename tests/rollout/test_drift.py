"""Live rows held against a profile: what moved is named, what cannot be told is never health and never drift."""

import numpy as np
import pytest

from tidegate.data.profile import Bins, Number, Profile, number, quantile_bins, text
from tidegate.registry.gate import CANNOT_TELL, FAIL, PASS
from tidegate.rollout.drift import PREDICTIONS, Column, Rules, Window, drifted, look

RANDOM = np.random.default_rng(7)
AMOUNT = RANDOM.lognormal(3, 1, 20_000)
SCORE = RANDOM.beta(1, 20, 20_000)
CITY = RANDOM.choice(["rome", "oslo", "lima"], 20_000, p=[0.6, 0.3, 0.1])
PROFILE = Profile(20_000, quantile_bins(SCORE), columns={"amount": number(AMOUNT), "city": text(CITY)})


def window(amount: np.ndarray, score: np.ndarray, city: np.ndarray) -> Window:
    """What a server counts of these rows by the profile's bins."""
    numbers, texts = PROFILE.columns["amount"], PROFILE.columns["city"]
    finite = amount[np.isfinite(amount)]
    seen = {str(v): int((city == v).sum()) for v in texts.frequent}
    columns = {
        "amount": Column(numbers.bins.count(finite), len(amount) - len(finite)),
        "city": Column(texts.lengths.count([len(c) for c in city]), 0, seen),
    }
    return Window(len(score), PROFILE.prediction.count(score), columns)


def rows(n: int = 5000, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.choice(AMOUNT, n), random.choice(SCORE, n), random.choice(CITY, n)


@pytest.mark.parametrize("seed", range(20))
def test_other_rows_of_the_same_kind_have_not_drifted(seed: int) -> None:
    found = look(PROFILE, window(*rows(1000, seed)))
    assert {f.outcome for f in found.values()} == {PASS}
    assert set(found) == {PREDICTIONS, "amount", "city"}


def test_what_moved_is_named_and_the_rest_is_not() -> None:
    amount, score, city = rows()
    assert drifted(look(PROFILE, window(amount * 3, score, city))) == ["amount"]
    assert drifted(look(PROFILE, window(amount, score * 3, city))) == [PREDICTIONS]
    assert drifted(look(PROFILE, window(amount, score, np.where(city == "rome", "lima", city)))) == ["city"]
    assert drifted(look(PROFILE, window(amount, score, np.where(city == "rome", "a new city", city)))) == ["city"]


def test_values_that_go_missing_are_drift_though_the_others_are_as_before() -> None:
    amount, score, city = rows()
    amount[::10] = np.nan
    found = look(PROFILE, window(amount, score, city))
    assert drifted(found) == ["amount"]
    assert "+10.0% missing" in found["amount"].text


def test_a_column_of_which_nothing_came_is_drift_when_it_was_there_before() -> None:
    amount, score, city = rows()
    assert drifted(look(PROFILE, window(np.full_like(amount, np.nan), score, city))) == ["amount"]


def test_too_few_rows_cannot_be_told() -> None:
    found = look(PROFILE, window(*rows(999)))
    assert [f.outcome for f in found.values()] == [CANNOT_TELL]
    assert "1000 are needed" in found[PREDICTIONS].text


def test_counts_by_other_bins_and_columns_that_one_side_lacks_cannot_be_told() -> None:
    seen = window(*rows())
    odd = Window(seen.rows, seen.predictions[:-1], {"amount": seen.columns["amount"], "new": Column((1, 2))})
    assert {n: f.outcome for n, f in look(PROFILE, odd).items()} == {
        PREDICTIONS: CANNOT_TELL, "amount": PASS, "city": CANNOT_TELL, "new": CANNOT_TELL,
    }  # fmt: skip


def test_a_column_of_the_name_of_the_predictions_is_told_apart() -> None:
    bins = Bins((1.0,), (500, 500))
    profile = Profile(1000, bins, columns={PREDICTIONS: Number(0, 0.0, 2.0, 1.0, 1.0, bins)})
    found = look(profile, Window(1000, (500, 500), {PREDICTIONS: Column((1000, 0))}))
    assert drifted(found) == [f"{PREDICTIONS} (column)"]


def test_the_bound_is_the_rules() -> None:
    amount, score, city = rows()
    seen = window(amount * 1.2, score, city)
    index = dict(look(PROFILE, seen)["amount"].numbers)["psi"]
    assert look(PROFILE, seen, Rules(psi=index * 1.01))["amount"].outcome == PASS
    assert look(PROFILE, seen, Rules(psi=index * 0.99))["amount"].outcome == FAIL
