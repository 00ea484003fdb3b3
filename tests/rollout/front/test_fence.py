"""Who may change weights while another process holds their lock and does not go on."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tidegate.errors import ServerError
from tidegate.rollout.front import fence
from tidegate.rollout.front.weights import Weights, commit, committed
from tidegate.rollout.router import CANARY, STABLE, WHOLE

SPLIT = Weights({STABLE: WHOLE - 500, CANARY: 500}, 3)


@dataclass
class Proxy:
    """Weights in force."""

    now: Weights = field(default_factory=lambda: SPLIT)

    def weights(self) -> Weights:
        return self.now

    def force(self, weights: Weights) -> None:
        self.now = weights


@pytest.fixture(autouse=True)
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody who has taken the lock and does not go on."""
    monkeypatch.setattr(fence, "PATIENCE", 0.05)
    commit(tmp_path, SPLIT)
    with (tmp_path / fence.LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_traffic_is_taken_away_although_who_holds_the_lock_was_stopped(tmp_path: Path) -> None:
    proxy, wanted = Proxy(), Weights({STABLE: WHOLE}, 4)
    fence.change(tmp_path, proxy, wanted)
    assert (proxy.now, committed(tmp_path)) == (wanted, wanted)


def test_nobody_gets_more_traffic_while_the_lock_is_held(tmp_path: Path) -> None:
    proxy = Proxy()
    with pytest.raises(ServerError) as e:
        fence.change(tmp_path, proxy, Weights({STABLE: WHOLE - 2500, CANARY: 2500}, 4))
    assert e.value.code == "front-held"
    assert (proxy.now, committed(tmp_path)) == (SPLIT, SPLIT)
