"""Who may change weights while another process holds their lock and does not go on; what a full disk leaves of them."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tidegate.errors import ServerError
from tidegate.rollout.front import fence, files
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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_weights_that_cannot_be_kept_leave_the_old_ones_and_nothing_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(_: int) -> None:
        raise OSError(number, "no")

    commit(tmp_path, Weights({STABLE: WHOLE}, 3))
    monkeypatch.setattr(files.os, "fsync", fails)
    with pytest.raises(ServerError, match="cannot write"):
        commit(tmp_path, Weights({STABLE: WHOLE}, 4))
    assert committed(tmp_path).generation == 3
    assert [*tmp_path.glob(".weights*")] == []


def test_weights_that_are_kept_have_a_durable_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable: list[Path] = []
    monkeypatch.setattr(files.RealDisk, "fsync_folder", lambda _, path: durable.append(path))
    commit(tmp_path, Weights({STABLE: WHOLE}, 3))
    assert durable == [tmp_path]
