"""What a model's chain says of its rollouts: a candidate gets traffic step by step, then stays or is taken back.

A record of the kind ``rollout`` has an ``event``, the rollout's ``id``, a ``generation`` that grows from record to record
of the model, the candidate's ``share`` of live traffic (parts of 10,000) and ``step``, a ``reason`` in words and
``evidence`` in numbers. Looks are no records: only what changes what may be served, who decides, or says why.

Rules of the fold (a chain that breaks one is damaged):

* ``started``: no rollout is open; the candidate passed its gate on its own bytes and is not the champion; ``stable`` is.
* Every other record names the open rollout and has a higher generation than the record before.
* ``step``: the next one, with more traffic than before.
* ``promoted``: ``stable`` is the champion still; from this record on the candidate is. The record *is* the move.
* ``rolled-back``, ``aborted``: the rollout ends with a share of 0; after a promotion ``stable`` is champion again, unless
  somebody made another version champion meanwhile. Right after ``finished`` too: a controller that takes traffic away
  does so before it knows what became of its last record.
* ``held``: the deadline of a step went by; a person has to decide. ``resumed``: another controller goes on.
* ``finished``: after ``promoted`` only; the version before is no longer kept warm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

STARTED, STEP, PROMOTED, HELD, RESUMED = "started", "step", "promoted", "held", "resumed"
ROLLED_BACK, ABORTED, FINISHED = "rolled-back", "aborted", "finished"
WITHDRAWN = (ROLLED_BACK, ABORTED)
CHAMPION = "champion"
WHOLE = 10_000


@dataclass(frozen=True)
class Rollout:
    """The last rollout of a model, as its chain has it.

    Attributes:
        id: its name, unique in the chain.
        candidate: the version that gets traffic.
        stable: the version that had it before.
        generation: of the last record.
        event: the last record's.
        step: the last step that began, from 0; -1 before the first.
        share: the most that the candidate may be given, in parts of 10,000.
        promoted: whether the candidate was made champion.
        held: whether a deadline went by, after which only a person goes on.
        controller: who wrote the last record.
        reason: why, in words.
        changed: when the last record was written.
    """

    id: str
    candidate: int
    stable: int
    generation: int = 0
    event: str = STARTED
    step: int = -1
    share: int = 0
    promoted: bool = False
    held: bool = False
    controller: str = ""
    reason: str = ""
    changed: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it goes on."""
        return self.event not in (*WITHDRAWN, FINISHED)

    def takes(self, event: str) -> bool:
        """Whether a record of this event may follow."""
        return self.is_open or (self.event == FINISHED and event in WITHDRAWN)


class Illegal(ValueError):
    """A record that breaks a rule of the fold; the text ends the sentence "the record …"."""


def fold(before: Rollout | None, champion: int, body: Mapping[str, Any], time: str) -> tuple[Rollout, int]:
    """Return the rollout after one more record, and the champion after it.

    Args:
        before: the last rollout of the model.
        champion: the version that the alias champion names; 0 for none.
        body: the record's.
        time: the record's.

    Raises:
        Illegal: the record breaks a rule.
        KeyError, TypeError: it is no such record.
    """
    event, generation = body["event"], body["generation"]
    if event == STARTED:
        after = _started(before, champion, body)
    elif before is None or body["id"] != before.id or not before.takes(event):
        raise Illegal(f"is of the rollout {body['id']!r}, which is not open")
    elif event in _RULES:
        after = _RULES[event](before, champion, body)
    else:
        raise Illegal(f"has the unknown event {event!r}")
    if type(generation) is not int or generation <= (before.generation if before else 0):
        raise Illegal(f"has the generation {generation!r} after {before.generation if before else 0}")
    said = {"generation": generation, "event": event, "controller": str(body.get("controller", ""))}
    after = replace(after, **said, reason=str(body.get("reason", "")), changed=time)
    return after, _champion(after, champion)


def _started(before: Rollout | None, champion: int, body: Mapping[str, Any]) -> Rollout:
    candidate, stable = body["candidate"], body["stable"]
    if before is not None and before.is_open:
        raise Illegal(f"starts a rollout while {before.id} is open")
    if type(candidate) is not int or stable != champion or candidate == champion:
        raise Illegal(f"compares version {candidate!r} with {stable!r} while the champion is {champion}")
    if body.get("share", 0) != 0:
        raise Illegal("gives traffic before the first step")
    return Rollout(str(body["id"]), candidate, stable)


def _step(before: Rollout, _: int, body: Mapping[str, Any]) -> Rollout:
    if before.promoted or before.held or body["step"] != before.step + 1:
        raise Illegal(f"is step {body['step']!r} after {before.step} ({before.event})")
    return replace(before, step=body["step"], share=_more(before, body))


def _promoted(before: Rollout, champion: int, body: Mapping[str, Any]) -> Rollout:
    if before.promoted or before.step < 0 or before.held:
        raise Illegal(f"promotes after {before.event}, step {before.step}")
    if champion != before.stable:
        raise Illegal(f"promotes what was compared with version {before.stable}; the champion is {champion}")
    return replace(before, share=_more(before, body, or_same=True), promoted=True)


def _withdrawn(before: Rollout, _: int, __: Mapping[str, Any]) -> Rollout:
    return replace(before, share=0)


def _held(before: Rollout, _: int, __: Mapping[str, Any]) -> Rollout:
    return replace(before, held=True)


def _same(before: Rollout, _: int, __: Mapping[str, Any]) -> Rollout:
    return before


def _finished(before: Rollout, _: int, __: Mapping[str, Any]) -> Rollout:
    if not before.promoted:
        raise Illegal("finishes a rollout that was not promoted")
    return replace(before, share=WHOLE)


def _more(before: Rollout, body: Mapping[str, Any], or_same: bool = False) -> int:
    share: Any = body["share"]
    if type(share) is not int or not before.share + (not or_same) <= share <= WHOLE:
        raise Illegal(f"gives the share {share!r} after {before.share}")
    return share


_RULES = {
    STEP: _step, PROMOTED: _promoted, HELD: _held, RESUMED: _same, FINISHED: _finished,
    **dict.fromkeys(WITHDRAWN, _withdrawn),
}  # fmt: skip


def _champion(after: Rollout, champion: int) -> int:
    if after.event == PROMOTED:
        return after.candidate
    if after.event in WITHDRAWN and after.promoted and champion == after.candidate:
        return after.stable
    return champion
