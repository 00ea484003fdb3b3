"""A rollout's world in one thread: a clock that is moved by hand, seeded traffic, and every fault at every call.

``Scenario`` says what the candidate is and what goes wrong; ``World`` runs it. Controllers are killed by an exception
that nothing catches, before or after any call through a seam, and started again from what journal and ledger hold.
``INVARIANTS`` are asked after each look of any controller.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tidegate.errors import ModelRefused, ServerError, StoreError
from tidegate.registry.model import Entry, ModelState, Registry, Version, may_serve
from tidegate.registry.rollout_policy import RolloutPolicy
from tidegate.registry.rollouts import ABORTED, FINISHED, PROMOTED, ROLLED_BACK, WITHDRAWN
from tidegate.rollout import judgement
from tidegate.rollout import state as machine
from tidegate.rollout import trial as trials
from tidegate.rollout.controller import Controller, Seams
from tidegate.rollout.journal import Journal
from tidegate.rollout.memory import Behaviour, MemoryFront
from tidegate.rollout.recorder import LedgerRecorder
from tidegate.rollout.router import CANARY, STABLE, WHOLE, Observation, Tally
from tidegate.rollout.state import Order, Plan, State, Target
from tidegate.store.memory import MemoryStore

LOOK = 0.5
OLD, NEW = Target(1, "sha256:" + "a" * 64), Target(2, "sha256:" + "b" * 64)
GOOD, FAILING, REFUSING, SLOW, LATE, BOTH, MUTE, STARVED, DEAD = (
    "good failing refusing slow late-fault both-fail mute starved never-ready".split()
)
BAD = (FAILING, REFUSING, SLOW, BOTH)
CANNOT_TELL = (MUTE, STARVED, DEAD)
KINDS = (GOOD, *BAD, LATE, *CANNOT_TELL)


class Killed(BaseException):
    """kill -9."""


@dataclass(frozen=True)
class Scenario:
    """What a world is like; times in seconds of its clock."""

    seed: int = 0
    kind: str = GOOD
    steps: tuple[int, ...] = (500, 5000, 10_000)
    rate: float = 20_000.0
    on_deadline: str = "rollback"
    deadline: float = 30.0
    window: float = 4.0
    shadow: float = 0.0
    kills: frozenset[int] = frozenset()
    down: float = 1.0  # until a killed controller is started again
    observe: float = 0.0  # the chance of each fault of a reading
    act: float = 0.0  # the chance that the front fails, or fails to say that it did
    store: float = 0.0  # the chance that the store does, or fails to say so
    outages: tuple[tuple[float, float], ...] = ()
    proxy_restarts: tuple[float, ...] = ()
    server_restarts: tuple[float, ...] = ()
    second: float = math.inf  # when another controller begins beside the first
    revoked: float = math.inf
    champion_moves: float = math.inf
    order: tuple[float, str] = (math.inf, "")
    fault: float = math.inf  # when a late fault begins

    @classmethod
    def random(cls, seed: int) -> Scenario:
        """A scenario with anything in it."""
        chance = random.Random(seed)
        kind = chance.choice(KINDS)
        some = lambda p, value, other: value if chance.random() < p else other  # noqa: E731
        return cls(
            seed,
            kind,
            chance.choice([(500, 5000, 10_000), (500, 10_000), (5000, 10_000), (10_000,), (1000, 4000), (100, 9000)]),
            on_deadline=some(0.25, "hold", "rollback"),
            deadline=chance.choice([8.0, 15.0]),
            window=chance.choice([0.0, 3.0]),
            shadow=some(0.15, 2.0, 0.0),
            kills=frozenset(chance.sample(range(400), chance.choice([0, 0, 1, 2, 4]))),
            down=chance.choice([0.0, 1.0, 5.0]),
            observe=some(0.4, chance.choice([0.02, 0.1]), 0.0),
            act=some(0.4, chance.choice([0.1, 0.4]), 0.0),
            store=some(0.3, chance.choice([0.1, 0.4]), 0.0),
            outages=some(0.3, ((chance.uniform(0, 10), chance.uniform(2, 20)),), ()),
            proxy_restarts=some(0.15, (chance.uniform(0, 15),), ()),
            server_restarts=some(0.15, (chance.uniform(0, 15),), ()),
            second=some(0.15, chance.uniform(0, 10), math.inf),
            revoked=some(0.1, chance.uniform(0, 10), math.inf),
            champion_moves=some(0.05, chance.uniform(0, 10), math.inf),
            order=some(0.15, (chance.uniform(0, 15), chance.choice(["abort", "rollback"])), (math.inf, "")),
            fault=chance.uniform(0, 20),
        )

    @property
    def is_calm(self) -> bool:
        """Whether nothing happens that may take a good candidate back."""
        calm = not self.observe and min(self.revoked, self.champion_moves, self.order[0]) == math.inf
        calm = calm and all(lasts < 8 for _, lasts in self.outages)
        return calm and not self.proxy_restarts and not self.server_restarts and self.second == math.inf


@dataclass
class World:
    """Everything outside the controllers, and they."""

    scenario: Scenario
    now: float = 0.0
    points: int = 0
    acts: list[int] = field(default_factory=list)
    shares: list[int] = field(default_factory=list)  # of traffic that the candidate got at each look
    given: list[int] = field(default_factory=list)  # of weight that it had
    verdicts: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    is_outage: bool = False
    let: int | None = None
    is_deaf: bool = False  # the front did not do what it was told last

    def __post_init__(self) -> None:
        scenario = self.scenario
        self.chance = random.Random(scenario.seed * 7919 + 1)
        self.memory, self.kept = MemoryStore(), MemoryStore()
        self.truth = Registry(self.memory, lambda: 1.7e9 + self.now)
        for target, alias in ((OLD, "champion"), (NEW, "challenger")):
            self.truth.transact("m", lambda _, t=target, a=alias: version(t, a), actor="test")  # type: ignore[misc]
        self.front = MemoryFront(lambda: self.now, behaviours(scenario), OLD, self.rate, scenario.seed)
        rules = RolloutPolicy(
            scenario.steps, min_requests=200, min_time=1.0, deadline=scenario.deadline, ready_within=10.0,
            on_deadline=scenario.on_deadline, rollback_window=scenario.window, shadow=scenario.shadow,
        )  # fmt: skip
        self.plan = Plan("r-1", "m", NEW, OLD, rules)
        self.controllers: list[Controller] = [self._controller(machine.begin(self.plan, "c-1", 0), trials.begin(None))]
        self._named, self._due, self._items, self.model = 1, math.inf, 0, ModelState("m")
        self._last: Observation | None = None
        self._done: set[str] = set()

    @property
    def rate(self) -> float:
        return 2.0 if self.scenario.kind == STARVED else self.scenario.rate

    def run(self) -> State:
        """Go on until a controller says that the rollout is over; return its state."""
        while self.now < 600:
            self._happen()
            for controller in list(self.controllers):
                self._tick(controller)
            over = [c.state for c in self.controllers if c.state.phase == machine.ENDED]
            if over or (not self.controllers and self._due == math.inf):
                loaded = Journal(self.kept).load()
                assert over or loaded, "nobody is in charge"
                return over[0] if over else loaded[0]  # type: ignore[index]
            self.now += LOOK
        raise AssertionError(f"it does not end: {[c.state for c in self.controllers]}")

    def _tick(self, controller: Controller) -> None:
        try:
            controller.tick()
        except Killed:
            self.controllers.remove(controller)
            self.log.append(f"{self.now} killed {controller.state.controller} in {controller.state.phase}")
            if not self.controllers:
                self._due = self.now + self.scenario.down
        self._note(controller)
        if controller.state.is_lost and controller in self.controllers:
            self.controllers.remove(controller)
            self.log.append(f"{self.now} lost {controller.state.controller}: {controller.state.reason}")
            if not self.controllers:
                self._due = self.now + self.scenario.down
        for invariant in INVARIANTS:
            problem = invariant(self, controller)
            assert not problem, f"{invariant.__name__}: {problem}"

    def _note(self, controller: Controller) -> None:
        self.shares.append(self.candidates_share)
        if len(self.memory._items) != self._items:
            self._items, self.model = len(self.memory._items), self.truth.state("m")
        chain = self.model.rollout
        is_settled = chain is not None and chain.event == FINISHED and self.front.version_of(STABLE) == NEW
        self.given.append(WHOLE if is_settled else self.front.weights.get(CANARY, 0))
        judged = controller.seen.judged
        if judged and controller.state.step >= 0:
            self.verdicts.append(judged.verdict)
        state = controller.state
        line = f"{state.controller} {state.phase} {state.step} g{state.generation} {dict(self.front.weights)}"
        if not self.log or not self.log[-1].endswith(line):
            self.log.append(f"{self.now} {line}")

    @property
    def candidates_share(self) -> int:
        """What the candidate gets now, in whichever arm."""
        arms = [a for a in (STABLE, CANARY) if self.front.version_of(a) == NEW]
        return sum(self.front.share_of(a) for a in arms)

    def _happen(self) -> None:
        scenario, now = self.scenario, self.now
        self.is_outage = any(begin <= now < begin + lasts for begin, lasts in scenario.outages)
        for at in (*scenario.proxy_restarts,):
            self._once(f"proxy {at}", at, self.front.restart)
        for at in scenario.server_restarts:
            self._once(f"server {at}", at, lambda: self.front.restart_arm(CANARY))
        if scenario.kind == LATE:
            self._once("fault", scenario.fault, lambda: self.front.behave(2, errors=0.3))
        self._once("champion", scenario.champion_moves, self._move_champion)
        self._once("order", scenario.order[0], self._order)
        self._once("second", scenario.second, self._resume)
        if any(c.state.phase == machine.HELD and c.state.elapsed > 10 for c in self.controllers):
            self._once("order", now, self._order)  # a person, at last
        if now >= self._due:
            self._due = math.inf
            self._resume()

    def _once(self, name: str, at: float, what: Callable[[], object]) -> None:
        if self.now >= at and name not in self._done:
            self._done.add(name)
            what()

    def _move_champion(self) -> None:
        other = Target(3, "sha256:" + "c" * 64)
        self.truth.transact("m", lambda _: version(other, "champion"), actor="test")

    def _order(self) -> None:
        """What ``tidegate rollback`` does: first the front, then a word to the controller."""
        loaded = Journal(self.kept).load()
        if loaded and loaded[0].phase in (machine.PREPARING, *machine.GIVEN):
            Journal(self.kept).order("r-1", Order(self.scenario.order[1] or "abort", "ann", "a bad feeling"))
            self.front.set_weights({STABLE: WHOLE}, machine.next_round(self.front.generation))

    def _resume(self) -> None:
        """Start a controller on what is left of the others."""
        loaded = Journal(self.kept).load()
        self._named += 1
        name = f"c-{self._named}"
        if loaded is None:
            state = self.truth.state("m").rollout
            assert not state or not state.is_open, "the ledger was written before the journal"
            self.controllers.append(self._controller(machine.begin(self.plan, name, 0), trials.begin(None)))
            return
        try:
            chain = Registry(self._store()).state("m").rollout
        except StoreError:
            chain = None
        state_ = machine.resume(loaded[0], chain, name)
        if state_ is not None:
            self.controllers.append(self._controller(state_, loaded[1]))

    def _controller(self, state: State, trial: trials.Trial) -> Controller:
        world = Seam(self)
        recorder = LedgerRecorder(Registry(self._store(), lambda: 1.7e9 + self.now), "m", "ann", self._may)
        journal = Journal(Kept(self))  # type: ignore[arg-type]
        seams = Seams(world, world, world, Recording(self, recorder), journal, lambda: self.now, world)
        return Controller(seams, state, trial)

    def _store(self) -> Any:
        return Troubled(self)

    def _may(self, state: ModelState, version_: Version) -> None:
        if self.now >= self.scenario.revoked and version_.version == NEW.version:
            raise ModelRefused("version 2 was revoked")
        may_serve(state, version_)

    def point(self, is_act: bool) -> None:
        """A moment at which a controller can be killed."""
        if is_act:
            self.acts.append(self.points)
        number, self.points = self.points, self.points + 1
        if number in self.scenario.kills:
            raise Killed

    def said(self, chance: float) -> str:
        """How a call goes: well, not at all, or done and reported as failed."""
        drawn = self.chance.random()
        return "not done" if drawn < chance / 2 else "not told" if drawn < chance else ""


@dataclass
class Seam:
    """The front as a controller reaches it."""

    world: World

    def observe(self) -> Observation:
        self.world.point(False)
        seen = self.world.front.observe()
        if self.world.scenario.kind == MUTE:
            seen = replace(seen, arms={})
        last, self.world._last = self.world._last, seen
        return self._faulty(seen, last)

    def _faulty(self, seen: Observation, last: Observation | None) -> Observation:
        drawn, p = self.world.chance.random(), self.world.scenario.observe
        if drawn < p:
            raise ServerError("the front does not answer")
        if drawn < 2 * p and last:
            return last  # late, and then twice
        if drawn < 3 * p:
            bad: Any = self.world.chance.choice([float("nan"), -1, None, "7", 2**60, True, 1.5])
            arm = self.world.chance.choice([CANARY, STABLE])
            return replace(seen, arms={**seen.arms, arm: Tally(bad, 0)})
        if drawn < 4 * p:
            return replace(seen, arms={a: t for a, t in seen.arms.items() if a != CANARY})
        return seen

    def set_weights(self, weights: Mapping[str, int], generation: int) -> None:
        self.world.is_deaf = True
        self._act(lambda: self._set_weights(weights, generation))

    def _set_weights(self, weights: Mapping[str, int], generation: int) -> None:
        self.world.is_deaf = False
        self.world.front.set_weights(weights, generation)

    def set_mirror(self, share: int) -> None:
        self._act(lambda: self.world.front.set_mirror(share))

    def want(self, arms: Mapping[str, Target], generation: int) -> None:
        self._act(lambda: self.world.front.want(arms, generation))

    def _act(self, act: Callable[[], object]) -> None:
        self.world.point(True)
        how = self.world.said(self.world.scenario.act)
        if how != "not done":
            act()
        self.world.point(True)
        if how:
            raise ServerError(f"timed out ({how})")

    def wanted(self) -> Mapping[str, Target]:
        return self.world.front.wanted()

    def running(self) -> Mapping[str, machine.Running]:
        return self.world.front.running()

    def latest(self) -> Mapping[str, tuple[Any, ...]]:
        return {}


@dataclass
class Recording:
    """The recorder as a controller reaches it."""

    world: World
    recorder: LedgerRecorder

    def submit(self, body: Mapping[str, Any]) -> None:
        self.world.point(True)
        self.recorder.submit(body)
        self.world.point(True)

    def poll(self) -> Any:
        self.world.point(False)
        return self.recorder.poll()


@dataclass
class Kept:
    """The journal's disk."""

    world: World

    def get(self, key: str) -> bytes:
        return self.world.kept.get(key)

    def put(self, key: str, data: bytes) -> None:
        self.world.point(True)
        self.world.kept.put(key, data)
        self.world.point(True)


