"""The ledger's side of a rollout: once, by one controller, and without keeping anybody waiting; and its journal."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from tests.servers import wait_until
from tidegate.errors import StoreError
from tidegate.registry.model import Entry, Registry
from tidegate.registry.rollouts import ABORTED, PROMOTED, ROLLED_BACK, STEP
from tidegate.rollout import judge
from tidegate.rollout import state as machine
from tidegate.rollout import trial as trials
from tidegate.rollout.controller import Controller, Seams
from tidegate.rollout.journal import STATE, Journal
from tidegate.rollout.judgement import WHOLE
from tidegate.rollout.memory import Behaviour, MemoryFront
from tidegate.rollout.recorder import Background, LedgerRecorder
from tidegate.rollout.state import ROUND, Order, Plan, Target
from tidegate.store.memory import MemoryStore

OLD, NEW = Target(1, "sha256:" + "a" * 64), Target(2, "sha256:" + "b" * 64)
PLAN = Plan("r", "m", NEW, OLD)


ODD = {"silent": StoreError(""), "odd": RuntimeError()}


class Store(MemoryStore):
    """Fails as it is told: before or after it has done it."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = ""
        self.gate = threading.Event()
        self.gate.set()

    def put_new(self, key: str, data: bytes) -> bool:
        self.gate.wait(60)
        if self.fails == "before":
            raise StoreError("away")
        if self.fails in ODD:
            raise ODD[self.fails]
        done = super().put_new(key, data)
        if self.fails == "after":
            raise StoreError("the outcome is unknown")
        return done


@pytest.fixture
def store() -> Store:
    made = Store()
    for target, alias in ((OLD, "champion"), (NEW, "challenger")):
        said = {"version": target.version, "digest": target.digest, "kind": "file", "size": 1, "evidence": "sha256:e"}
        verdict = {"outcome": "pass", "model": target.digest}
        body = {**said, "verdict": verdict, "lineage": {}, "alias": alias}
        Registry(made).transact("m", lambda _, b=body: Entry("version", b), actor="t")  # type: ignore[misc]
    return made


def body(event: str, generation: int, **more: Any) -> dict[str, Any]:
    who = {"id": "r", "candidate": 2, "stable": 1, "controller": "c", "reason": "", "evidence": {}}
    return {**who, "event": event, "generation": generation, "share": 0, "step": -1, **more}


def begun(store: Store) -> LedgerRecorder:
    recorder = LedgerRecorder(Registry(store), "m", "ann")
    opened = machine.begin(PLAN, "c", 0).pending
    assert opened
    recorder.submit(opened)
    assert recorder.poll().generation == ROUND + 1
    return recorder


def events(store: Store) -> list[str]:
    return [r.body["event"] for r in Registry(store).ledger.records("m") if r.kind == "rollout"]


def test_a_record_that_was_written_and_reported_as_lost_is_found_and_not_written_twice(store: Store) -> None:
    recorder = begun(store)
    step = body(STEP, ROUND + 2, step=0, share=500)
    store.fails = "after"
    recorder.submit(step)
    assert (recorder.poll().generation, recorder.poll().trouble) == (ROUND + 1, "the outcome is unknown")
    store.fails = ""
    recorder.submit(step)
    assert recorder.poll().generation == ROUND + 2
    assert events(store) == ["started", "step"]


def test_what_another_controller_wrote_is_not_written_over(store: Store) -> None:
    recorder = begun(store)
    other = LedgerRecorder(Registry(store), "m", "bob")
    other.submit(body(STEP, ROUND + 2, step=0, share=500, controller="d"))
    recorder.submit(body(STEP, ROUND + 2, step=0, share=500))
    refusal = recorder.poll().refusal
    assert refusal
    assert (refusal.superseded, "d wrote step" in refusal.reason) == (True, True)
    recorder.submit(body(ROLLED_BACK, 2 * ROUND))
    assert events(store) == ["started", "step", "rolled-back"], "but taking back is everybody's right"
    assert recorder.poll().generation == 2 * ROUND
    other.submit(body(STEP, ROUND + 3, step=1, share=2500, controller="d"))
    assert other.poll().refusal, "and ends what the other could give"
    other.submit(body(ABORTED, 2 * ROUND, controller="d"))
    assert (other.poll().generation, events(store)[2:]) == (2 * ROUND, ["rolled-back"]), "nothing is left to say"


