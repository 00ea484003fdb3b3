"""A rollout as a pure state machine: what was seen and what time it is go in, the next state and what to do come out.

Phases::

    preparing -> [shadow] -> canary, step by step -> promoted -> settling -> ended (promoted)
        \\____________\\______________|  \\-> held ____/
                                     v      |
                                 withdrawn <-'  -> ended (rolled back, aborted)

Rules, in the order in which they are asked; the first that applies decides:

 1. *Seen first.* A controller that took a rollout over does nothing before it has seen the front once.
 2. *Taken away elsewhere.* A front without a canary that has the number of a withdrawal was told so by a person, or by
    a controller that died before it could say so: the rollout is withdrawn, while it settles too, and never given back.
 3. *Superseded.* Any other front with weights of a higher generation, or a ledger that another controller wrote, has
    somebody else in charge: this controller stops and touches nothing.
 4. *Ordered.* A person's abort or rollback withdraws.
 5. *Alarm.* The judge's alarm, both arms failing, a ledger that refuses the version, servers of another version than
    the registered one or none ready for ``DOWN_SECONDS``, or a front not seen for ``BLIND_SECONDS`` withdraws.
 6. *Recorded.* What the ledger holds now is done: weights after ``step``, the alias with ``promoted``.
 7. *Deadline.* A step that is undecided at its deadline is withdrawn, or held where the policy says so; neither
    promotes. Servers that are not ready in time withdraw.
 8. *Forward.* Only the judge's "healthy" moves a step on, the last one to ``promoted``; shadow ends by time.

Two orders of doing things:

* *Record before act* for what gives the candidate traffic or moves an alias: the intent goes to the journal, then to
  the ledger; only then the front is told. Killed in between, whoever goes on finds the record and does it.
* *Act first* for what takes traffic away: the front, then the journal, then the ledger as soon as it answers. An outage
  of the store neither blocks nor delays it. It is over when the front has the generation of its record.

A share only grows until it goes to 0, once, and for good: a rollout changes its direction at most once. Every action may
be done twice; ``generation`` grows with each change, so that a late one is refused by the front and by the ledger.

Generations are counted in rounds of ``ROUND`` numbers. A rollout begins a round; whatever gives traffic has the next
number of that round, and a withdrawal has the first number of the next one, whoever does it. So

* it is above all that a controller has given or will give that does not know of it: the front refuses that controller's
  weights from the moment of the withdrawal, and says by its number what happened, before any journal or record does;
* two that give may number alike, and then one of them is refused; a withdrawal has no number that gives.

Numbers below ``ROUND`` are of a tidegate that counted them one by one; there any of them may be a withdrawal's.

Seconds are counted while a controller lives, from a clock that only grows; no clock of another machine is read.

Shares: below 50 % the canary is compared with *baseline*, a fresh process of the stable version with the canary's own
share; from 50 % on with stable itself. Of a step of 100 %, and after the promotion, ``holdback`` stays with the version
before: without it there would be nothing to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tidegate.registry import rollouts
from tidegate.registry.rollout_policy import HOLD, RolloutPolicy
from tidegate.registry.rollouts import ABORTED, FINISHED, PROMOTED, RESUMED, ROLLED_BACK, STARTED, STEP, Rollout
from tidegate.rollout.router import BASELINE, CANARY, STABLE, WHOLE, Observation

PREPARING, SHADOW, CANARY_STEP, HELD, WATCHING = "preparing", "shadow", "canary", "held", "promoted"
SETTLING, WITHDRAWN, ENDED = "settling", "withdrawn", "ended"
GIVEN = (SHADOW, CANARY_STEP, HELD, WATCHING)  # phases in which the candidate is judged
ALARM, HEALTHY = "alarm", "healthy"
BLIND_SECONDS, DOWN_SECONDS, MIRROR_SECONDS = 30.0, 15.0, 5.0
ROUND = 100_000  # more than a rollout ever gives; HAProxy has room for 343,597 rounds, and a rollout has two


@dataclass(frozen=True)
class Target:
    """A version as servers load it."""

    version: int
    digest: str


@dataclass(frozen=True)
class Plan:
    """What does not change while a rollout lasts."""

    id: str
    model: str
    candidate: Target
    stable: Target
    rules: RolloutPolicy = field(default_factory=RolloutPolicy)

    def weights(self, step: int) -> dict[str, int]:
        """The shares of a step; of the watch after the promotion where there is no such step."""
        share = self.rules.steps[step] if step < len(self.rules.steps) else WHOLE
        if 2 * share < WHOLE:
            return {STABLE: WHOLE - 2 * share, BASELINE: share, CANARY: share}
        canary = min(share, WHOLE - self.rules.holdback)
        return {STABLE: WHOLE - canary, CANARY: canary}


@dataclass(frozen=True)
class Running:
    """The servers of one arm: the digests they serve, how many of them are ready, and how many there shall be."""

    digests: frozenset[str] = frozenset()
    ready: int = 0
    wanted: int = 1


@dataclass(frozen=True)
class Judged:
    """What the judge says: ``continue``, ``alarm`` or ``healthy``, why in words, and its numbers."""

    verdict: str
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """What a person told a rollout to do: ``abort`` or ``rollback``."""

    kind: str
    by: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Refusal:
    """Why the ledger does not take a record; ``superseded`` where another controller wrote it."""

    reason: str
    superseded: bool = False


@dataclass(frozen=True)
class Seen:
    """What a controller knows at one moment; None is "could not be seen".

    Attributes:
        router: the front's weights and counts.
        wanted: the versions that the fleet was told to run, by arm.
        running: what it runs, by arm.
        judged: the judge's word on the present step.
        recorded: the generation of the last of this rollout's records that the ledger is known to hold.
        refused: why it does not take the pending one.
        order: a person's.
    """

    router: Observation | None = None
    wanted: Mapping[str, Target] | None = None
    running: Mapping[str, Running] | None = None
    judged: Judged | None = None
    recorded: int = 0
    refused: Refusal | None = None
    order: Order | None = None


@dataclass(frozen=True)
class State:
    """A rollout at one moment.

    Attributes:
        plan: what does not change.
        controller: a name of the process in charge, new for each.
        phase: see the module.
        step: of the plan; -1 before the first, the number of steps after the promotion.
        generation: of ``weights``.
        weights: what the front shall have.
        pending: the body of the record that the ledger shall hold.
        elapsed: seconds in this phase and step.
        blind: seconds since the front was last seen.
        down: seconds since a server of the canary was last ready.
        reason: why it is withdrawn or held.
        outcome: how it ends: ``promoted``, ``rolled-back``, ``aborted``.
        sights: how often this controller has seen the front.
        is_lost: whether somebody else is in charge.
        at: the clock at the last advance; None for a controller's first.
    """

    plan: Plan
    controller: str
    phase: str = PREPARING
    step: int = -1
    generation: int = 0
    weights: Mapping[str, int] = field(default_factory=lambda: {STABLE: WHOLE})
    pending: Mapping[str, Any] | None = None
    elapsed: float = 0.0
    blind: float = 0.0
    down: float = 0.0
    reason: str = ""
    outcome: str = ""
    sights: int = 0
    is_lost: bool = False
    at: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.phase == ENDED or self.is_lost


@dataclass(frozen=True)
class Save:
    """Write the state into the journal; what follows waits for it, unless it takes traffic away."""


@dataclass(frozen=True)
class Record:
    """Let the ledger hold this body, once; asked again until it does."""

    body: Mapping[str, Any]


@dataclass(frozen=True)
class SetWeights:
    """Give each arm its share."""

    weights: Mapping[str, int]
    generation: int


@dataclass(frozen=True)
class SetMirror:
    """Send the canary copies of this share of requests, and nobody its answers."""

    share: int


@dataclass(frozen=True)
class Want:
    """Let the fleet run these versions, and no other arm."""

    arms: Mapping[str, Target]
    generation: int


Action = Save | Record | SetWeights | SetMirror | Want


def next_round(generation: int) -> int:
    """Return the number of a withdrawal: above all that give traffic in the round of this one."""
    return (generation // ROUND + 1) * ROUND


def begin(plan: Plan, controller: str, generation: int) -> State:
    """Return a new rollout, with the intent to open it.

    Args:
        plan: what it shall do.
        controller: the process in charge.
        generation: the highest that front and ledger know.
    """
    state = State(plan, controller, generation=next_round(generation))
    rules = {"rules": plan.rules.as_json(), "digest": plan.candidate.digest}
    return _intend(state, STARTED, f"{_percents(plan)} of live traffic", {}, **rules)


def resume(saved: State | None, chain: Rollout | None, controller: str) -> State | None:
    """Return the rollout that a journal and a ledger tell of, for a new controller; None where nothing is left to do.

    Args:
        saved: the journal's last state; None where it is lost or never was.
        chain: the model's last rollout, as its ledger has it.
        controller: the process that takes over.
    """
    if saved is None or saved.phase == ENDED:
        return None
    state = replace(saved, sights=0, is_lost=False, at=None, blind=0.0, down=0.0)
    if chain and chain.id == state.plan.id and chain.generation > state.generation:
        if _is_ours(state, chain):
            state = _recorded(state, chain.generation)
        elif chain.is_open:
            state = _adopted(state, chain)
        elif chain.event == FINISHED:
            return replace(state, is_lost=True, reason=f"{chain.controller} finished it")
        else:
            after = _withdraw(state, chain.event, chain.reason, generation=chain.generation)
            return replace(after, controller=controller, pending=None)
    state = replace(state, controller=controller)
    if state.pending or state.phase in (SETTLING, WITHDRAWN):
        return state
    return _intend(state, RESUMED, "another controller goes on", {})


def recover(plan: Plan, chain: Rollout, controller: str) -> State:
    """Return an open rollout of which only the ledger tells: what its judge has used is lost, so it is to be taken back."""
    return _adopted(State(plan, controller), chain)


def _adopted(state: State, chain: Rollout) -> State:
    """The state that records of a controller tell of which is not there any more, and whose journal is not here."""
    phase = WATCHING if chain.promoted else HELD if chain.held else CANARY_STEP if chain.step >= 0 else PREPARING
    step = len(state.plan.rules.steps) if chain.promoted else chain.step
    weights = state.plan.weights(step) if step >= 0 else {STABLE: WHOLE}
    after = replace(state, phase=phase, step=step, weights=weights, generation=chain.generation, pending=None)
    return replace(after, elapsed=0.0, reason=chain.reason if chain.held else "", outcome="")


def advance(state: State, seen: Seen, now: float) -> tuple[State, tuple[Action, ...]]:
    """Return the next state and what to do, in this order; see the module for the rules.

    Args:
        state: the present one.
        seen: what is known now.
        now: seconds of a clock that only grows.
    """
    state = _timed(state, seen, now)
    if state.is_over:
        return state, ()
    if not (state.sights or state.blind > BLIND_SECONDS or state.phase == WITHDRAWN or seen.order):
        return state, ()
    for rule in RULES:
        moved = rule(state, seen)
        if moved is not None:
            return moved, _to_do(moved, seen, is_new=True)
    return state, _to_do(state, seen, is_new=False)


def _timed(state: State, seen: Seen, now: float) -> State:
    passed = max(now - state.at, 0.0) if state.at is not None else 0.0
    blind = 0.0 if seen.router else state.blind + passed
    is_up = seen.running is None or seen.running.get(CANARY, Running()).ready > 0 or state.phase not in GIVEN
    after = replace(
        state, at=now, elapsed=state.elapsed + passed, blind=blind, down=0.0 if is_up else state.down + passed
    )
    return replace(after, sights=state.sights + (seen.router is not None))


def _is_open(state: State) -> bool:
    """Whether it can still be withdrawn."""
    return state.phase in (PREPARING, *GIVEN)


def _taken_elsewhere(state: State, seen: Seen) -> State | None:
    router = seen.router
    if not router or router.generation <= state.generation or router.weights.get(CANARY):
        return None
    if not (_is_open(state) or state.phase == SETTLING) or not _is_withdrawal(router.generation):
        return None
    order = seen.order or Order("", "", "the front was at stable only: taken back before it could be written down")
    event = ABORTED if order.kind == "abort" else ROLLED_BACK
    return _withdraw(state, event, _words(order), generation=router.generation)


def _is_withdrawal(generation: int) -> bool:
    return generation % ROUND == 0 or generation < ROUND


def _superseded(state: State, seen: Seen) -> State | None:
    if seen.refused and seen.refused.superseded:
        return replace(state, is_lost=True, reason=seen.refused.reason)
    if seen.router and seen.router.generation > state.generation and state.phase != WITHDRAWN:
        found = f"the front has weights of generation {seen.router.generation}, not {state.generation}"
        return replace(state, is_lost=True, reason=f"{found}: another controller is in charge")
    return None


def _ordered(state: State, seen: Seen) -> State | None:
    if not seen.order or not _is_open(state):
        return None
    event = ABORTED if seen.order.kind == "abort" else ROLLED_BACK
    return _withdraw(state, event, _words(seen.order))


def _alarmed(state: State, seen: Seen) -> State | None:
    if not _is_open(state):
        return None
    why, evidence = "", {}
    if seen.refused:
        why = seen.refused.reason
    elif state.phase in GIVEN and seen.judged and seen.judged.verdict == ALARM:
        why, evidence = seen.judged.reason or "the judge raised an alarm", dict(seen.judged.evidence)
    elif state.phase in GIVEN and (wrong := _wrong_arm(state, seen)):
        why = wrong
    elif state.blind > BLIND_SECONDS:
        why = f"the front could not be seen for {BLIND_SECONDS:.0f} s"
    elif state.down > DOWN_SECONDS:
        why = f"no server of the canary was ready for {DOWN_SECONDS:.0f} s"
    return _withdraw(state, ROLLED_BACK, why, evidence) if why else None


def _wrong_arm(state: State, seen: Seen) -> str:
    served = (seen.running or {}).get(CANARY, Running()).digests - {state.plan.candidate.digest}
    return f"a server of the canary serves {min(served)[:19]}…, which is not the candidate" if served else ""


def _written(state: State, seen: Seen) -> State | None:
    if state.pending is None or seen.recorded < state.pending["generation"]:
        return None
    return _recorded(state, seen.recorded)


def _late(state: State, seen: Seen) -> State | None:
    rules = state.plan.rules
    if state.phase == PREPARING and state.elapsed > rules.ready_within:
        lacking = ", ".join(a for a in _arms(state) if not _is_ready(state, seen, a)) or "ledger"
        why = f"not ready within {rules.ready_within:g} s: {lacking}"
    elif state.phase == CANARY_STEP and state.elapsed > rules.deadline and _is_undecided(state):
        share = rules.steps[state.step] / 100
        why = f"step {state.step + 1} ({share:g} %) was undecided at its deadline of {rules.deadline:g} s"
        if rules.on_deadline == HOLD:
            return _intend(state, rollouts.HELD, why, seen.judged.evidence if seen.judged else {})
    else:
        return None
    evidence = dict(seen.judged.evidence) if seen.judged else {}
    return _withdraw(state, ROLLED_BACK, why, evidence)


def _is_undecided(state: State) -> bool:
    return state.pending is None or state.pending["event"] == RESUMED


def _forward(state: State, seen: Seen) -> State | None:
    if state.pending is not None:
        return None
    step = _FORWARD.get(state.phase)
    return step(state, seen) if step else None


def _prepared(state: State, seen: Seen) -> State | None:
    if not all(_is_ready(state, seen, arm) for arm in _arms(state)):
        return None
    if state.plan.rules.shadow:
        return replace(state, phase=SHADOW, elapsed=0.0)
    return _next_step(state, "its servers are ready", {})


def _shadowed(state: State, seen: Seen) -> State | None:
    if state.elapsed < state.plan.rules.shadow:
        return None
    evidence = seen.judged.evidence if seen.judged else {}
    return _next_step(state, f"{state.plan.rules.shadow:g} s of copied requests raised no alarm", evidence)


def _stepped(state: State, seen: Seen) -> State | None:
    if not seen.judged or seen.judged.verdict != HEALTHY:
        return None
    return _next_step(state, seen.judged.reason, seen.judged.evidence)


def _watched(state: State, seen: Seen) -> State | None:
    if state.elapsed < state.plan.rules.rollback_window:
        return None
    text = f"no alarm in the {state.plan.rules.rollback_window:g} s after the promotion"
    return _intend(state, FINISHED, text, seen.judged.evidence if seen.judged else {}, share=WHOLE)


def _settled(state: State, seen: Seen) -> State | None:
    """The new version becomes the stable arm while the canary arm carries everything; then the canary arm goes."""
    if not _has(seen, state):
        return None
    if CANARY in state.weights:
        there = (seen.running or {}).get(STABLE, Running())
        is_new = _serves(there, state.plan.candidate)
        return replace(state, weights={STABLE: WHOLE}, generation=state.generation + 1) if is_new else None
    return replace(state, phase=ENDED) if seen.wanted == _arms(state) else None


def _taken(state: State, seen: Seen) -> State | None:
    if seen.router and seen.router.generation > state.generation and not seen.router.weights.get(CANARY):
        return replace(
            state, generation=seen.router.generation
        )  # somebody took it away too: the fleet asks for as much
    done = _has(seen, state) and seen.wanted == _arms(state)
    return replace(state, phase=ENDED) if done else None


_FORWARD: Mapping[str, Callable[[State, Seen], State | None]] = {
    PREPARING: _prepared,
    SHADOW: _shadowed,
    CANARY_STEP: _stepped,
    WATCHING: _watched,
    SETTLING: _settled,
    WITHDRAWN: _taken,
}
RULES = (_taken_elsewhere, _superseded, _ordered, _alarmed, _written, _late, _forward)


def _next_step(state: State, reason: str, evidence: Mapping[str, Any]) -> State:
    number = state.step + 1
    share = state.plan.weights(number)[CANARY]
    if number < len(state.plan.rules.steps):
        return _intend(state, STEP, reason, evidence, share=share, step=number)
    return _intend(state, PROMOTED, reason, evidence, share=share)


def _intend(state: State, event: str, reason: str, evidence: Mapping[str, Any], **more: Any) -> State:
    generation = _highest(state) + 1
    return replace(state, pending=_body(state, event, generation, reason, evidence, **more))


def _body(
    state: State, event: str, generation: int, reason: str, evidence: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    plan = state.plan
    who = {"id": plan.id, "candidate": plan.candidate.version, "stable": plan.stable.version}
    said = {"event": event, "generation": generation, "controller": state.controller, "reason": reason}
    return {
        **who,
        **said,
        "share": state.weights.get(CANARY, 0),
        "step": state.step,
        "evidence": dict(evidence),
        **more,
    }


def _recorded(state: State, generation: int) -> State:
    """The state after the ledger took the pending record, under this generation."""
    body = state.pending or {}
    event = body["event"]
    state = replace(state, pending=None, generation=max(generation, state.generation))
    if event == STEP:
        weights = state.plan.weights(body["step"])
        return replace(state, phase=CANARY_STEP, step=body["step"], weights=weights, elapsed=0.0)
    if event == PROMOTED:
        last = len(state.plan.rules.steps)
        return replace(state, phase=WATCHING, step=last, weights=state.plan.weights(last), elapsed=0.0)
    if event == rollouts.HELD:
        return replace(state, phase=HELD, elapsed=0.0, reason=body["reason"])
    if event == FINISHED:
        weights = {CANARY: WHOLE}
        return replace(state, phase=SETTLING, weights=weights, elapsed=0.0, outcome=PROMOTED, reason=body["reason"])
    return state


def _withdraw(
    state: State, event: str, reason: str, evidence: Mapping[str, Any] | None = None, *, generation: int = 0
) -> State:
    """Stable gets everything; what was pending is forgotten, for its record may or may not have been written.

    Where it was withdrawn elsewhere under a generation, that is kept: the same weights once more change nothing.
    """
    number = max(next_round(_highest(state)), generation)
    body = _body(state, event, number, reason, evidence or {}, share=0)
    after = replace(state, phase=WITHDRAWN, weights={STABLE: WHOLE}, generation=number, elapsed=0.0)
    return replace(after, pending=body, reason=reason, outcome=event)


def _highest(state: State) -> int:
    return max(state.generation, state.pending["generation"] if state.pending else 0)


def _is_ours(state: State, chain: Rollout) -> bool:
    mine = state.pending
    return mine is not None and (mine["generation"], mine["controller"]) == (chain.generation, chain.controller)


def _words(order: Order) -> str:
    by = f" by {order.by}" if order.by else ""
    return f"{order.kind}{by}{': ' if order.reason else ''}{order.reason}" if order.kind else order.reason


def _percents(plan: Plan) -> str:
    return ", ".join(f"{s / 100:g}" for s in plan.rules.steps) + " %"


def _arms(state: State) -> dict[str, Target]:
    """The arms that shall run in a phase."""
    plan = state.plan
    if state.phase == SETTLING:
        new = {STABLE: plan.candidate}
        return {**new, CANARY: plan.candidate} if CANARY in state.weights else new
    if state.phase in (WITHDRAWN, ENDED):
        return {STABLE: plan.candidate if state.outcome == PROMOTED else plan.stable}
    weights = plan.weights(max(state.step, 0))
    return {a: plan.candidate if a == CANARY else plan.stable for a in weights}


def _is_ready(state: State, seen: Seen, arm: str) -> bool:
    there = (seen.running or {}).get(arm, Running())
    return _serves(there, _arms(state)[arm])


def _serves(there: Running, target: Target) -> bool:
    return 0 < there.wanted <= there.ready and there.digests == {target.digest}


def _has(seen: Seen, state: State) -> bool:
    """Whether the front is known to have the state's weights."""
    router = seen.router
    if router is None or not _same(router.weights, state.weights):
        return False
    is_taken = state.phase == WITHDRAWN and router.generation > state.generation  # by somebody else too
    return is_taken or router.generation == state.generation


