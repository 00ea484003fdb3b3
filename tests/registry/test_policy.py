"""Policies: a typo is said with what was meant, and a run can only tighten."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.registry.made import policy as made
from tidegate.errors import ParameterError, PolicyError
from tidegate.registry import policy

GOOD = """
schema = 1
model = "iris"
on_refuse = "keep"
alias = "champion"
[[require]]
metric = "accuracy"
above = 0.95
parameter = "min_accuracy"
[[require]]
metric = "ece"
at_most = 0.1
[champion]
better = "accuracy"
confidence = 0.9
"""


def read(folder: Path, text: str) -> policy.Policy:
    (folder / "policy.toml").write_text(text)
    return policy.read(folder / "policy.toml")


def test_a_policy_travels_as_json_and_comes_back_the_same(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert policy.parse(found.json()) == found
    assert policy.policy(tmp_path / "policy.toml") == found.json()
    assert policy.MARK in found.json()
    assert found.champion == policy.Better("accuracy", 0.9)


def test_how_far_predictions_may_move_is_a_rule_of_its_own(tmp_path: Path) -> None:
    alone = read(tmp_path, GOOD.replace('better = "accuracy"\nconfidence = 0.9', "max_prediction_shift = 0.2"))
    assert (alone.champion, alone.max_prediction_shift) == (None, 0.2)
    both = read(tmp_path, GOOD + "max_prediction_shift = 0\n")
    assert (both.champion, both.max_prediction_shift) == (policy.Better("accuracy", 0.9), 0.0)
    for found in (alone, both):
        assert policy.parse(found.json()) == found


def test_the_first_version_has_its_own_alias_and_later_ones_the_other(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD.replace('alias = "champion"', 'alias = "challenger"\nfirst = "champion"'))
    assert policy.parse(found.json()) == found
    assert found.alias_among({}) == "champion"
    assert found.alias_among({"challenger": 1}) == "champion"
    assert found.alias_among({"champion": 1}) == "challenger"
    assert read(tmp_path, GOOD).alias_among({}) == "champion"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("schema = 1", "schema = 2", "schema"),
        ("model =", "modle =", "Did you mean 'model'"),
        ("metric =", "metrics =", "Did you mean 'metric'"),
        ("above =", "abov =", "Did you mean 'above'"),
        ("better =", "beter =", "Did you mean 'better'"),
        ("confidence =", "confidense =", "Did you mean 'confidence'"),
        ('"keep"', '"ignore"', "'fail' or 'keep'"),
        ("0.95", '"0.95"', "finite number"),
        ("0.95", "nan", "finite number"),
        ("0.95", "true", "finite number"),
        ("0.95", "1" + "0" * 400, "finite number"),
        ("schema = 1", "schema = true", "schema"),
        ('"champion"', '"v1"', "no alias"),
        ('"champion"', '"7"', "no alias"),
        ('"champion"', "7", "no alias"),
        ("confidence = 0.9", "confidence = 1.0", "less than 1"),
        ("confidence = 0.9", "max_prediction_shift = 1.5", "0 to 1"),
        ("confidence = 0.9", "max_prediction_shift = true", "finite number"),
        ('better = "accuracy"', "max_prediction_shift = 0.1", "says nothing without `better`"),
        ('better = "accuracy"\nconfidence = 0.9', "", "champion requires nothing"),
        ("[champion]", "champion = 3\n[other]", "no table|unknown key|cannot be read"),
        ('alias = "champion"', 'alias = "champion"\nfirst = "v1"', "no alias"),
        ("at_most = 0.1", "at_most = 0.1\nbelow = 0.2", "2 bounds"),
        ("above = 0.95", "", "0 bounds"),
        ("at_most = 0.1", 'at_most = 0.1\nparameter = "p"', "more than one parameter"),
        ('model = "iris"', 'model = "../iris"', "name"),
        ("[[require]]", "[require]", "table|no list|cannot be read"),
        ("schema", "schema schema", "cannot be read"),
    ],
)
def test_a_policy_with_a_mistake_is_refused_with_what_is_allowed(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(PolicyError) as e:
        read(tmp_path, GOOD.replace(old, new))
    import re

    assert re.search(says, str(e.value)), str(e.value)
    assert e.value.exit_code == 2


def test_a_policy_that_requires_nothing_or_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="requires nothing"):
        read(tmp_path, 'schema = 1\nmodel = "m"\n')
    with pytest.raises(PolicyError, match="there is no policy"):
        policy.read(tmp_path / "none.toml")
    with pytest.raises(PolicyError):
        policy.parse("{}")


def test_a_bound_can_be_tightened_and_never_loosened() -> None:
    found = made(above=0.95)
    assert found.tightened(None) == found
    assert found.tightened(0.99).require[0].bound == 0.99
    assert found.tightened(0.95) == found
    with pytest.raises(ParameterError, match="looser") as e:
        found.tightened(0.1)
    assert e.value.code == "policy-loosened"
    assert e.value.exit_code == 2
    below = policy.Policy("m", (policy.Rule("loss", "below", 0.5, "max_loss"),))
    assert below.tightened(0.1).require[0].bound == 0.1
    with pytest.raises(ParameterError, match="looser"):
        below.tightened(0.9)


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, "0.99", True])
def test_a_bound_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ParameterError):
        policy.check_parameters(made(), {"min_accuracy": value})


def test_a_policy_without_a_parameter_cannot_be_tightened() -> None:
    with pytest.raises(ParameterError) as e:
        policy.Policy("m", (policy.Rule("accuracy", "above", 0.9),)).tightened(0.95)
    assert e.value.code == "policy-parameter"


def test_parameters_of_other_names_are_none_of_the_policys_business() -> None:
    policy.check_parameters(made(), {"seed": 1, "min_accuracy": None})
