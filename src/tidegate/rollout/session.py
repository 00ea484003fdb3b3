"""A rollout on this machine: begun, gone on with, looked at, ordered back; beside the front whose traffic it moves."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from tidegate.errors import ConfigError, Conflict, NotFound, ServerError, StoreError, TidegateError, Trouble, UsageError
from tidegate.project import user_name
from tidegate.registry.model import ModelState, Registry
from tidegate.registry.rollouts import Rollout
from tidegate.rollout import state as machine
from tidegate.rollout import trial as trials
from tidegate.rollout.controller import LOOK_SECONDS, SOON_SECONDS, Controller, Mirror, Seams
from tidegate.rollout.exposure import Live, Need, live
from tidegate.rollout.front import kinds
from tidegate.rollout.front.fleet import front_folder, read_fleet, read_running
from tidegate.rollout.front.process import is_alive
from tidegate.rollout.front.weights import Weights, committed
from tidegate.rollout.journal import Journal, Lock
from tidegate.rollout.opening import Opening, check_exposure, check_same, open_rollout
from tidegate.rollout.recorder import Background, LedgerRecorder
from tidegate.rollout.router import CANARY, STABLE, WHOLE, Observation, Router, Tally
from tidegate.rollout.servers import FrontFleet, ServerScores
from tidegate.rollout.state import ENDED, SETTLING, Order, Plan, State, Target
from tidegate.rollout.trial import Trial
from tidegate.store.base import Store
from tidegate.store.local import LocalStore
from tidegate.store.open import open_store

NOBODY = "no controller is alive"
TAKEN_SECONDS, TOLD_SECONDS = 2.0, 15.0
MEASURED, MEASURE_SECONDS = 2000, 5.0
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where a model's rollouts are steered from: its front on this machine, and the registry."""

    name: str
    uri: str | None = None

    @cached_property
    def store(self) -> Store:
        """The registry's, opened where it is first needed: taking traffic back needs none."""
        return open_store(self.uri)

    @property
    def folder(self) -> Path:
        """The front's."""
        return front_folder(self.name)

    @property
    def journal(self) -> Journal:
        """The rollouts' journal."""
        return Journal(LocalStore(self.folder / "rollout"))

    @property
    def router(self) -> Router:
        """The front."""
        return kinds.router(self.folder)

    @property
    def registry(self) -> Registry:
        """The ledger's models."""
        return Registry(self.store)

    def chain(self) -> Rollout | None:
        """The model's last rollout, as the ledger has it."""
        return self.registry.state(self.name).rollout

    def seams(self, actor: str = "") -> Seams:
        """What a controller looks at and acts on."""
        recorder = Background(LedgerRecorder(self.registry, self.name, actor or user_name()))
        router, scores = self.router, ServerScores(self.folder)
        mirror = router if isinstance(router, Mirror) else None
        return Seams(router, FrontFleet(self.folder, self.name), scores, recorder, self.journal, mirror=mirror)


def controller_name() -> str:
    """A name that no other process has: user, machine, process."""
    return f"{user_name()}@{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


@contextmanager
def in_charge(place: Place) -> Iterator[Lock]:
    """Be the one controller of a front.

    Raises:
        Conflict: another process is.
    """
    lock = Lock(place.folder)
    lock.demand(place.name)
    try:
        yield lock
    finally:
        lock.release()


def check_front(place: Place) -> None:
    """Make sure that there is a front to steer.

    Raises:
        ServerError: none runs.
    """
    running = read_running(place.folder)
    if not running.supervisor or not is_alive(running.supervisor):
        raise ServerError(
            f"no front of {place.name} runs on this machine",
            allowed="A rollout is steered from where its front runs.",
            hint=f"tidegate front {place.name}",
            code="rollout-no-front",
        )


def opened_here(place: Place) -> State | None:
    """Return the rollout that the journal says is not over; nothing is changed."""
    loaded = place.journal.load()
    return loaded[0] if loaded and loaded[0].phase != ENDED else None


def steered(place: Place, pid: int) -> State | None:
    """Return the rollout that a process of this machine was the last to steer; None where it has not begun to."""
    loaded = place.journal.load()
    return loaded[0] if loaded and loaded[0].controller.rsplit("-", 2)[1:2] == [str(pid)] else None


