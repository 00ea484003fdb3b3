"""The ledger's side of a rollout: each record once, by one controller, of a version that may be served.

A record may be asked for any number of times: the one that is in the chain already is found again by its generation and
its controller. Before a record that gives traffic is written, the chain of this very moment is asked whether the version
may be served, whether the champion is still the one it is compared with, and whether anybody else wrote meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tidegate.errors import Damaged, ModelRefused, NotFound, TidegateError
from tidegate.registry import rollouts
from tidegate.registry.model import Entry, ModelState, Registry, may_serve
from tidegate.registry.rollouts import CHAMPION, PROMOTED, STARTED, WITHDRAWN
from tidegate.rollout.state import Refusal, next_round

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0


@dataclass(frozen=True)
class Written:
    """What the ledger is known to hold: the generation of our last record in it, and why it refuses the next.

    That of a withdrawal is higher than asked for where the ledger has a higher one.
    """

    generation: int = 0
    refusal: Refusal | None = None
    trouble: str = ""


class Recorder(Protocol):
    """Writes records of one rollout, without ever keeping a controller waiting."""

    def submit(self, body: Mapping[str, Any]) -> None:
        """Let the ledger hold this record; asked again until it does."""

    def poll(self) -> Written:
        """Return what is known of the last one."""


class Undue(Exception):
    """A record that the chain of this moment does not take."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def in_words(error: Exception) -> str:
    """The first line of what an exception says, else its name."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@dataclass
class LedgerRecorder:
    """Writes at once, in the caller's own time.

    Args:
        registry: where.
        model: whose chain.
        actor: who.
        may: raises ``ModelRefused`` for a version that may not be served.
    """

    registry: Registry
    model: str
    actor: str
    may: Callable[[ModelState, Any], None] = may_serve
    known: Written = Written()

    def submit(self, body: Mapping[str, Any]) -> None:
        """See ``Recorder``."""
        self.known = self.write(body)

    def poll(self) -> Written:
        """See ``Recorder``."""
        return self.known

    def write(self, body: Mapping[str, Any]) -> Written:
        """Write a record, and say what became of it."""
        try:
            state, _ = self.registry.transact(self.model, lambda state: self._entry(state, body), actor=self.actor)
        except Undue as e:
            return replace(self.known, refusal=e.refusal, trouble="")
        except (Damaged, NotFound, ModelRefused) as e:
            return replace(self.known, refusal=Refusal(e.found), trouble="")
        except (TidegateError, OSError) as e:
            return replace(self.known, refusal=None, trouble=in_words(e))
        last = state.rollout
        return Written(max(body["generation"], last.generation if last and last.id == body["id"] else 0))

    def _entry(self, state: ModelState, body: Mapping[str, Any]) -> Entry | None:
        """Return the record to write; None where it is written already, or nothing is left to say.

        Raises:
            Undue: the chain does not take it.
            ModelRefused: the version may not be served.
        """
        chain = state.rollout
        is_ours = chain is not None and chain.id == body["id"]
        if is_ours and chain and (chain.generation, chain.controller) == (body["generation"], body["controller"]):
            return None
        if body["event"] in WITHDRAWN:
            if not is_ours or chain is None or not chain.takes(body["event"]):
                return None
            body = {**body, "generation": max(body["generation"], next_round(chain.generation))}
        else:
            self._check(state, body)
        try:
            rollouts.fold(chain, state.aliases.get(CHAMPION, 0), body, "")
        except rollouts.Illegal as e:
            raise Undue(Refusal(f"the ledger takes no record that {e}")) from e
        return Entry("rollout", body)

    def _check(self, state: ModelState, body: Mapping[str, Any]) -> None:
        chain, event = state.rollout, body["event"]
        if event == STARTED:
            if chain and chain.is_open:
                raise Undue(Refusal(f"the rollout {chain.id} of {self.model} is open", superseded=True))
        elif chain is None or chain.id != body["id"] or not chain.is_open or chain.generation >= body["generation"]:
            found = f"{chain.controller} wrote {chain.event} of {chain.id}" if chain else "the chain knows no rollout"
            raise Undue(Refusal(f"{found}: another controller is in charge", superseded=True))
        version = state.versions.get(body["candidate"])
        if version is None:
            raise Undue(Refusal(f"{self.model} has no version {body['candidate']}"))
        self.may(state, version)
        champion = state.aliases.get(CHAMPION, 0)
        if event in (STARTED, PROMOTED) and champion != body["stable"]:
            why = f"the champion is version {champion} now, which the candidate was not compared with"
            raise Undue(Refusal(why))


class Background:
    """A recorder whose writing is done by a thread: an outage of the store delays nothing else.

    Args:
        recorder: what the thread uses.
        clock: seconds that only grow.
    """

    def __init__(self, recorder: LedgerRecorder, clock: Callable[[], float] = time.monotonic) -> None:
        self._recorder, self._clock = recorder, clock
        self._wanted: Mapping[str, Any] | None = None
        self._again, self._pause = 0.0, FIRST_PAUSE
        self._awake, self._lock = threading.Event(), threading.Lock()
        self._known = recorder.known
        threading.Thread(target=self._work, daemon=True, name="ledger").start()

    def submit(self, body: Mapping[str, Any]) -> None:
        """See ``Recorder``."""
        with self._lock:
            if body != self._wanted:
                self._wanted, self._again, self._pause = body, 0.0, FIRST_PAUSE
                self._known = replace(self._known, refusal=None)
            if self._clock() >= self._again:
                self._awake.set()

    def poll(self) -> Written:
        """See ``Recorder``."""
        with self._lock:
            return self._known

    def _write(self, body: Mapping[str, Any]) -> Written:
        try:
            return self._recorder.write(body)
        except Exception as e:  # whatever it is, without this thread nothing is written any more
            return replace(self.poll(), trouble=in_words(e))

    def _work(self) -> None:
        while True:
            self._awake.wait()
            with self._lock:
                body = self._wanted
                self._awake.clear()
            if body is None or body["generation"] <= self.poll().generation:
                continue
            self._recorder.known = self.poll()
            known = self._write(body)
            with self._lock:
                if body == self._wanted or known.generation > self._known.generation:
                    self._known = known
                self._again = self._clock() + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