@dataclass
class Troubled:
    """The store, which is away, fails, or does what it is told and says that it failed."""

    world: World

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world.memory, name)

    def get(self, key: str) -> bytes:
        self._there()
        return self.world.memory.get(key)

    def put_new(self, key: str, data: bytes) -> bool:
        self._there()
        how = self.world.said(self.world.scenario.store)
        made = self.world.memory.put_new(key, data) if how != "not done" else False
        if how:
            raise StoreError(f"the outcome is unknown ({how})")
        return made

    def _there(self) -> None:
        if self.world.is_outage:
            raise StoreError("the store cannot be reached")


def behaviours(scenario: Scenario) -> dict[int, Behaviour]:
    """How each version behaves in a scenario."""
    old = Behaviour(errors=0.9 if scenario.kind == BOTH else 0.001, refused=0.01)
    new = {
        REFUSING: Behaviour(refused=0.5),
        FAILING: Behaviour(errors=0.2, refused=0.01),
        SLOW: Behaviour(latency=9_000.0, refused=0.01),
        BOTH: Behaviour(errors=0.9),
        DEAD: Behaviour(starts=math.inf),
    }
    return {1: old, 2: new.get(scenario.kind, Behaviour(refused=0.01)), 3: Behaviour()}


def version(target: Target, alias: str) -> Entry:
    """A version's record."""
    verdict = {"outcome": "pass", "model": target.digest}
    said = {"version": target.version, "digest": target.digest, "kind": "file", "size": 1, "evidence": "sha256:e"}
    return Entry("version", {**said, "verdict": verdict, "lineage": {}, "alias": alias})


