"""The gate: only evidence that says yes is a yes."""

from __future__ import annotations

import json
from fractions import Fraction
from math import comb, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.registry.made import DIGEST, OTHER, comparison, evaluation, policy, predictions
from tidegate.errors import NotFound, UsageError
from tidegate.registry import gate
from tidegate.registry.evaluation import Evaluation, parse
from tidegate.registry.policy import Better, Policy, Rule


def found(**changes: Any) -> Evaluation:
    return parse(json.dumps(evaluation(**changes)).encode())


def test_a_metric_over_its_bound_passes_with_its_numbers() -> None:
    verdict = gate.judge(policy(), found(), DIGEST)
    assert verdict.passed
    assert verdict.reason == "accuracy 0.97 is above 0.95"


@pytest.mark.parametrize(
    ("metrics", "outcome"),
    [
        ({"accuracy": 0.95}, "fail"),
        ({"accuracy": "NaN"}, "cannot-tell"),
        ({"accuracy": "Infinity"}, "cannot-tell"),
        ({"accuracy": "-Infinity"}, "cannot-tell"),
        ({"acuracy": 0.99}, "cannot-tell"),
        ({}, "cannot-tell"),
    ],
)
def test_a_metric_that_is_low_missing_or_no_number_is_a_no(metrics: dict[str, Any], outcome: str) -> None:
    verdict = gate.judge(policy(), found(metrics=metrics), DIGEST)
    assert verdict.outcome == outcome
    assert not verdict.passed


def test_an_evaluation_of_another_model_or_of_no_rows_is_a_no() -> None:
    assert gate.judge(policy(), found(model={"digest": OTHER}), DIGEST).outcome == "cannot-tell"
    assert gate.judge(policy(), found(model={"digest": DIGEST}), DIGEST).passed
    assert gate.judge(policy(), found(data={"digest": DIGEST, "rows": 0}), DIGEST).outcome == "cannot-tell"


BETTER = Policy("m", (), Better("accuracy", 0.95))


PAIRS = [(40, 10, "pass"), (10, 40, "fail"), (20, 20, "fail"), (4, 0, "fail"), (5, 0, "pass"), (0, 0, "fail")]


@pytest.mark.parametrize(("won", "lost", "outcome"), PAIRS)
def test_better_means_better_on_the_same_rows_with_confidence(won: int, lost: int, outcome: str) -> None:
    assert gate.judge(BETTER, found(comparison=comparison(OTHER, won, lost)), DIGEST, OTHER).outcome == outcome


def test_a_comparison_that_is_missing_or_with_somebody_else_is_a_no() -> None:
    assert gate.judge(BETTER, found(), DIGEST, OTHER).outcome == "cannot-tell"
    wrong = found(comparison=comparison("sha256:" + "c" * 64, 50, 0))
    assert gate.judge(BETTER, wrong, DIGEST, OTHER).outcome == "cannot-tell"
    assert gate.judge(BETTER, found(), DIGEST).passed, "without a champion there is nobody to beat"
    assert gate.judge(BETTER, found(comparison=comparison(DIGEST, 50, 0)), DIGEST, DIGEST).outcome == "fail"


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_p_value_is_that_of_the_binomial(won: int, lost: int) -> None:
    n = won + lost
    exact = Fraction(sum(comb(n, k) for k in range(won, n + 1)), 2**n)
    assert gate.mcnemar(won, lost) == pytest.approx(float(exact), rel=1e-9)


def test_the_p_value_of_thousands_of_rows_is_finite() -> None:
    assert gate.mcnemar(3000, 3000) == pytest.approx(0.505, abs=0.01)
    assert gate.mcnemar(5000, 1000) < 1e-100
    assert gate.mcnemar(0, 5000) == pytest.approx(1.0)


@pytest.mark.parametrize("lead", [0, 1, 2, 3])
def test_the_p_value_of_a_thousand_million_rows_is_that_of_the_normal_law_and_quick(lead: int) -> None:
    half, sigma = 500_000_000, round(sqrt(250_000_000))
    won = half + lead * sigma
    assert gate.mcnemar(won, 2 * half - won) == pytest.approx(1 - NormalDist().cdf(lead), rel=2e-3)


