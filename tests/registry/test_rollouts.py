"""Rollouts in a model's chain: what may follow what, and that the record is the move of the alias."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.errors import Damaged, UsageError
from tidegate.registry.ledger import Head
from tidegate.registry.model import CHECKPOINT_EVERY, Entry, ModelState, Registry
from tidegate.registry.rollouts import (
    ABORTED,
    FINISHED,
    HELD,
    PROMOTED,
    RESUMED,
    ROLLED_BACK,
    STARTED,
    STEP,
    Illegal,
    Rollout,
    fold,
)
from tidegate.store.memory import MemoryStore

OLD, NEW = 1, 2


def body(event: str, generation: int, **more: Any) -> dict[str, Any]:
    who = {"id": "r", "candidate": NEW, "stable": OLD, "controller": "c"}
    return {**who, "event": event, "generation": generation, "share": 0, "step": -1, "reason": "", **more}


def folded(*bodies: dict[str, Any], champion: int = OLD) -> tuple[Rollout, int]:
    rollout = None
    for b in bodies:
        rollout, champion = fold(rollout, champion, b, "now")
    assert rollout
    return rollout, champion


BEGUN = (body(STARTED, 1), body(STEP, 2, step=0, share=500))
DONE = (*BEGUN, body(PROMOTED, 3, share=9500))


def test_a_promotion_moves_the_champion_and_taking_it_back_moves_it_back() -> None:
    assert folded(*BEGUN) == (
        Rollout("r", NEW, OLD, 2, STEP, 0, 500, controller="c", changed="now"), OLD,
    )  # fmt: skip
    assert folded(*DONE)[1] == NEW
    assert folded(*DONE, body(FINISHED, 4))[1] == NEW
    for event in (ROLLED_BACK, ABORTED):
        after, champion = folded(*DONE, body(event, 4))
        assert (after.is_open, after.share, champion) == (False, 0, OLD)
    assert folded(*DONE, body(FINISHED, 4), body(ROLLED_BACK, 5))[1] == OLD, "taken back before it knew"


def test_a_champion_that_somebody_else_made_is_not_moved_back() -> None:
    before, _ = folded(*DONE)
    assert fold(before, 7, body(ROLLED_BACK, 4), "now")[1] == 7


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ((), body(STEP, 1, step=0, share=5), "not open"),
        ((), body(STARTED, 1, stable=9), "champion is 1"),
        ((), body(STARTED, 1, candidate=OLD), "champion is 1"),
        ((), body(STARTED, 1, share=500), "before the first step"),
        ((), body(STARTED, 0), "generation 0"),
        (BEGUN, body(STARTED, 3), "is open"),
        (BEGUN, body(STEP, 3, step=1, share=500), "share 500"),
        (BEGUN, body(STEP, 3, step=1, share=400), "share 400"),
        (BEGUN, body(STEP, 3, step=1, share=10_001), "share 10001"),
        (BEGUN, body(STEP, 3, step=1, share=True), "share True"),
        (BEGUN, body(STEP, 3, step=2, share=600), "step 2 after 0"),
        (BEGUN, body(STEP, 2, step=1, share=600), "generation 2 after 2"),
        (BEGUN, body(STEP, 3.5, step=1, share=600), "generation 3.5"),
        (BEGUN, body("looked", 3), "unknown event"),
        (BEGUN, {**body(STEP, 3, step=1, share=600), "id": "other"}, "'other', which is not open"),
        (BEGUN, body(FINISHED, 3), "not promoted"),
        (BEGUN[:1], body(PROMOTED, 2, share=500), "promotes after started"),
        ((*BEGUN, body(HELD, 3)), body(STEP, 4, step=1, share=600), "step 1 after 0"),
        ((*BEGUN, body(HELD, 3), body(RESUMED, 4)), body(STEP, 5, step=1, share=600), "step 1 after 0"),
        ((*BEGUN, body(HELD, 3)), body(PROMOTED, 4, share=600), "promotes after held"),
        ((*BEGUN, body(ABORTED, 3)), body(STEP, 4, step=1, share=600), "not open"),
        (DONE, body(STEP, 4, step=1, share=9600), "step 1 after 0"),
        (DONE, body(PROMOTED, 4, share=9600), "promotes after promoted"),
    ],
)
def test_a_record_that_breaks_a_rule_is_damage(before: tuple[dict[str, Any], ...], after: Any, why: str) -> None:
    rollout = folded(*before)[0] if before else None
    champion = folded(*before)[1] if before else OLD
    with pytest.raises(Illegal, match=why):
        fold(rollout, champion, after, "now")


def test_what_was_compared_with_a_former_champion_is_not_promoted() -> None:
    before, _ = folded(*BEGUN)
    with pytest.raises(Illegal, match="compared with version 1; the champion is 3"):
        fold(before, 3, body(PROMOTED, 3, share=9500), "now")


# In the chain itself


def version(number: int, alias: str = "") -> Entry:
    digest = f"sha256:{number:064x}"
    said = {"version": number, "digest": digest, "kind": "file", "size": 1, "evidence": "sha256:e", "lineage": {}}
    return Entry("version", {**said, "verdict": {"outcome": "pass", "model": digest}, "alias": alias})


@pytest.fixture
def registry() -> Registry:
    made = Registry(MemoryStore())
    write(made, version(1, "champion"))
    write(made, version(2, "challenger"))
    return made


def write(registry: Registry, entry: Entry) -> ModelState:
    return registry.transact("m", lambda _: entry, actor="ann")[0]


def test_the_alias_moves_with_the_record_that_promotes(registry: Registry) -> None:
    for b in DONE:
        assert write(registry, Entry("rollout", b)).head == registry.state("m").head
    assert registry.state("m").aliases == {"champion": 2, "challenger": 2}
    assert write(registry, Entry("rollout", body(ROLLED_BACK, 4))).aliases["champion"] == 1
    assert registry.verify("m").rollout == registry.state("m").rollout


def test_a_rollout_of_a_version_that_is_not_there_damages_the_chain(registry: Registry) -> None:
    with pytest.raises(Damaged, match="version 9, which is not there"):
        write(registry, Entry("rollout", body(STARTED, 1, candidate=9)))


def test_while_a_rollout_is_open_nobody_else_moves_the_champion(registry: Registry) -> None:
    write(registry, Entry("rollout", BEGUN[0]))
    with pytest.raises(UsageError, match="only it moves") as caught:
        registry.promote("m", 2, "champion", actor="ann")
    assert caught.value.code == "rollout-open"
    assert registry.promote("m", 1, "champion", actor="ann")[1] is False, "it is champion already"
    assert registry.promote("m", 2, "shown", actor="ann")[1], "other aliases are free"
    write(registry, Entry("rollout", body(ABORTED, 2)))
    assert registry.promote("m", 2, "champion", actor="ann")[1]


def test_a_checkpoint_holds_the_rollout_and_an_old_one_without_is_read_on(registry: Registry) -> None:
    write(registry, Entry("rollout", BEGUN[0]))
    for i in range(CHECKPOINT_EVERY):
        write(registry, Entry("rollout", body(RESUMED, i + 2)))
    cold = Registry(registry.store)
    state = cold.state("m")
    assert state.rollout
    assert (state.rollout.generation, state.rollout.id) == (CHECKPOINT_EVERY + 1, "r")
    kept = cold._checkpoint("m")
    assert kept.head.seq > 0
    assert kept.rollout
    assert cold.verify("m") == state


def test_a_chain_without_rollouts_reads_as_before(registry: Registry) -> None:
    state = registry.state("m")
    assert (state.rollout, state.head == Head()) == (None, False)
    assert registry.verify("m") == state
