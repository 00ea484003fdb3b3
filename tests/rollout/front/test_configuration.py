"""The configuration as text, and the weights as one integer."""

from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import ConfigError, UsageError
from tidegate.rollout.front.configuration import SLOW, Settings, configuration, latency_map
from tidegate.rollout.front.proxy import haproxy_binary
from tidegate.rollout.front.weights import Weights, commit, committed, pack, unpack
from tidegate.rollout.router import BASELINE, CANARY, LATENCY_EDGES, STABLE, WHOLE

FOLDER = Path("/tmp/f")


def bins(*microseconds: int) -> list[int]:
    """What HAProxy's tree of networks finds: the one that an integer, taken for an address, lies in."""
    rows = [line.split() for line in latency_map().splitlines()]
    networks = [(ipaddress.ip_network(network), int(number)) for network, number in rows]
    found = [[n for network, n in networks if ipaddress.ip_address(value) in network] for value in microseconds]
    assert all(len(numbers) <= 1 for numbers in found)
    return [numbers[0] if numbers else SLOW for numbers in found]


def test_a_time_counts_under_the_first_edge_that_it_does_not_pass() -> None:
    assert bins(0, 1) == [0, 0]
    assert bins(*LATENCY_EDGES) == list(range(SLOW))
    assert bins(*[edge + 1 for edge in LATENCY_EDGES]) == list(range(1, SLOW + 1))
    assert bins(2**32 - 1) == [SLOW]


@given(st.integers(0, WHOLE), st.data(), st.integers(0, 2**35 - 1))
def test_weights_and_generation_survive_being_one_integer(canary: int, data: st.DataObject, generation: int) -> None:
    baseline = data.draw(st.integers(0, WHOLE - canary))
    weights = Weights({CANARY: canary, BASELINE: baseline, STABLE: WHOLE - canary - baseline}, generation)
    assert unpack(pack(weights)) == weights
    assert 0 <= pack(weights) < 2**63


@pytest.mark.parametrize(
    ("shares", "generation"),
    [({STABLE: 9999}, 1), ({STABLE: WHOLE + 1, CANARY: -1}, 1), ({"other": WHOLE}, 1), ({STABLE: WHOLE}, 2**35)],
)
def test_weights_that_do_not_add_up_are_refused(shares: dict[str, int], generation: int) -> None:
    with pytest.raises(UsageError):
        Weights(shares, generation)


def test_the_share_of_an_arm_without_servers_goes_to_stable() -> None:
    weights = Weights({STABLE: 9000, CANARY: 500, BASELINE: 500}, 7)
    assert weights.among([STABLE, BASELINE]) == Weights({STABLE: 9500, BASELINE: 500}, 7)
    assert Weights({CANARY: WHOLE}, 7).among([]) == Weights({STABLE: WHOLE}, 7)


def test_weights_that_cannot_be_read_are_stable_only(tmp_path: Path) -> None:
    assert committed(tmp_path) == Weights()
    commit(tmp_path, Weights({STABLE: 9500, CANARY: 500}, 3))
    assert committed(tmp_path).shares == {STABLE: 9500, CANARY: 500}
    for text in ("", "[]", "{", '{"weights": {"stable": 1}, "generation": 1}', '{"weights": 5, "generation": "x"}'):
        (tmp_path / "weights.json").write_text(text)
        assert committed(tmp_path) == Weights()


@pytest.mark.parametrize(
    "wrong",
    [
        {"sticky": "x-a if TRUE"},
        {"sticky": "x)\n"},
        {"host": "127.0.0.1:80\nbind *:1"},
        {"host": "a b"},
        {"folder": Path("/" + "x" * 90)},
    ],
)
def test_what_would_change_the_configuration_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Settings(**{"folder": FOLDER, "port": 8080, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [{}, {"sticky": "x-account"}, {"host": "::1"}, {"host": "localhost", "threads": 2}, {"body": 1 << 20}],
)
def test_haproxy_reads_the_configuration_without_a_word(settings: dict[str, str], tmp_path: Path) -> None:
    chosen = Settings(tmp_path, 8080, **settings) if len(str(tmp_path)) < 70 else Settings(FOLDER, 8080, **settings)
    file = tmp_path / "haproxy.cfg"
    text = configuration(chosen, pack(Weights()), "e").replace(str(chosen.latency_map), str(tmp_path / "latency.map"))
    file.write_text(text)
    (tmp_path / "latency.map").write_text(latency_map())
    done = subprocess.run([haproxy_binary(), "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
