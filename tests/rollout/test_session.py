"""Rollouts of one machine, where front, store and project are not as they should be."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidegate.cli import _main as main
from tidegate.cli import rollback
from tidegate.cli import rollout as cli
from tidegate.cli.rollout_text import lines
from tidegate.errors import NotFound, ServerError, StoreError, Trouble, UsageError
from tidegate.registry.gate import PASS, Finding
from tidegate.registry.model import Entry, Registry
from tidegate.rollout import session
from tidegate.rollout import state as machine
from tidegate.rollout import trial as trials
from tidegate.rollout.controller import Controller, Seams
from tidegate.rollout.exposure import Need
from tidegate.rollout.findings import NOT_COMPARED
from tidegate.rollout.front import kinds
from tidegate.rollout.front.fleet import Fleet, Wanted, new_front_folder, read_fleet, write_fleet
from tidegate.rollout.front.weights import Weights, commit, committed
from tidegate.rollout.journal import Journal, Lock
from tidegate.rollout.memory import Behaviour, MemoryFront
from tidegate.rollout.opening import Opening
from tidegate.rollout.recorder import LedgerRecorder
from tidegate.rollout.router import CANARY, STABLE, WHOLE
from tidegate.rollout.session import Place, measure, take_back
from tidegate.rollout.state import ROUND, Order, Plan, State, Target
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
    write_fleet(new_front_folder("m"), Fleet({STABLE: Wanted("m:1", PLAN.stable.digest)}))
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
    with pytest.raises(ServerError, match="HAProxy does not answer") as e:
        take_back(place, Order("rollback", "ann", "it is slow"), lambda: pytest.fail("no front was told"))
    assert e.value.allowed == "noted: when the front runs again it begins with stable only"
    assert committed(place.folder) == Weights({STABLE: WHOLE}, ROUND)
    ordered = place.journal.ordered(PLAN.id)
    assert ordered
    assert ordered.by == "ann"
    with pytest.raises(ServerError, match="HAProxy does not answer"):
        take_back(place, Order("rollback", "ann", "again"), lambda: pytest.fail("no front was told"))
    assert committed(place.folder) == Weights({STABLE: WHOLE}, ROUND), "said twice, it is the same withdrawal"


def test_a_proxy_that_has_just_started_again_is_told_too_for_it_would_give_the_canary_its_share_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = MemoryFront(time.monotonic, {1: Behaviour(), 2: Behaviour()}, PLAN.stable)
    there.set_weights({STABLE: WHOLE}, 4)  # of what is kept, SHARES, until the arms have servers
    monkeypatch.setattr(kinds, "router", lambda _: there)
    take_back(place, Order("rollback", "ann", ""), lambda: None)
    assert (there.observe().weights, there.generation) == ({STABLE: WHOLE}, ROUND)


def test_a_person_takes_back_under_the_number_that_a_controller_would_have_taken(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = front()
    monkeypatch.setattr(kinds, "router", lambda _: there)
    there.set_weights(SHARES, 3 * ROUND + 2)
    session._to_stable(place)
    assert (there.weights, there.generation) == ({STABLE: WHOLE}, 4 * ROUND)
    commit(place.folder, Weights(SHARES, 3 * ROUND + 2))  # the disk was full
    session._to_stable(place)
    assert there.generation == 4 * ROUND
    commit(place.folder, Weights(SHARES, ROUND + 2))  # for long: what it keeps is of a rollout before
    session._to_stable(place)
    assert there.generation == 4 * ROUND
    commit(place.folder, Weights({STABLE: WHOLE}, 4 * ROUND))
    monkeypatch.setattr(there, "set_weights", lambda *_: pytest.fail("it has nothing to lose"))
    session._to_stable(place)


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
    assert done.output.startswith("all traffic of m goes to stable; "), "said before the store is asked"
    assert "taken back: all traffic of m goes to version 1" in done.output
    assert "the ledger does not hold it yet" in done.output


class Hangs(MemoryStore):
    """Takes a call, and does not answer until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def get(self, key: str) -> bytes:
        self.let_go.wait(60)
        return super().get(key)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hangs]:
    store = Hangs()
    monkeypatch.setattr(session, "open_store", lambda _: store)
    monkeypatch.setattr(session, "TOLD_SECONDS", 0.5)
    monkeypatch.setattr(session, "TAKEN_SECONDS", 0.5)
    yield store
    store.let_go.set()


