"""A monitor reads what servers counted, tells drift once, and loses nothing when a server begins anew or is away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.registry.made import candidate
from tidegate.cli import monitor as cli
from tidegate.data import ref
from tidegate.data.profile import Profile, number, quantile_bins
from tidegate.errors import ConfigError, NotFound, ServerError
from tidegate.registry.model import Registry
from tidegate.registry.register import register
from tidegate.rollout.drift import Column, Rules, Window
from tidegate.rollout.monitor import Monitor, Sample
from tidegate.store.drift import Drifts
from tidegate.store.memory import MemoryStore

AMOUNT = np.random.default_rng(1).lognormal(3, 1, 10_000)
PROFILE = Profile(10_000, quantile_bins(AMOUNT / 1000), columns={"amount": number(AMOUNT)})
NOTHING = Window(0, (0,) * 10, {"amount": Column((0,) * 10)})


def with_profile(asks: Any) -> Any:
    """A candidate whose evaluation has the profile."""
    body = json.loads(asks.evaluation.read_text())
    asks.evaluation.write_text(json.dumps({**body, "profile": json.loads(PROFILE.json())}))
    return asks


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """Version 1 has a profile, version 2 has none."""
    made = MemoryStore()
    register(with_profile(candidate(tmp_path, 1)), made)
    register(candidate(tmp_path, 2), made)
    return made


@dataclass
class Served:
    """A server whose counts a test adds to; it may be away."""

    digest: str
    epoch: str = "one"
    away: bool = False
    window: Window = NOTHING

    def answers(self, rows: int, times: float = 1.0, seed: int = 0) -> None:
        amount = np.random.default_rng(seed).choice(AMOUNT, rows) * times
        scores = PROFILE.prediction.count(np.random.default_rng(seed).choice(AMOUNT, rows) / 1000)
        known = self.window.columns["amount"].counts
        counts = PROFILE.columns["amount"].bins.count(amount)
        column = Column(tuple(a + b for a, b in zip(known, counts, strict=True)))
        predictions = tuple(a + b for a, b in zip(self.window.predictions, scores, strict=True))
        self.window = Window(self.window.rows + rows, predictions, {"amount": column})

    def anew(self) -> None:
        self.epoch += "+"
        self.window = Served(self.digest).window

    def read(self) -> Sample:
        if self.away:
            raise ServerError("it is away")
        return Sample(self.digest, self.epoch, self.window)


def watching(store: MemoryStore, *served: Served, **rules: Any) -> Monitor:
    sources: Mapping[str, Served] = {str(i): s for i, s in enumerate(served)}
    return Monitor(store, lambda: Registry(store).state("m"), lambda: sources, Rules(**rules), now=lambda: 0.0)


def digest(store: MemoryStore, version: int = 1) -> str:
    return Registry(store).version("m", version)[1].digest


def test_drift_is_told_once_and_again_only_after_it_was_over(store: MemoryStore) -> None:
    served = Served(digest(store))
    monitor, told = watching(store, served), []
    for times in (1, 5, 5, 1, 5):
        served.answers(2000, times)
        seen = monitor.turn()
        assert seen
        told.append((seen.drifted, seen.event))
    assert told == [([], 0), (["amount"], 1), (["amount"], 0), ([], 0), (["amount"], 2)]
    event = Drifts(store).newest("m")
    assert event
    assert (event["model"], event["version"], event["drifted"], event["rows"]) == ("m", 1, ["amount"], 2000)


def test_what_a_monitor_saw_is_data_that_starts_a_pipeline(store: MemoryStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        ref.resolve("drift:m", store)
    served = Served(digest(store))
    served.answers(2000, 5)
    watching(store, served).turn()
    ref.fetch(str(ref.resolve("drift:m", store)), tmp_path / "event", store)
    assert json.loads((tmp_path / "event").read_text())["drifted"] == ["amount"]


def test_a_monitor_that_starts_again_does_not_repeat_the_newest_event(store: MemoryStore) -> None:
    served = Served(digest(store))
    served.answers(2000, 5)
    first, second = watching(store, served).turn(), watching(store, served).turn()
    assert first
    assert second
    assert (first.event, second.event, second.drifted) == (1, 0, ["amount"])


def test_too_few_rows_wait_for_more_and_none_is_lost(store: MemoryStore) -> None:
    served = Served(digest(store))
    monitor = watching(store, served)
    served.answers(600)
    assert monitor.turn() is None
    served.answers(600)
    seen = monitor.turn()
    assert seen
    assert seen.rows == 1200


def test_a_server_that_began_anew_counts_from_its_beginning(store: MemoryStore) -> None:
    served = Served(digest(store))
    monitor = watching(store, served)
    served.answers(5000)
    monitor.turn()
    served.anew()
    served.answers(1500)
    seen = monitor.turn()
    assert seen
    assert (seen.rows, seen.drifted) == (1500, [])


def test_a_server_that_serves_a_version_again_is_counted_from_where_it_left_it(
    store: MemoryStore, tmp_path: Path
) -> None:
    register(with_profile(candidate(tmp_path, 3)), store)
    served = Served(digest(store))
    monitor = watching(store, served)
    served.answers(5000)
    assert monitor.turn()
    first = served.window
    served.digest, served.window = digest(store, 3), NOTHING
    served.answers(2000)
    assert monitor.turn()
    served.digest, served.window = digest(store), first
    served.answers(1500)
    seen = monitor.turn()
    assert seen
    assert (seen.version.version, seen.rows) == (1, 1500)


def test_a_server_that_is_away_makes_the_next_window_longer(store: MemoryStore) -> None:
    served = Served(digest(store))
    monitor = watching(store, served)
    served.answers(1000)
    monitor.turn()
    served.answers(1000)
    served.away = True
    with pytest.raises(ServerError):
        monitor.turn()
    served.away = False
    served.answers(1000)
    seen = monitor.turn()
    assert seen
    assert seen.rows == 2000


def test_servers_of_one_version_are_one_window(store: MemoryStore) -> None:
    one, other = Served(digest(store)), Served(digest(store))
    one.answers(600, seed=1)
    other.answers(600, seed=2)
    seen = watching(store, one, other).turn()
    assert seen
    assert (seen.rows, seen.drifted) == (1200, [])


def test_while_a_version_takes_over_nothing_is_told_and_the_monitor_goes_on(store: MemoryStore) -> None:
    old, new = Served(digest(store)), Served(digest(store, 2))
    old.answers(2000, 5)
    monitor = watching(store, old, new)
    with pytest.raises(ServerError) as e:
        monitor.turn()
    assert (e.value.code, Drifts(store).newest("m")) == ("versions-differ", None)
    new.digest = old.digest
    seen = monitor.turn()
    assert seen
    assert (seen.rows, seen.drifted) == (2000, ["amount"])


def test_a_version_without_a_profile_says_so(store: MemoryStore) -> None:
    with pytest.raises(ConfigError) as e:
        watching(store, Served(digest(store, 2))).turn()
    assert e.value.code == "profile-missing"


def test_bytes_that_no_version_has_are_not_found(store: MemoryStore) -> None:
    with pytest.raises(NotFound):
        watching(store, Served("sha256:" + "0" * 64)).turn()


def test_no_server_is_trouble_and_not_health(store: MemoryStore) -> None:
    with pytest.raises(ServerError):
        watching(store).turn()


def test_counts_by_other_bins_cannot_be_told_and_write_nothing(store: MemoryStore) -> None:
    served = Served(digest(store))
    served.answers(2000, 5)
    served.window = replace(served.window, columns={"amount": Column((2000,))})
    seen = watching(store, served).turn()
    assert seen
    assert (seen.findings["amount"].outcome, seen.event) == ("cannot-tell", 0)
    assert Drifts(store).newest("m") is None


def test_a_look_at_too_few_rows_ends_otherwise_than_one_without_drift(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(digest(store))
    monkeypatch.setattr(cli, "open_store", lambda _: store)
    monkeypatch.setattr(cli, "_sources", lambda *_: {"s": served})
    for rows, code, said in ((500, 3, "cannot tell: fewer than 1000 rows yet"), (1000, 0, "no drift")):
        served.answers(rows)
        done = CliRunner().invoke(cli.command, ["m", "--once"], standalone_mode=False)
        assert (done.return_value, done.exception) == (code, None)
        assert said in done.output


def test_a_look_at_which_nothing_compares_ends_otherwise_than_one_without_drift(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(digest(store))
    served.answers(2000)
    monkeypatch.setattr(cli, "open_store", lambda _: store)
    monkeypatch.setattr(cli, "_sources", lambda *_: {"s": served})
    other = {"amount": Column((2000,))}
    for columns, predictions, code, outcome in (
        (other, (2000,), 3, "cannot-tell"),
        (other, served.window.predictions, 0, "pass"),
        (served.window.columns, (2000,), 0, "pass"),
    ):
        served.window = Window(2000, predictions, columns)
        done = CliRunner().invoke(cli.command, ["m", "--once", "--json"], standalone_mode=False)
        assert (done.return_value, json.loads(done.output)["outcome"]) == (code, outcome)
        text = CliRunner().invoke(cli.command, ["m", "--once"], standalone_mode=False).output
        assert ("no drift" in text) == (code == 0)
        assert "is counted by other bins than the profile's" in text, "what cannot be told is listed"