def test_a_withdrawal_that_was_numbered_one_by_one_is_recorded_above_all_that_gave(store: Store) -> None:
    recorder = begun(store)
    recorder.submit(body(STEP, ROUND + 2, step=0, share=500))
    recorder.submit(body(ROLLED_BACK, 2))
    assert (recorder.poll().generation, events(store)[2:]) == (2 * ROUND, ["rolled-back"])


def test_a_record_that_would_damage_the_chain_is_refused_before_it_is_written(store: Store) -> None:
    recorder = begun(store)
    recorder.submit(body(PROMOTED, ROUND + 2, share=500))
    refusal = recorder.poll().refusal
    assert refusal
    assert "promotes after started" in refusal.reason
    assert Registry(store).verify("m")


def test_a_rollout_that_was_never_opened_leaves_nothing_to_take_back(store: Store) -> None:
    recorder = LedgerRecorder(Registry(store), "m", "ann")
    recorder.submit(body(ABORTED, 2 * ROUND))
    assert (recorder.poll().generation, events(store)) == (2 * ROUND, [])


def test_a_store_that_hangs_keeps_nobody_waiting(store: Store) -> None:
    recorder = Background(begun(store))
    store.gate.clear()
    step = body(STEP, ROUND + 2, step=0, share=500)
    for _ in range(3):
        recorder.submit(step)  # would hang here
    assert recorder.poll().generation == ROUND + 1
    store.gate.set()
    wait_until(lambda: recorder.poll().generation == ROUND + 2)
    assert events(store) == ["started", "step"]


def test_a_store_that_was_away_is_asked_again(store: Store) -> None:
    recorder = Background(begun(store))
    store.fails = "before"
    step = body(STEP, ROUND + 2, step=0, share=500)
    recorder.submit(step)
    wait_until(lambda: recorder.poll().trouble == "away")
    store.fails = ""

    def written() -> bool:
        recorder.submit(step)
        return recorder.poll().generation == ROUND + 2

    wait_until(written)


@pytest.mark.parametrize("odd", ODD)
def test_whatever_a_store_raises_is_trouble_and_the_record_is_asked_for_again(store: Store, odd: str) -> None:
    recorder = Background(begun(store))
    store.fails = odd
    step = body(STEP, ROUND + 2, step=0, share=500)
    recorder.submit(step)
    wait_until(lambda: recorder.poll().trouble == type(ODD[odd]).__name__)
    store.fails = ""

    def written() -> bool:
        recorder.submit(step)
        return recorder.poll().generation == ROUND + 2

    wait_until(written)


# The journal


def played(looks: int) -> tuple[Controller, list[float]]:
    now, store = [0.0], Store()
    table = tuple(tuple(50 * (i == j) for j in range(4)) for i in range(4))
    behaviours = {1: Behaviour(predictions=(0.25,) * 4), 2: Behaviour(predictions=(0.25,) * 4)}
    front = MemoryFront(lambda: now[0], behaviours, OLD, 5000.0)
    for target, alias in ((OLD, "champion"), (NEW, "challenger")):
        said = {"version": target.version, "digest": target.digest, "kind": "file", "size": 1, "evidence": "sha256:e"}
        whole = {**said, "verdict": {"outcome": "pass", "model": target.digest}, "lineage": {}, "alias": alias}
        Registry(store).transact("m", lambda _, b=whole: Entry("version", b), actor="t")  # type: ignore[misc]
    recorder = LedgerRecorder(Registry(store), "m", "ann")
    seams = Seams(front, front, front, recorder, Journal(MemoryStore()), lambda: now[0])
    controller = Controller(seams, machine.begin(PLAN, "c", 0), trials.begin(table))
    for _ in range(looks):
        controller.tick()
        now[0] += 0.25
    return controller, now