def _same(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return {k: v for k, v in one.items() if v} == {k: v for k, v in other.items() if v}


def _to_do(state: State, seen: Seen, *, is_new: bool) -> tuple[Action, ...]:
    """What brings front, fleet, journal and ledger to the state; asked for again until it is seen."""
    if state.is_lost:
        return ()
    knows = seen.router is not None and seen.router.generation >= state.generation
    weights: tuple[Action, ...] = (SetWeights(state.weights, state.generation),)
    if not _is_begun(state) or (knows and (_has(seen, state) or not is_new)):
        weights = ()  # a front that knows them, and cannot give them to an arm that is away, gives them by itself
    save: tuple[Action, ...] = (Save(),) if is_new else ()
    record = (Record(state.pending),) if state.pending is not None else ()
    mirror = _mirror(state)
    want = _want(state, seen)
    if state.phase == WITHDRAWN:
        return (*weights, *mirror, *save, *record, *want)
    return (*save, *record, *weights, *mirror, *want)


def _mirror(state: State) -> tuple[Action, ...]:
    """Copies go while the shadow lasts, said again at each look, for a front that starts again has forgotten them."""
    if state.phase == SHADOW:
        return (SetMirror(WHOLE),)
    is_after = state.phase in (CANARY_STEP, WITHDRAWN) and state.elapsed < MIRROR_SECONDS
    return (SetMirror(0),) if state.plan.rules.shadow and is_after else ()


def _want(state: State, seen: Seen) -> tuple[Action, ...]:
    """Servers come before their traffic, and go after it: nothing that has a share is stopped."""
    if seen.router is None or seen.wanted is None:
        return ()
    arms = _arms(state)
    if state.phase == SETTLING and not _has(seen, state):
        return ()
    kept = {a: t for a, t in seen.wanted.items() if seen.router.weights.get(a) and a not in arms}
    arms = {**arms, **kept}
    return (Want(arms, state.generation),) if seen.wanted != arms and _is_begun(state) else ()


def _is_begun(state: State) -> bool:
    """Whether the ledger holds the record that opened it."""
    return not (state.pending is not None and state.pending["event"] == STARTED)
