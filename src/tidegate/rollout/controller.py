"""The loop around a rollout: look, let the judge and the rules decide, do what they say; ten times a second.

It decides nothing itself. What cannot be seen is passed on as not seen, what cannot be done is tried again at the next
look, and nothing that answers slowly (store, servers of a candidate) is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from tidegate.errors import TidegateError
from tidegate.rollout import state as machine
from tidegate.rollout import trial as trials
from tidegate.rollout.fleet import Fleet, Scores
from tidegate.rollout.journal import Journal
from tidegate.rollout.recorder import Recorder, in_words
from tidegate.rollout.router import Router
from tidegate.rollout.state import Action, Record, Save, Seen, SetMirror, SetWeights, State, Want
from tidegate.rollout.trial import Trial

LOOK_SECONDS, SOON_SECONDS, SAVE_SECONDS = 0.1, 0.01, 1.0
T = TypeVar("T")


@runtime_checkable
class Mirror(Protocol):
    """A router that can send copies of requests to the canary."""

    def set_mirror(self, share: int) -> None:
        """Send this share, in parts of 10,000, from now on; the same again changes nothing.

        Raises:
            ServerError: it is not known whether it does.
        """


@dataclass(frozen=True)
class Seams:
    """Everything outside a rollout that its controller looks at or acts on."""

    router: Router
    fleet: Fleet
    scores: Scores
    recorder: Recorder
    journal: Journal
    clock: Callable[[], float] = time.monotonic
    mirror: Mirror | None = None


@dataclass
class Controller:
    """One process in charge of one rollout.

    Attributes:
        seams: the world.
        state: of the rollout.
        trial: of its present step.
        seen: what was seen at the last look.
        trouble: what could not be done at the last look, in words.
        has_moved: whether weights were set at the last look. The counts of a step begin with the next one, which is due soon.
    """

    seams: Seams
    state: State
    trial: Trial
    seen: Seen = field(default_factory=Seen)
    trouble: tuple[str, ...] = ()
    has_moved: bool = False
    _at: float | None = None
    _saved: float = float("-inf")
    _is_dirty: bool = True

    def tick(self) -> State:
        """Look once, and do what follows from it."""
        now = self.seams.clock()
        self.trouble, self.has_moved = (), False
        self.seen = self._look(now)
        self.state, actions = machine.advance(self.state, self.seen, now)
        self._do(actions)
        if not self.state.is_lost and (self._is_dirty or now - self._saved >= SAVE_SECONDS):
            self._save(now)
        self._at = now
        return self.state

    def _look(self, now: float) -> Seen:
        seams = self.seams
        router = self._try(seams.router.observe, "the front")
        scores = self._try(seams.scores.latest, "the servers' scores") or {}
        passed = max(now - self._at, 0.0) if self._at is not None else 0.0
        self.trial = trials.after(self.trial, self.state, router, scores, passed)
        written = seams.recorder.poll()
        if written.trouble:
            self.trouble += (f"the ledger: {written.trouble}",)
        return Seen(
            router,
            self._try(seams.fleet.wanted, "the fleet"),
            self._try(seams.fleet.running, "the fleet"),
            trials.judged(self.trial, self.state),
            written.generation,
            written.refusal,
            self._try(lambda: seams.journal.ordered(self.state.plan.id), "the journal"),
        )

    def _do(self, actions: tuple[Action, ...]) -> None:
        """Do actions in their order; where one fails that others wait for, they are asked for again."""
        is_taking = self.state.phase == machine.WITHDRAWN
        self._is_dirty |= any(isinstance(a, Save) for a in actions)
        for action in actions:
            if self._is_dirty and not is_taking and not self._save(self.seams.clock()):
                return
            self._perform(action)

    def _perform(self, action: Action) -> None:
        seams = self.seams
        match action:
            case SetWeights(weights, generation):
                self._try(lambda: self._set(weights, generation), "the front")
            case SetMirror(share) if seams.mirror:
                mirror = seams.mirror
                self._try(lambda: mirror.set_mirror(share), "the front")
            case Want(arms, generation):
                self._try(lambda: seams.fleet.want(arms, generation), "the fleet")
            case Save() if self._is_dirty:
                self._save(seams.clock())
            case Record(body):
                self._try(lambda: seams.recorder.submit(body), "the ledger")

    def _set(self, weights: Mapping[str, int], generation: int) -> None:
        self.seams.router.set_weights(weights, generation)
        self.has_moved = True

    def _save(self, now: float) -> bool:
        self._is_dirty = self._try(lambda: self.seams.journal.save(self.state, self.trial), "the journal") is None
        self._saved = self._saved if self._is_dirty else now
        return not self._is_dirty

    def _try(self, call: Callable[[], T], what: str) -> T | None:
        try:
            return call()
        except (TidegateError, OSError) as e:
            self.trouble += (f"{what}: {in_words(e)}",)
            return None
