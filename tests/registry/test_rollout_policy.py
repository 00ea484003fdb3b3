"""The table [rollout] of a policy: strict, with near matches, the same in JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidegate.errors import PolicyError
from tidegate.registry.policy import parse, read
from tidegate.registry.rollout_policy import RolloutPolicy

HEAD = 'schema = 1\nmodel = "m"\n[[require]]\nmetric = "a"\nabove = 0.5\n'


def table(folder: Path, text: str) -> RolloutPolicy | None:
    path = folder / "policy.toml"
    path.write_text(HEAD + text)
    policy = read(path)
    assert parse(policy.json()) == policy, "the same in JSON"
    return policy.rollout


def test_a_policy_without_the_table_has_none_and_its_digest_is_what_it_was(tmp_path: Path) -> None:
    assert table(tmp_path, "") is None
    assert '"rollout"' not in read(tmp_path / "policy.toml").json()


def test_an_empty_table_has_the_defaults_that_are_documented(tmp_path: Path) -> None:
    assert table(tmp_path, "[rollout]\n") == RolloutPolicy()
    assert RolloutPolicy().steps == (500, 2500, 5000, 10_000)


def test_every_key_is_read(tmp_path: Path) -> None:
    text = (
        "[rollout]\nsteps = [0.5, 100]\nalpha = 0.05\nmax_error_increase = 0.01\nerror_tolerance = 0.5\n"
        "latency_tolerance = 0.1\nprediction_tolerance = 0\nmin_requests = 7\nmin_time = '500ms'\ndeadline = '90s'\n"
        "on_deadline = 'hold'\nready_within = '2m'\nrollback_window = '0s'\nholdback = 10\nshadow = '1h'\n"
    )
    assert table(tmp_path, text) == RolloutPolicy(
        (50, 10_000), 0.05, 0.01, 0.5, 0.1, 0.0, 7, 0.5, 90.0, "hold", 120.0, 0.0, 1000, 3600.0
    )


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("step = [5]", "unknown key 'step'"),
        ("steps = []", r"steps is \[\]"),
        ("steps = 5", "steps is 5"),
        ("steps = [5, 5]", "each more than the one before"),
        ("steps = [25, 5]", "each more than the one before"),
        ("steps = [0]", "Percentages from 0.1"),
        ("steps = [101]", "Percentages from 0.1"),
        ("steps = [nan]", "Percentages from 0.1"),
        ("steps = [true]", "Percentages from 0.1"),
        ("steps = ['5']", "Percentages from 0.1"),
        ("alpha = 0", "alpha is 0"),
        ("alpha = 0.3", "A number from 1e-06 to 0.2"),
        ("alpha = nan", "alpha is nan"),
        ("alpha = true", "alpha is True"),
        ("max_error_increase = 0", "max_error_increase is 0"),
        ("error_tolerance = -0.1", "A number from 0 to 10"),
        ("min_requests = 0", "A whole number from 1"),
        ("min_requests = 1.5", "A whole number from 1"),
        ("deadline = 60", "deadline is 60"),
        ("deadline = '1 h'", "A time from 1s to 30d"),
        ("deadline = '31d'", "A time from 1s to 30d"),
        ("deadline = '0s'", "A time from 1s to 30d"),
        ("min_time = '2h'", "min_time is '2h', longer than the deadline"),
        ("min_time = '2m'\ndeadline = '1m'", "A least time within the deadline"),
        ("on_deadline = 'promote'", "'rollback' or 'hold'"),
        ("holdback = 0", "A number from 1 to 20"),
        ("holdback = 50", "A number from 1 to 20"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused_with_what_is_allowed(tmp_path: Path, line: str, found: str) -> None:
    with pytest.raises(PolicyError, match=found):
        table(tmp_path, f"[rollout]\n{line}\n")


def test_an_unknown_key_is_told_its_neighbour(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        table(tmp_path, "[rollout]\nmax_eror_increase = 0.1\n")
    assert "max_error_increase" in caught.value.hint


@pytest.mark.parametrize("value", ["3", "[1]", '"x"'])
def test_what_is_no_table_is_refused(tmp_path: Path, value: Any) -> None:
    (tmp_path / "policy.toml").write_text(f"rollout = {value}\n{HEAD}")
    with pytest.raises(PolicyError, match="rollout is no table"):
        read(tmp_path / "policy.toml")