def test_taking_back_ends_although_the_store_hangs_and_says_who_writes_it_down(
    place: Place, monkeypatch: pytest.MonkeyPatch, hanging: Hangs
) -> None:
    there = front()
    monkeypatch.setattr(kinds, "router", lambda _: there)
    done = CliRunner().invoke(rollback.command, ["m", "--reason", "slow"], standalone_mode=False)
    assert not hanging.let_go.is_set(), "nobody waited for the store"
    assert (done.return_value, done.exception, there.observe().weights) == (0, None, {STABLE: WHOLE})
    assert done.output.startswith("all traffic of m goes to stable; ")
    assert "rolled-back: all traffic of m goes to version 1" in done.output
    assert "the ledger does not hold it yet\n  → tidegate rollout start m writes it down" in done.output
    left = place.journal.load()
    assert left
    assert (left[0].phase, left[0].pending and left[0].pending["event"]) == (machine.WITHDRAWN, "rolled-back")
    assert set(read_fleet(place.folder).arms) == {STABLE}, "and the candidate's servers end"


def test_a_store_that_hangs_where_the_journal_says_nothing_is_trouble(place: Place, hanging: Hangs) -> None:
    place.journal.store.delete("rollout.json")
    with pytest.raises(StoreError, match="the store has not answered for 0.5 s"):
        take_back(place, Order("rollback", "ann", ""), lambda: pytest.fail("nothing is known to be open"))
    assert not hanging.let_go.is_set()


def test_without_a_journal_and_a_store_a_front_with_a_canary_is_told_all_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch, hanging: Hangs
) -> None:
    place.journal.store.delete("rollout.json")
    there, told = front(), []
    monkeypatch.setattr(kinds, "router", lambda _: there)
    with pytest.raises(StoreError, match="the store has not answered for 0.5 s\n.*Say it again once it answers"):
        take_back(place, Order("rollback", "ann", ""), lambda: told.append(dict(there.observe().weights)))
    assert told == [{STABLE: WHOLE}]


@pytest.mark.parametrize("said", ["m", "m:2"])
def test_a_rollout_is_gone_on_with_although_the_store_hangs(
    place: Place, monkeypatch: pytest.MonkeyPatch, hanging: Hangs, said: str
) -> None:
    begun: list[State] = []
    monkeypatch.setattr(cli, "check_front", lambda _: None)
    monkeypatch.setattr(cli, "_run", lambda _, what, __: begun.append(what[0]))
    done = CliRunner().invoke(cli.command, ["start", said], standalone_mode=False)
    assert (done.exception, hanging.let_go.is_set()) == (None, False)
    assert [(s.plan.id, s.phase, s.weights) for s in begun] == [(PLAN.id, machine.CANARY_STEP, SHARES)]


@pytest.mark.parametrize("how", [["--dry-run"], []])
def test_an_alias_that_a_store_that_hangs_would_have_to_say_is_trouble(
    place: Place, monkeypatch: pytest.MonkeyPatch, hanging: Hangs, how: list[str]
) -> None:
    monkeypatch.setattr(cli, "check_front", lambda _: None)
    done = CliRunner().invoke(cli.command, ["start", "m@challenger", *how], standalone_mode=False)
    assert isinstance(done.exception, StoreError)
    assert "the store has not answered for 0.5 s" in str(done.exception)
    assert not hanging.let_go.is_set()