def unfinished(place: Place) -> tuple[State, Trial] | None:
    """Return the rollout that is not over yet and this machine can go on with; None where there is none.

    A store that has not answered for ``TOLD_SECONDS`` counts as away.

    Raises:
        Damaged, StoreError: the ledger cannot be read, and the journal says nothing.
    """
    loaded = place.journal.load()
    state = machine.resume(loaded[0], _chain_if_there(place), controller_name()) if loaded else None
    if state is not None and loaded:
        return state, loaded[1]
    model = _model(place)
    chain = model.rollout
    if chain is None or not chain.is_open:
        return None
    place.journal.order(
        chain.id, Order("rollback", "", "the journal of the rollout is lost: what its judge used is unknown")
    )
    return machine.recover(_plan(model, chain), chain, controller_name()), trials.begin(None)


def check_open(place: Place, plan: Plan, reference: str, changes: Mapping[str, Any]) -> None:
    """See ``check_same``; a store that an alias has to be looked up in is waited for ``TOLD_SECONDS``.

    Raises:
        NotFound, UsageError: see there.
        StoreError: the store does not say which version is meant.
    """
    _answered(lambda: check_same(place.registry, plan, reference, changes))


def _chain_if_there(place: Place) -> Rollout | None:
    with suppress(StoreError):  # its journal knows enough to take traffic back
        return _model(place).rollout
    return None


def _model(place: Place) -> ModelState:
    return _answered(lambda: place.registry.state(place.name))


def _answered(call: Callable[[], T]) -> T:
    """What a store answers; asked by a thread, which is left behind with one that hangs."""
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(call())
        except Exception as e:
            answer.set_exception(e)

    threading.Thread(target=ask, daemon=True, name="registry").start()
    if not wait([answer], TOLD_SECONDS).done:
        hint = "Say it again once it answers, or name another one: --store URI"
        raise StoreError(f"the store has not answered for {TOLD_SECONDS:g} s", hint=hint)
    return answer.result()


def _plan(model: ModelState, chain: Rollout) -> Plan:
    new, old = (model.versions[number] for number in (chain.candidate, chain.stable))
    return Plan(chain.id, model.name, Target(new.version, new.digest), Target(old.version, old.digest))


def prepare(
    place: Place, ref: str, changes: Mapping[str, Any], *, again: bool = False, rate: float | None = None
) -> tuple[Opening, tuple[Need, ...], tuple[State, Trial]]:
    """Return a rollout that may begin, what each of its steps needs of live traffic, and its first state.

    Raises:
        NotFound, UsageError, ModelRefused: see ``open_rollout``, ``begin``, ``check_exposure``.
        ServerError: the front cannot be asked.
    """
    opening = open_rollout(place.registry, place.name, ref, changes, again=again)
    begun = begin(place, opening)
    return opening, check_exposure(opening.plan, measure(place, rate)), begun


def measure(place: Place, rate: float | None = None) -> Live:
    """Return what live traffic is like now, looked at until some requests came or ``MEASURE_SECONDS`` are over.

    Args:
        place: where.
        rate: requests a second to expect; then nothing is counted, and no error expected.

    Raises:
        ServerError: the front cannot be asked.
        UsageError: nobody asks it anything (code ``rollout-no-traffic``).
    """
    if rate:
        return Live(rate)
    first, began, tally = place.router.observe(), time.monotonic(), Tally()
    while tally.requests < MEASURED and time.monotonic() - began < MEASURE_SECONDS:
        time.sleep(0.2)
        tally = _between(first, place.router.observe())
    if not tally.requests:
        raise UsageError(
            f"the front had no request in {MEASURE_SECONDS:g} s",
            allowed="Live traffic to judge by.",
            hint="send it traffic, or say what to expect with --rate N",
            code="rollout-no-traffic",
        )
    return live(tally, time.monotonic() - began)


def _between(first: Observation, now: Observation) -> Tally:
    """What all arms counted since; nothing where the front was started again."""
    arms = now.arms if now.epoch == first.epoch else {}
    found = Tally()
    for arm, tally in arms.items():
        before = first.arms.get(arm, Tally())
        latency = tuple(f + t - b for f, t, b in zip(found.latency, tally.latency, before.latency, strict=True))
        requests, errors = tally.requests - before.requests, tally.errors - before.errors
        refused = found.refused + tally.refused - before.refused
        found = Tally(found.requests + requests, found.errors + errors, latency, refused)
    return found