def test_a_trial_that_is_read_back_goes_on_as_if_it_had_never_stopped() -> None:
    controller, _ = played(20)
    assert controller.trial.judgement
    controller.seams.journal.save(controller.state, controller.trial)
    loaded = controller.seams.journal.load()
    assert loaded
    state, trial = loaded
    assert replace(state, at=controller.state.at, sights=controller.state.sights) == controller.state
    assert json.dumps(trials.as_json(trial)) == json.dumps(trials.as_json(controller.trial))
    seen, scores = controller.seams.router.observe(), controller.seams.scores.latest()
    one, other = (trials.after(t, controller.state, seen, scores, 0.25) for t in (trial, controller.trial))
    assert json.dumps(trials.as_json(one)) == json.dumps(trials.as_json(other))
    assert trials.judged(one, state) == trials.judged(other, state)


def without_refusals(value: Any, key: str = "") -> Any:
    """What a tidegate that counted no refusals would have kept in this place."""
    if key == "tallies":
        cut = {a: {"total": m["total"], **m["last"]} for a, m in value.items()}
        rows = {a: {k: [*row[:2], *row[3:]] for k, row in m.items()} for a, m in cut.items()}
        return {a: {"total": m.pop("total"), "last": m} for a, m in rows.items()}
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not k.startswith("refus")}
        return {k: without_refusals(v, k) for k, v in kept.items()}
    return value


def test_a_journal_of_a_tidegate_that_counted_no_refusals_begins_its_step_again_and_spends_no_alpha_twice() -> None:
    controller, now = played(60)
    trial = controller.trial
    assert trial.judgement
    kept = json.loads(json.dumps(trials.as_json(trial)))
    older = without_refusals(kept)
    assert len(older["counts"]["tallies"]["canary"]["total"]) == len(kept["counts"]["tallies"]["canary"]["total"]) - 1
    read = trials.from_json(older)
    assert trials.judged(read, controller.state) is None, "nothing is said of the step yet"
    for _ in range(3):
        now[0] += 0.25
        seen = controller.seams.router.observe()
        read = trials.after(read, controller.state, seen, controller.seams.scores.latest(), 0.25)
    assert read.judgement
    assert read.history == judge.then(trial.judgement)
    assert {*read.judgement.wealth} >= {"refusals", "refusal bound"}
    assert 0 < read.counts.tally("canary").requests < trial.counts.tally("canary").requests


def test_a_journal_of_a_tidegate_that_compared_the_slowest_answers_only_goes_on_with_them() -> None:
    controller, now = played(60)
    older = json.loads(json.dumps(trials.as_json(controller.trial)))
    del older["judgement"]["usual"], older["judgement"]["wealth"][WHOLE]
    read = trials.from_json(older)
    now[0] += 0.25
    read = trials.after(read, controller.state, controller.seams.router.observe(), {}, 0.25)
    assert controller.trial.judgement
    assert read.judgement
    assert {*read.judgement.wealth} == {*controller.trial.judgement.wealth} - {WHOLE}
    assert read.judgement.seen.canary.requests > controller.trial.judgement.seen.canary.requests


@pytest.mark.parametrize("spoil", [b"", b"x", b"{}", None])
def test_a_journal_that_cannot_be_read_is_none(spoil: bytes | None) -> None:
    controller, _ = played(3)
    journal = controller.seams.journal
    text = journal.store.get(STATE)
    journal.store.put(STATE, text.replace(b'"m"', b'"n"', 1) if spoil is None else spoil)
    assert journal.load() is None


def test_an_order_is_of_one_rollout() -> None:
    journal = Journal(MemoryStore())
    assert journal.ordered("r") is None
    journal.order("r", Order("abort", "ann", "hm"))
    assert (journal.ordered("r"), journal.ordered("other")) == (Order("abort", "ann", "hm"), None)


def test_the_look_after_a_change_of_weights_is_due_at_once_for_the_counts_of_a_step_begin_with_it() -> None:
    controller, now = played(0)
    moved = []
    for _ in range(40):
        before = controller.seams.router.observe().generation
        controller.tick()
        assert controller.has_moved == (controller.seams.router.observe().generation != before)
        moved.append(controller.has_moved)
        now[0] += 0.25
    assert 1 < sum(moved) < 5