@pytest.mark.parametrize(
    "broken",
    [
        {"schema": "x"},
        {"metrics": {"a": None}},
        {"metrics": {"a": True}},
        {"metrics": {"a": "0.9"}},
        {"metrics": {"a": 10**400}},
        {"data": {"digest": DIGEST, "rows": 10**10}},
        {"data": {"digest": "x", "rows": 1}},
        {"data": {"digest": DIGEST, "rows": -1}},
        {"data": {"digest": DIGEST, "rows": 1.5}},
        {"model": {}},
        {"procedure": None},
        {"comparison": comparison(OTHER, -1, 5)},
        {"comparison": {**comparison(OTHER, 1, 5), "rows": 7}},
    ],
)
def test_an_evaluation_with_a_mistake_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as e:
        found(**broken)
    assert e.value.code == "evaluation-invalid"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"x" * (5 << 20)])
def test_what_is_no_evaluation_is_refused(text: bytes) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_files_are_judged_as_the_registry_judges(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(
        'schema = 1\nmodel = "m"\n[[require]]\nmetric = "accuracy"\nat_least = 0.97\n'
    )
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation()))
    assert gate.check(tmp_path / "policy.toml", tmp_path / "evaluation.json").passed
    assert Rule("x", "at_most", 1).holds(1.0)
    with pytest.raises(NotFound):
        gate.check(tmp_path / "policy.toml", tmp_path / "none.json")
    with pytest.raises(UsageError):
        gate.check(tmp_path / "policy.toml", tmp_path)


STEADY = Policy("m", (), max_prediction_shift=0.1)


def moved(to: list[int], champion: str = OTHER) -> dict[str, Any]:
    return {**comparison(champion, 0, 0), "predictions": predictions(to, [500, 500])}


@pytest.mark.parametrize(
    ("to", "outcome"),
    [([500, 500], gate.PASS), ([600, 400], gate.PASS), ([601, 399], gate.FAIL), ([0, 1000], gate.FAIL)],
)
def test_predictions_may_move_as_far_as_the_policy_says(to: list[int], outcome: str) -> None:
    verdict = gate.judge(STEADY, found(comparison=moved(to)), DIGEST, OTHER)
    assert verdict.outcome == outcome
    assert dict(verdict.findings[-1].numbers)["prediction_shift"] == abs(to[0] - 500) / 1000


@pytest.mark.parametrize("compared", [None, comparison(OTHER, 0, 0), moved([500, 500], DIGEST)])
def test_predictions_that_were_not_compared_with_this_champions_cannot_be_told(compared: Any) -> None:
    verdict = gate.judge(STEADY, found(comparison=compared), DIGEST, OTHER)
    assert verdict.outcome == gate.CANNOT_TELL


def test_without_a_champion_or_with_its_own_bytes_no_prediction_moves() -> None:
    assert gate.judge(STEADY, found(), DIGEST).passed
    assert gate.judge(STEADY, found(), OTHER, OTHER).passed


@pytest.mark.parametrize(
    "change",
    [
        {"edges": [0.5, 0.5]},
        {"edges": [0.7, 0.5]},
        {"edges": ["0.5"]},
        {"edges": [True]},
        {"edges": []},
        {"edges": [float("nan")]},
        {"edges": 3},
        {"edges": [i / 2000 for i in range(1001)]},
        {"moved": [1000]},
        {"moved": [-1, 1001]},
        {"moved": [500, 499]},
        {"moved": [0, 0], "table": [[0, 0], [0, 0]]},
        {"table": [[500, 0]]},
        {"table": [[], []]},
        {"table": [[500, 0], [500]]},
        {"table": [[500, 0], [0, 500.0]]},
        {"table": None},
    ],
)
def test_a_table_of_predictions_that_does_not_add_up_is_no_evidence(change: dict[str, Any]) -> None:
    body = moved([500, 500])
    body["predictions"] |= change
    with pytest.raises(UsageError) as refused:
        found(comparison=body)
    assert refused.value.code == "evaluation-invalid"


def test_predictions_of_other_rows_than_those_compared_are_no_evidence() -> None:
    with pytest.raises(UsageError, match="are compared, its rows are 999"):
        found(comparison={**moved([500, 500]), "rows": 999, "table": comparison(OTHER, 0, 0, 999)["table"]})


@pytest.mark.parametrize("profile", [[], "x", {}, {"schema": "tidegate/evaluation/1"}])
def test_a_profile_of_another_schema_is_no_evidence(profile: Any) -> None:
    with pytest.raises(UsageError, match="profile"):
        found(profile=profile)