def begin(place: Place, opening: Opening) -> tuple[State, Trial]:
    """Return a new rollout's first state.

    Raises:
        ServerError: the front cannot be asked.
        UsageError: the front serves another version than the champion, or cannot copy requests as the policy wants.
    """
    seen = place.router.observe()
    if opening.plan.rules.shadow and not isinstance(place.router, Mirror):
        raise UsageError(
            f"the front of {place.name} cannot copy requests, the policy wants {opening.plan.rules.shadow:g} s of shadow",
            allowed="A front that can, or a policy without shadow.",
            hint=f"tidegate front {place.name} --proxy envoy",
            code="rollout-shadow",
        )
    stable = read_fleet(place.folder).arms.get(STABLE)
    if stable is None or stable.digest != opening.plan.stable.digest:
        serves = stable.reference if stable else "nothing"
        raise UsageError(
            f"the front of {place.name} serves {serves}, the champion is version {opening.plan.stable.version}",
            allowed="A front that serves the champion.",
            hint=f"end the front, then: rm {place.folder / 'fleet.json'} && tidegate front {place.name}",
            code="rollout-front-version",
        )
    chain = place.chain()
    known = max(seen.generation, read_fleet(place.folder).generation, chain.generation if chain else 0)
    return machine.begin(opening.plan, controller_name(), known), trials.begin(opening.table)


def run(
    place: Place, begun: tuple[State, Trial], report: Callable[[Controller], object], until: float = float("inf")
) -> Controller:
    """Be in charge of a rollout until it is over.

    Args:
        place: where.
        begun: the rollout.
        report: is given the controller after each look.
        until: seconds after which to stop, over or not.
    """
    controller = Controller(place.seams(), *begun)
    end = time.monotonic() + until
    while not controller.state.is_over and time.monotonic() < end:
        controller.tick()
        report(controller)
        if not controller.state.is_over:
            time.sleep(SOON_SECONDS if controller.has_moved else LOOK_SECONDS)
    return controller


def take_back(place: Place, order: Order, told: Callable[[], object]) -> tuple[State, bool]:
    """Give all traffic to stable now, and let whoever is in charge write down why.

    The front is told first and by ourselves, whether a controller lives or hangs, and whatever the store does.

    Args:
        place: where.
        order: who wants it, and why.
        told: is called as soon as the front has done it; the store may keep the rest waiting.

    Returns:
        The rollout, and whether the ledger holds it already.

    Raises:
        NotFound: no rollout is open here.
        Trouble: the front could not be told; neither journal nor store says whether a rollout is open; or whoever is
            in charge keeps no journal of it here (code ``rollout-unknown``).
    """
    loaded = place.journal.load()
    state = loaded[0] if loaded and loaded[0].phase not in (ENDED, SETTLING) else None
    is_told = loaded is None and _has_canary(place)
    if is_told:  # the journal is lost, and the store may hang
        _to_stable(place)
        told()
    model = None if state else _model(place)
    chain = model.rollout if model else None
    if model and (chain is None or not chain.is_open):
        raise _nothing_open(model)
    id_ = state.plan.id if state else chain.id if chain else ""
    with suppress(OSError, TidegateError):  # a full disk delays nothing
        place.journal.order(id_, order)
    if not is_told:
        _to_stable(place)
        told()
    return _finished(place, id_, state)


def _finished(place: Place, id_: str, state: State | None) -> tuple[State, bool]:
    """Let whoever is in charge write it down, else do it; the rollout, and whether the ledger holds it."""
    lock = Lock(place.folder)
    end = time.monotonic() + TAKEN_SECONDS
    while not (taken := lock.take()) and time.monotonic() < end and not _is_written(place, id_):
        time.sleep(0.05)
    if not taken:
        return _now(place, id_, state), _is_written(place, id_)
    end = time.monotonic() + TOLD_SECONDS
    try:
        begun = unfinished(place)
        if begun is None:
            return _now(place, id_, state), True
        done = run(place, begun, lambda _: None, until=max(end - time.monotonic(), TAKEN_SECONDS))
        return done.state, done.state.phase == ENDED
    except (StoreError, ConfigError):  # the next controller writes it down
        if state is None:
            raise
        return _now(place, id_, state), False
    finally:
        lock.release()


def _has_canary(place: Place) -> bool:
    with suppress(ServerError):
        return place.router.observe().weights.get(CANARY, 0) > 0
    return False


