"""Profiles: what rows looked like, without the rows; read strictly; distances that mean what they say."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.data import profile
from tidegate.data.profile import Bins, Number, Profile, Text
from tidegate.errors import UsageError

FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.lists(st.integers(0, 10**6), min_size=3, max_size=3).filter(any)
MADE = Profile(
    7,
    Bins((0.25, 0.5), (1, 2, 4)),
    profile.PROBABILITY,
    {
        "n": Number(1, -2.0, 8.0, 1.5, 3.0, Bins((0.0,), (3, 3))),
        "t": Text(0, {"a": 6}, 1, Bins((1.0,), (6, 1))),
    },
)


def index(bins: Bins, value: float) -> int:
    return next((i for i, edge in enumerate(bins.edges) if value <= edge), len(bins.edges))


@given(st.lists(FINITE, max_size=60))
def test_a_value_on_an_edge_is_in_the_bin_that_ends_there(values: list[float]) -> None:
    bins = profile.quantile_bins(np.array(values, dtype=float))
    assert sum(bins.counts) == len(values)
    by_hand = [sum(index(bins, v) == i for v in values) for i in range(len(bins.edges) + 1)]
    assert list(bins.counts) == by_hand
    for edge in bins.edges:
        assert edge in values
        assert bins.edges[index(bins, edge)] == edge


def test_deciles_hold_a_tenth_each_and_equal_ones_are_one_edge() -> None:
    assert profile.quantile_bins(np.arange(1000.0)).counts == (100,) * 10
    assert profile.quantile_bins(np.array([0.0] * 95 + [1.0] * 5)) == Bins((0.0,), (95, 5))
    assert profile.quantile_bins(np.array([])) == Bins((), (0,))


def test_what_is_no_number_is_in_the_last_bin() -> None:
    bins = Bins((0.25, 0.5), ())
    assert index(bins, math.nan) == 2
    assert bins.count(np.array([math.nan, math.inf, -math.inf, 0.25])) == (2, 0, 2)


def test_the_prediction_of_two_classes_is_a_probability_and_of_more_an_index() -> None:
    two = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert profile.predictions(two).tolist() == [0.1, 0.8]
    assert profile.prediction_bins(two)[1] == profile.PROBABILITY
    three = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    assert profile.prediction_bins(three) == (Bins((0.5, 1.5), (1, 0, 2)), profile.LABEL)


def test_a_number_column_counts_what_is_no_finite_number_apart() -> None:
    found = profile.number([1.0, None, math.nan, math.inf, 3.0])
    assert (found.missing, found.least, found.greatest, found.mean, found.sd) == (3, 1.0, 3.0, 2.0, 1.0)
    assert sum(found.bins.counts) == 2
    assert profile.number([None, math.nan]) == Number(2, 0.0, 0.0, 0.0, 0.0, Bins((), (0,)))


def test_rare_and_long_texts_are_counted_and_not_kept() -> None:
    long = "x" * 65
    found = profile.text(["a"] * 6 + ["b"] * 4 + [long] * 9 + [None])
    assert (found.missing, found.frequent, found.rest) == (1, {"a": 6}, 13)
    assert long not in Profile(20, Bins((), (20,)), columns={"t": found}).json()
    assert sum(found.lengths.counts) == 19


@given(st.lists(FINITE | st.none() | st.just(math.nan) | st.just(math.inf), max_size=40), st.lists(st.text(max_size=5)))
def test_a_profile_of_any_rows_is_json_and_comes_back_the_same(values: list[Any], texts: list[str]) -> None:
    columns = {"n": profile.number(values), "t": profile.text(texts)}
    made = Profile(len(values), Bins((0.5,), (1, 2)), columns=columns)
    assert profile.parse(made.json().encode()) == made


def change(body: dict[str, Any], path: str, value: Any) -> bytes:
    *folders, last = path.split(".")
    inner = body
    for name in folders:
        inner = inner[name]
    inner[last] = value
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", "tidegate/profile/2"),
        ("more", 1),
        ("rows", -1),
        ("rows", 1.0),
        ("rows", True),
        ("columns", []),
        ("columns", {str(i): {} for i in range(10_001)}),
        ("prediction", {}),
        ("prediction.of", "score"),
        ("prediction.edges", [0.5, 0.25]),
        ("prediction.edges", [0.25]),
        ("prediction.edges", [0.25, math.nan]),
        ("prediction.edges", [0.25, "0.5"]),
        ("prediction.counts", [1, 2, -4]),
        ("prediction.counts", [1, 2, 10**16]),
        ("prediction.more", 1),
        ("columns.n.kind", "date"),
        ("columns.n.mean", math.inf),
        ("columns.n.mean", None),
        ("columns.n.rest", 1),
        ("columns.t.frequent", {"a": 0.5}),
        ("columns.t.frequent", ["a"]),
        ("columns.t.missing", "0"),
    ],
)
def test_a_profile_with_a_mistake_is_refused(path: str, value: Any) -> None:
    with pytest.raises(UsageError) as refused:
        profile.parse(change(json.loads(MADE.json()), path, value))
    assert refused.value.code == "profile-invalid"


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"[" * 100_000, b"\xff", b" " * (4 * 2**20 + 1)])
def test_bytes_that_are_no_profile_are_refused(data: bytes) -> None:
    with pytest.raises(UsageError) as refused:
        profile.parse(data)
    assert refused.value.code == "profile-invalid"


@given(COUNTS, COUNTS)
def test_distances_are_nought_for_equal_shares_and_never_less(a: list[int], b: list[int]) -> None:
    for distance in (profile.psi, profile.ks):
        assert distance(a, b) >= 0
        assert distance(a, a) == 0
    assert profile.ks(a, b) <= 1 + 1e-12
    assert profile.ks(a, [10 * n for n in a]) == pytest.approx(0, abs=1e-12)


def test_distances_are_what_their_definitions_say() -> None:
    a, b = [50, 30, 20], [20, 30, 50]
    assert profile.ks(a, b) == pytest.approx(0.3)
    assert profile.psi([5000, 3000, 2000], [2000, 3000, 5000]) == pytest.approx(0.6 * math.log(2.5), rel=1e-3)


@pytest.mark.parametrize(("a", "b"), [([0, 0], [1, 2]), ([1, 2], [0, 0]), ([1], [1, 2])])
def test_a_distance_to_nothing_is_no_number(a: list[int], b: list[int]) -> None:
    for distance in (profile.psi, profile.ks):
        assert math.isnan(distance(a, b))


def test_numpy_and_the_single_value_agree_on_every_bin() -> None:
    bins = Bins((-1.0, 0.0, 2.5), ())
    values = [-2.0, -1.0, -0.5, 0.0, 1e-300, 2.5, 3.0, math.nan]
    assert [index(bins, v) for v in values] == bins.indices(np.array(values)).tolist()