# What a controller may never do, asked after each of its looks


def the_front_gives_no_more_than_the_ledger_lets_it(world: World, _: Controller) -> str:
    chain = world.model.rollout
    if world.is_deaf and chain and chain.event in WITHDRAWN:
        return ""  # told, and failing: the next look tells it again
    given, let = world.front.weights.get(CANARY, 0), chain.share if chain else 0
    ends = chain is not None and not chain.is_open and chain.promoted
    return "" if given <= let or ends else f"{given} of {WHOLE}, the ledger says {let} ({chain})"


def no_version_but_the_gates_gets_traffic(world: World, _: Controller) -> str:
    served = [world.front.version_of(a) for a in world.front.weights if world.front.share_of(a)]
    unknown = [v for v in served if v and v.version not in world.model.versions]
    return f"{unknown}" if unknown else ""


def a_revoked_version_gets_no_more_than_it_had(world: World, _: Controller) -> str:
    chain = world.model.rollout
    if world.now < world.scenario.revoked or not chain or chain.event == FINISHED:
        return ""
    world.let = chain.share if world.let is None else world.let  # what was recorded before it was revoked
    given = world.front.weights.get(CANARY, 0)
    return f"{given} after {world.let}" if given > world.let and chain.event not in WITHDRAWN else ""


