"""Rollouts of one machine, where front, store and project are not as they should be."""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidegate.cli import rollback
from tidegate.cli import rollout as cli
from tidegate.errors import PolicyError, ServerError
from tidegate.registry.model import Registry
from tidegate.rollout import state as machine
from tidegate.rollout import trial as trials
from tidegate.rollout.controller import Controller, Seams
from tidegate.rollout.front import kinds
from tidegate.rollout.front.weights import Weights, commit, committed
from tidegate.rollout.journal import Journal
from tidegate.rollout.memory import Behaviour, MemoryFront
from tidegate.rollout.recorder import LedgerRecorder
from tidegate.rollout.router import CANARY, STABLE, WHOLE
from tidegate.rollout.session import Place, take_back
from tidegate.rollout.state import Order, Plan, State, Target
from tidegate.store.memory import MemoryStore

PLAN = Plan("m-v2-abc", "m", Target(2, "sha256:" + "b" * 64), Target(1, "sha256:" + "a" * 64))
SHARES = {CANARY: 2500, STABLE: 7500}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The canary has a quarter, the store is none that we know, nobody is in charge."""
    home = Path(tempfile.mkdtemp(prefix="tg-"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    monkeypatch.setenv("TIDEGATE_STORE", "odd://store")
    made = Place("m")
    commit(made.folder, Weights(SHARES, 4))
    made.journal.save(at_a_quarter(), trials.begin(None))
    yield made
    shutil.rmtree(home)


def at_a_quarter() -> State:
    state = machine.begin(PLAN, "c", 3)
    return replace(state, phase=machine.CANARY_STEP, step=0, weights=SHARES, generation=4, pending=None)


def front() -> MemoryFront:
    made = MemoryFront(time.monotonic, {1: Behaviour(), 2: Behaviour()}, PLAN.stable)
    made.set_weights(SHARES, 4)
    return made


def test_a_dead_proxy_begins_without_the_candidate_that_a_person_took_back(place: Place) -> None:
    with pytest.raises(ServerError, match="HAProxy does not answer"):
        take_back(place, Order("rollback", "ann", "it is slow"))
    assert committed(place.folder) == Weights({STABLE: WHOLE}, 5)
    ordered = place.journal.ordered(PLAN.id)
    assert ordered
    assert ordered.by == "ann"


@pytest.mark.parametrize("broken", ["store", "project"])
def test_traffic_is_taken_back_without_store_and_project(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str
) -> None:
    if broken == "project":
        monkeypatch.delenv("TIDEGATE_STORE")
        (tmp_path / "pyproject.toml").write_text("= no table")
        monkeypatch.chdir(tmp_path)
    there = front()
    monkeypatch.setattr(kinds, "router", lambda _: there)
    done = CliRunner().invoke(rollback.command, ["m"], standalone_mode=False)
    assert there.observe().weights == {STABLE: WHOLE}
    assert done.exception is None
    assert "taken back: all traffic of m goes to version 1" in done.output
    assert "the ledger does not hold it yet" in done.output


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE])
def test_what_cannot_be_shown_leaves_the_controller_in_charge(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr("tidegate.cli.rollout.click.echo", fails)
    there = front()
    store = MemoryStore()
    seams = Seams(there, there, there, LedgerRecorder(Registry(store), "m", "ann"), Journal(store))
    cli._say("goes on with m-v2-abc: canary")
    with cli._shown(as_json=False) as report:
        report(Controller(seams, at_a_quarter(), trials.begin(None)))


@pytest.mark.parametrize(
    "option",
    [
        ["--step", "5,x"],
        ["--step", "50,25"],
        ["--deadline", "soon"],
        ["--max-error-increase", "0.7"],
        ["--latency-tolerance", "-1"],
    ],
)
def test_rules_of_one_rollout_are_checked_as_a_policys(
    place: Place, monkeypatch: pytest.MonkeyPatch, option: list[str]
) -> None:
    monkeypatch.setattr(cli, "check_front", lambda _: None)
    done = CliRunner().invoke(cli.command, ["start", "m", *option], standalone_mode=False)
    assert isinstance(done.exception, PolicyError)
    assert option[0].strip("-").replace("-", "_")[:4] in done.exception.found


def test_a_dry_run_shows_what_is_open_and_changes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "check_front", lambda _: None)
    monkeypatch.setenv("TIDEGATE_STORE", str(tmp_path))
    before = place.journal.store.get("rollout.json")
    done = CliRunner().invoke(cli.command, ["start", "m", "--dry-run"], standalone_mode=False)
    assert (done.exception, "m-v2-abc: version 2 against 1" in done.output) == (None, True)
    assert (place.journal.store.get("rollout.json"), place.journal.ordered(PLAN.id)) == (before, None)


@pytest.mark.parametrize("how", [["--dry-run"], []])
def test_a_rollout_goes_on_by_the_rules_it_began_with(
    place: Place, monkeypatch: pytest.MonkeyPatch, how: list[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "check_front", lambda _: None)
    monkeypatch.setenv("TIDEGATE_STORE", str(tmp_path))
    done = CliRunner().invoke(cli.command, ["start", "m", "--deadline", "2h", *how], standalone_mode=False)
    assert getattr(done.exception, "code", "") == "rollout-open"
    assert "deadline" in str(done.exception)