def test_a_rollout_that_somebody_has_just_begun_to_steer_and_has_no_journal_yet_is_said(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, there, told = MemoryStore(), front(), []
    monkeypatch.setattr(session, "open_store", lambda _: store)
    monkeypatch.setattr(session, "TAKEN_SECONDS", 0.1)
    monkeypatch.setattr(kinds, "router", lambda _: there)
    place.journal.store.delete("rollout.json")
    opened(store)
    lock = Lock(place.folder)
    assert lock.take()
    with pytest.raises(Trouble, match=f"nobody here says what becomes of the rollout {PLAN.id}") as e:
        take_back(place, Order("rollback", "ann", ""), lambda: told.append(there.weights))
    lock.release()
    assert (e.value.code, e.value.exit_code, told) == ("rollout-unknown", 3, [{STABLE: WHOLE}])


def opened(store: MemoryStore) -> None:
    """The ledger has the rollout, with versions that passed their gate."""
    registry = Registry(store)
    for target, alias in ((PLAN.stable, "champion"), (PLAN.candidate, "challenger")):
        said = {"version": target.version, "digest": target.digest, "kind": "file", "size": 1, "evidence": "sha256:e"}
        verdict = {"outcome": "pass", "model": target.digest}
        body = {**said, "verdict": verdict, "lineage": {}, "alias": alias}
        registry.transact("m", lambda _, b=body: Entry("version", b), actor="t")  # type: ignore[misc]
    recorder, begun = LedgerRecorder(registry, "m", "ann"), machine.begin(PLAN, "c", 0).pending
    assert begun
    recorder.submit(begun)
    assert recorder.poll().generation == ROUND + 1


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


@pytest.mark.parametrize(("outcome", "code"), [("promoted", 0), ("rolled-back", 1)])
def test_the_exit_code_says_how_a_rollout_ended_although_nobody_reads_the_words(
    monkeypatch: pytest.MonkeyPatch, outcome: str, code: int
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "no")

    monkeypatch.setattr("tidegate.cli.rollout.click.echo", fails)
    assert cli._end(replace(at_a_quarter(), phase="ended", outcome=outcome), True, as_json=False) == code


@pytest.mark.parametrize(
    "option",
    [
        ["--step", "5,x", "such as 5,25,50,100."],
        ["--step", "50,25", "such as 5,25,50,100."],
        ["--step", "-5", "such as 5,25,50,100."],
        ["--deadline", "soon", "such as 90s, 15m, 1h or 2d."],
        ["--max-error-increase", "0.7", "to 0.5."],
        ["--latency-tolerance", "-1", "from 0 to 10."],
    ],
)
def test_rules_of_one_rollout_are_checked_as_a_policys_in_the_words_of_the_option(
    place: Place, monkeypatch: pytest.MonkeyPatch, option: list[str]
) -> None:
    monkeypatch.setattr(cli, "check_front", lambda _: None)
    name, value, allowed = option
    done = CliRunner().invoke(cli.command, ["start", "m", name, value], standalone_mode=False)
    assert isinstance(done.exception, UsageError)
    assert done.exception.found.startswith(f"{name} is ")
    assert value.strip("-") in done.exception.found
    assert done.exception.allowed.endswith(allowed)


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


def test_a_watch_ends_where_nobody_is_in_charge_and_says_who_could_be(place: Place) -> None:
    done = CliRunner().invoke(cli.command, ["watch", "m"], standalone_mode=False)
    assert (done.return_value, done.exception) == (3, None)
    assert "no controller is alive" in done.output
    assert "tidegate rollout start m goes on" in done.output


@pytest.mark.parametrize("words", [["status"], ["watch"], ["abort"], ["start"]])
def test_a_mistyped_name_is_said_with_the_fronts_that_were_started_here(place: Place, words: list[str]) -> None:
    done = CliRunner().invoke(cli.command, [*words, "n"], standalone_mode=False)
    assert isinstance(done.exception, ServerError)
    assert (done.exception.found, done.exception.allowed) == ("no front of n was ever started here", "There are: m.")
    assert [f.name for f in place.folder.parent.iterdir()] == ["m"], "and nothing is made"


def test_the_history_of_a_model_that_there_is_not_is_no_empty_one(place: Place, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.command, ["history", "frud", "--store", str(tmp_path)], standalone_mode=False)
    assert isinstance(done.exception, NotFound)
    done = CliRunner().invoke(rollback.command, ["m:1"], standalone_mode=False)
    assert "A NAME alone" in str(done.exception)


def test_no_traffic_is_said_with_what_to_do_about_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    there = MemoryFront(lambda: 0.0, {1: Behaviour()}, PLAN.stable)  # no time, no requests
    monkeypatch.setattr(kinds, "router", lambda _: there)
    monkeypatch.setattr(session, "MEASURE_SECONDS", 0.01)
    with pytest.raises(UsageError, match="the front had no request in 0.01 s") as e:
        measure(place)
    assert "--rate N" in e.value.hint
    assert measure(place, 5.0).rate == 5.0


def test_what_is_not_compared_has_no_sign_of_health_and_what_is_over_no_verdict() -> None:
    found = [
        Finding(PASS, f"latency is {NOT_COMPARED}: the canary has more").as_json(),
        Finding(PASS, "errors: none").as_json(),
    ]
    seen = session.view(at_a_quarter(), trials.begin(None), None, ()) | {"findings": found, "verdict": "continue"}
    shown = "\n".join(lines(seen))
    assert "  – latency is not compared" in shown
    assert "  ✓ errors: none" in shown
    assert "verdict: continue" in shown
    assert "verdict" not in "\n".join(lines(seen | {"phase": "ended"}))


def test_a_rollout_that_is_held_is_begun_anew_with_what_that_takes() -> None:
    seen = session.view(replace(at_a_quarter(), phase="held"), trials.begin(None), None, ())
    assert "tidegate rollout start m:2 --again" in lines(seen)[-1]


def test_a_rollout_that_prepares_has_no_step_yet(capsys: pytest.CaptureFixture[str]) -> None:
    store, there = MemoryStore(), front()
    seams = Seams(there, there, there, LedgerRecorder(Registry(store), "m", "ann"), Journal(store))
    with cli._shown(as_json=False) as report:
        report(Controller(seams, machine.begin(PLAN, "c", 3), trials.begin(None)))
        report(Controller(seams, at_a_quarter(), trials.begin(None)))
    said = capsys.readouterr().err
    assert "preparing: " in said
    assert "canary step 1: " in said


def test_a_dry_run_gives_its_plan_as_one_line_of_json(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    need = Need(500, 10.0, 50.0, "min_requests")
    begun = at_a_quarter(), trials.begin(None)
    monkeypatch.setattr(cli, "check_front", lambda _: None)
    monkeypatch.setattr(cli, "opened_here", lambda _: None)
    monkeypatch.setattr(cli, "prepare", lambda *_, **__: (Opening(PLAN, None, ("a note",)), (need,) * 4, begun))
    done = CliRunner().invoke(cli.command, ["start", "m", "--dry-run", "--json"], standalone_mode=False)
    said = json.loads(done.stdout)
    assert (said["id"], said["candidate"], said["stable"], said["notes"]) == ("m-v2-abc", 2, 1, ["a note"])
    assert [s["share"] for s in said["steps"]] == [5.0, 25.0, 50.0, 100.0]
    assert said["steps"][0]["requests"] == 500


def test_a_command_that_is_no_run_gives_its_error_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollout", "status", "n", "--json"]) == 3
    assert list(json.loads(capsys.readouterr().out)) == ["error"]


def test_a_controller_that_ends_while_somebody_looks_is_not_said_to_be_missing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, load = Lock(place.folder), Journal.load

    def ends(journal: Journal) -> object:
        found = load(journal)
        lock.release()
        return found

    assert lock.take()
    monkeypatch.setattr(Journal, "load", ends)
    assert session.NOBODY not in session.look(place)["trouble"]
    assert session.NOBODY in session.look(place)["trouble"]