def the_share_grows_until_it_falls_once(world: World, _: Controller) -> str:
    given = world.given
    fell = [i for i in range(1, len(given)) if given[i] < given[i - 1]]
    grew = [i for i in range(1, len(given)) if given[i] > given[i - 1]]
    if not fell:
        return ""
    is_back = bool(grew) and max(grew) > min(fell)
    return f"{given}" if is_back or given[-1] != 0 else ""


def nothing_is_promoted_that_was_not_found_healthy(world: World, _: Controller) -> str:
    chain = world.model.rollout
    return "promoted" if chain and chain.promoted and judgement.HEALTHY not in world.verdicts else ""


def what_cannot_be_told_or_is_bad_is_not_promoted(world: World, _: Controller) -> str:
    chain = world.model.rollout
    kind = world.scenario.kind
    if kind == SLOW and not any(step <= WHOLE / 2 for step in world.scenario.steps):
        return ""  # the next rule
    return f"{kind} was promoted" if chain and chain.promoted and kind in (*BAD, *CANNOT_TELL) else ""


def a_judge_that_does_not_compare_latency_says_so(_: World, controller: Controller) -> str:
    judgement = controller.trial.judgement
    if judgement is None or not judgement.findings or judgement.weights.is_even:
        return ""
    texts = [f.text for f in judgement.findings]
    return "" if any("not compared" in t and "latency" in t for t in texts) else f"unsaid in {texts}"