def _to_stable(place: Place) -> None:
    """Tell the front the withdrawal that a controller would tell it, under the same number; once told, nothing."""
    for _ in range(5):
        kept, now = committed(place.folder), _in_force(place)
        known = [w for w in (kept, now) if w]
        given = [w.generation for w in known if w.shares != {STABLE: WHOLE}]
        if now and not given:
            return
        number = max(*map(machine.next_round, given), *(w.generation for w in known), 0)
        try:
            place.router.set_weights({STABLE: WHOLE}, number)
            return
        except Conflict:  # the controller was as quick
            continue
        except ServerError as e:
            if committed(place.folder).shares != {STABLE: WHOLE}:
                raise
            noted = "noted: when the front runs again it begins with stable only"
            raise ServerError(e.found, allowed=noted, hint=f"tidegate front {place.name}", code=e.code) from e
    raise Trouble(f"the weights of the front {place.name} change all the time", hint="Say it again.")


def _in_force(place: Place) -> Weights | None:
    """The weights of the proxy; None where it is dead: what it is to begin with is kept all the same."""
    with suppress(ServerError):
        seen = place.router.observe()
        return Weights(seen.weights, seen.generation)
    return None


def _is_written(place: Place, id_: str) -> bool:
    loaded = place.journal.load()
    return loaded is not None and loaded[0].plan.id == id_ and loaded[0].phase == ENDED


def _now(place: Place, id_: str, before: State | None) -> State:
    loaded = place.journal.load()
    if loaded and loaded[0].plan.id == id_:
        return loaded[0]
    if before is None:
        raise Trouble(
            f"all traffic of {place.name} goes to stable, and nobody here says what becomes of the rollout {id_}",
            allowed="A controller that has written its journal; it may have just begun, or the rollout ended meanwhile.",
            hint=f"tidegate rollout status {place.name}; tidegate rollout history {place.name}",
            code="rollout-unknown",
        )
    return before


def _nothing_open(model: ModelState) -> NotFound:
    last = model.rollout
    hint = f"tidegate rollout history {model.name}"
    if last and last.promoted and model.aliases.get("champion") == last.candidate:
        hint = (
            f"version {last.stable} is not warm any more: tidegate rollout start {model.name}:{last.stable} --step 100"
        )
    return NotFound(
        f"no rollout of {model.name} is open on this machine",
        allowed="One that is not over.",
        hint=hint,
        code="rollout-none",
    )


def look(place: Place) -> dict[str, Any]:
    """Return what a rollout of this machine is doing, as JSON values.

    Raises:
        NotFound: there never was one here.
    """
    lock = Lock(place.folder)
    free = lock.take()  # before the journal is read: whoever ends between the two has written that it is over
    lock.release()
    loaded = place.journal.load()
    if loaded is None:
        raise _nothing_open(place.registry.state(place.name))
    state, trial = loaded
    try:
        seen: Observation | None = place.router.observe()
    except ServerError:
        seen = None
    return view(state, trial, seen, (NOBODY,) if free and state.phase != ENDED else ())


def view(state: State, trial: Trial, seen: Observation | None, trouble: tuple[str, ...]) -> dict[str, Any]:
    """What people and scripts are shown of a rollout."""
    plan, judged = state.plan, trials.judged(trial, state)
    shares = [f"{s / 100:g}" for s in plan.rules.steps]
    limit = {machine.CANARY_STEP: plan.rules.deadline, machine.PREPARING: plan.rules.ready_within}
    limit |= {machine.WATCHING: plan.rules.rollback_window, machine.SHADOW: plan.rules.shadow}
    return {
        "id": plan.id, "model": plan.model, "candidate": plan.candidate.version, "stable": plan.stable.version,
        "phase": state.phase, "outcome": state.outcome, "reason": state.reason, "step": state.step + 1, "steps": shares,
        "generation": state.generation, "seconds": round(state.elapsed, 1), "limit": limit.get(state.phase),
        "verdict": judged.verdict if judged else None,
        "findings": [f.as_json() for f in trial.judgement.findings] if judged and trial.judgement else [],
        "weights": {a: w / 100 for a, w in (seen.weights if seen else state.weights).items() if w},
        "counts": {a: _counts(trial, a) for a in state.weights},
        "waits_for": state.pending["event"] if state.pending else None,
        "trouble": [*trouble, *([] if seen else ["the front cannot be seen"])],
    }  # fmt: skip


def _counts(trial: Trial, arm: str) -> dict[str, int]:
    tally = trial.counts.tally(arm)
    counts = {"requests": tally.requests, "errors": tally.errors, "refused": tally.refused}
    return {**counts, "predictions": sum(trial.counts.predictions(arm))}


def history(place: Place) -> list[dict[str, Any]]:
    """Return the records of a model's rollouts, the oldest first."""
    records = place.registry.ledger.records(place.name)
    return [{"seq": r.seq, "time": r.time, "actor": r.actor, **r.body} for r in records if r.kind == "rollout"]