def an_alarm_takes_the_traffic_at_the_same_look(world: World, controller: Controller) -> str:
    judged, state = controller.seen.judged, controller.state
    is_alarm = judged is not None and judged.verdict == judgement.ALARM and state.phase in machine.GIVEN
    return f"{state.phase} after {judged}" if is_alarm and not state.is_lost else ""


def a_withdrawn_canary_has_no_weight_once_the_front_was_told(world: World, controller: Controller) -> str:
    failed = [t for t in controller.trouble if t.startswith("the front")]
    is_killed = controller not in world.controllers
    if controller.state.phase != machine.WITHDRAWN or failed or is_killed:
        return ""
    return f"{dict(world.front.weights)}" if world.front.weights.get(CANARY) else ""


INVARIANTS: Sequence[Callable[[World, Controller], str]] = (
    the_front_gives_no_more_than_the_ledger_lets_it,
    no_version_but_the_gates_gets_traffic,
    a_revoked_version_gets_no_more_than_it_had,
    the_share_grows_until_it_falls_once,
    nothing_is_promoted_that_was_not_found_healthy,
    what_cannot_be_told_or_is_bad_is_not_promoted,
    a_judge_that_does_not_compare_latency_says_so,
    an_alarm_takes_the_traffic_at_the_same_look,
    a_withdrawn_canary_has_no_weight_once_the_front_was_told,
)


def check_end(world: World, state: State) -> None:
    """What holds when a rollout is over: ledger, journal, front and fleet say the same."""
    model = world.truth.verify("m")
    chain = model.rollout
    champion = 3 if "champion" in world._done else 1
    if chain is not None:
        assert not chain.is_open, f"the ledger's rollout is open: {chain}"
        assert chain.event in {PROMOTED: (FINISHED,)}.get(state.outcome, WITHDRAWN)
    else:
        assert state.outcome in (ROLLED_BACK, ABORTED), "never opened"
    kept = NEW if state.outcome == PROMOTED else OLD
    if state.outcome == PROMOTED and "champion" not in world._done:
        champion = 2
    if "champion" not in world._done:
        assert model.aliases["champion"] == champion
    assert dict(world.front.weights) == {STABLE: WHOLE}
    assert dict(world.front.wanted()) == {STABLE: kept}
    assert Journal(world.kept).load(), "the journal is there"
    if world.scenario.kind == GOOD and world.scenario.is_calm:
        assert state.outcome == PROMOTED, f"a good candidate was {state.outcome}: {state.reason}"


def end_of(world: World, state: State) -> tuple[Any, ...]:
    """What is the same at the end, whoever was killed when."""
    model = world.truth.state("m")
    event = model.rollout.event if model.rollout else ""
    return state.outcome, event, dict(model.aliases), dict(world.front.weights), dict(world.front.wanted())


def quick_judge() -> Iterator[tuple[str, Any]]:
    """Stand-ins for the judge's arithmetic, which has its own tests: what is simulated here is what follows from it."""

    def begin(
        rules: judgement.Rules,
        weights: judgement.Weights,
        _: Any = None,
        history: judgement.History = judgement.History(),
    ) -> Any:
        return judgement.Judgement(rules, weights, history, {}, None, {})

    def look(made: judgement.Judgement, seen: judgement.Look) -> judgement.Judgement:
        if made.verdict == judgement.ALARM:
            return made
        canary, control, rules = seen.canary, seen.control, made.rules
        rate = control.errors / max(control.requests, 1)
        slow = sum(canary.latency[15:]) > 0.3 * max(canary.requests, 20)  # beyond 7 ms
        fails = canary.errors >= 5 and canary.errors > (3 * rate + 0.02) * canary.requests
        usual = control.refused / max(control.requests, 1)
        refuses = canary.refused >= 5 and canary.refused > (3 * usual + 0.02) * canary.requests
        missing = seen.seconds > 5 and canary.requests == 0 and control.requests > 100
        enough = canary.requests >= rules.min_requests and control.requests >= 100 and seen.seconds >= rules.min_seconds
        healthy = enough and canary.errors / max(canary.requests, 1) <= rate + 0.01
        healthy = healthy and canary.refused / max(canary.requests, 1) <= usual + 0.03
        verdict = (
            judgement.ALARM
            if fails or refuses or slow or missing
            else judgement.HEALTHY
            if healthy
            else judgement.CONTINUE
        )
        return replace(made, verdict=verdict, seen=seen)

    yield "begin", begin
    yield "look", look
