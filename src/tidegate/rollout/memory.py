"""A front in memory: router, fleet and scores over synthetic traffic, for simulations that take no time.

Traffic comes at a steady rate and goes to arms at random by their weights, as at a real front: an arm without a ready
server counts as absent, its share goes to stable; what the canary fails is counted as its error. Everything follows from
the seed and from the clock, which somebody else moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tidegate.errors import Conflict
from tidegate.rollout.counts import Score
from tidegate.rollout.router import ARMS, CANARY, LATENCY_EDGES, STABLE, WHOLE, Observation, Tally
from tidegate.rollout.state import Running, Target


@dataclass(frozen=True)
class Behaviour:
    """How the servers of one version answer.

    Attributes:
        errors: the share of requests that fail.
        latency: the median, in microseconds.
        spread: the standard deviation of the latency's natural logarithm.
        predictions: the share of each bin of the version's own profile; none where none are counted.
        starts: seconds until a server is ready; infinite for one that never is.
        refused: the share of requests that are answered 4xx.
    """

    errors: float = 0.001
    latency: float = 2_000.0
    spread: float = 0.35
    predictions: tuple[float, ...] = ()
    starts: float = 0.5
    refused: float = 0.0

    def shares(self) -> np.ndarray:
        """The share of answers in each bin of latency."""
        edges = np.log(np.array(LATENCY_EDGES) / self.latency) / (self.spread * math.sqrt(2))
        below = np.array([0.5 * (1 + math.erf(e)) for e in edges])
        found: np.ndarray = np.diff([0.0, *below, 1.0])
        return found


@dataclass
class MemoryFront:
    """All of a front, in memory: a ``Router``, a ``Mirror``, a ``Fleet`` and ``Scores``.

    Args:
        clock: seconds that only grow.
        behaviours: how each version behaves.
        stable: the version that serves when it begins.
        rate: requests a second.
        seed: of all chance.
    """

    clock: Callable[[], float]
    behaviours: Mapping[int, Behaviour]
    stable: Target
    rate: float = 1000.0
    seed: int = 0
    epoch: str = "front-1"
    weights: Mapping[str, int] = field(default_factory=lambda: {STABLE: WHOLE})
    generation: int = 0
    share: int = 0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._at = self.clock()
        self._tallies: dict[str, Tally] = {arm: Tally() for arm in ARMS}
        self._scores: dict[str, tuple[str, np.ndarray]] = {}
        self._wanted: dict[str, Target] = {STABLE: self.stable}
        self._ready: dict[str, tuple[Target, float]] = {STABLE: (self.stable, float("-inf"))}
        self._latency = {v: b.shares() for v, b in self.behaviours.items()}
        self._started = 0

    def set_weights(self, weights: Mapping[str, int], generation: int) -> None:
        """See ``Router``."""
        self.flow()
        given = {a: w for a, w in weights.items() if w}
        if generation < self.generation or (generation == self.generation and given != self.weights):
            raise Conflict(f"the front has weights of generation {self.generation}, not {generation}")
        self.weights, self.generation = given, generation

    def observe(self) -> Observation:
        """See ``Router``."""
        self.flow()
        return Observation(self.epoch, self.generation, dict(self.weights), dict(self._tallies))

    def set_mirror(self, share: int) -> None:
        """See ``Mirror``."""
        self.flow()
        self.share = share

    def want(self, arms: Mapping[str, Target], generation: int) -> None:
        """See ``Fleet``."""
        self.flow()
        if generation < self.generation:
            raise Conflict(f"the front has weights of generation {self.generation}, not {generation}")
        for arm in [a for a in self._ready if a not in arms]:
            del self._ready[arm]
        for arm, target in arms.items():
            if self._wanted.get(arm) != target or arm not in self._ready:
                self._start(arm, target)
        self._wanted = dict(arms)

    def wanted(self) -> Mapping[str, Target]:
        """See ``Fleet``."""
        return dict(self._wanted)

    def running(self) -> Mapping[str, Running]:
        """See ``Fleet``."""
        now = self.clock()
        return {a: Running(frozenset({t.digest}), int(at <= now)) for a, (t, at) in self._ready.items()}

    def latest(self) -> Mapping[str, tuple[Score, ...]]:
        """See ``Scores``."""
        self.flow()
        return {a: (Score(e, tuple(int(n) for n in c)),) for a, (e, c) in self._scores.items()}

    def restart(self) -> None:
        """Let the proxy die and come back: another epoch, counts at 0, the committed weights."""
        self.flow()
        self.epoch = f"front-{int(self.epoch.rpartition('-')[2]) + 1}"
        self._tallies = {arm: Tally() for arm in ARMS}

    def restart_arm(self, arm: str) -> None:
        """Let the servers of an arm die and come back."""
        self.flow()
        if arm in self._ready:
            self._start(arm, self._ready[arm][0])

    def share_of(self, arm: str) -> int:
        """The share that an arm has now, given which servers are ready."""
        now = self.clock()
        there = {a: w for a, w in self.weights.items() if a in self._ready and self._ready[a][1] <= now}
        return there.get(arm, 0) if arm != STABLE else WHOLE - sum(w for a, w in there.items() if a != STABLE)

    def version_of(self, arm: str) -> Target | None:
        """The version that an arm's servers have."""
        return self._ready[arm][0] if arm in self._ready else None

    def flow(self) -> None:
        """Let the traffic since the last call happen."""
        now = self.clock()
        passed, self._at = max(now - self._at, 0.0), now
        if not passed:
            return
        requests = int(self._random.poisson(self.rate * passed))
        shares = np.array([self.share_of(a) for a in ARMS], dtype=float) / WHOLE
        for arm, count in zip(ARMS, self._random.multinomial(requests, shares), strict=True):
            self._answer(arm, int(count))
        if self.share and CANARY in self._ready and self._ready[CANARY][1] <= now:
            self._answer(CANARY, int(self._random.binomial(requests, self.share / WHOLE)))

    def _start(self, arm: str, target: Target) -> None:
        self._started += 1
        self._ready[arm] = (target, self.clock() + self.behaviours[target.version].starts)
        bins = len(self.behaviours[target.version].predictions)
        if bins:
            self._scores[arm] = (f"{arm}-{self._started}", np.zeros(bins, dtype=np.int64))

    def _answer(self, arm: str, requests: int) -> None:
        if not requests or arm not in self._ready:
            return
        version = self._ready[arm][0].version
        behaviour, chance = self.behaviours[version], self._random
        errors = int(chance.binomial(requests, behaviour.errors))
        refused = int(chance.binomial(requests - errors, behaviour.refused))
        answered = requests - errors - refused
        latency = chance.multinomial(answered, self._latency[version])
        before = self._tallies[arm]
        counts = tuple(int(a + b) for a, b in zip(before.latency, latency, strict=True))
        self._tallies[arm] = Tally(before.requests + requests, before.errors + errors, counts, before.refused + refused)
        if behaviour.predictions:
            if arm not in self._scores:
                self._scores[arm] = (f"{arm}-0", np.zeros(len(behaviour.predictions), dtype=np.int64))
            epoch, counted = self._scores[arm]
            self._scores[arm] = (epoch, counted + chance.multinomial(answered, behaviour.predictions))

    def behave(self, version: int, **changes: float) -> None:
        """Let a version behave otherwise from now on."""
        self.flow()
        self.behaviours = {**self.behaviours, version: replace(self.behaviours[version], **changes)}  # type: ignore[arg-type]
        self._latency[version] = self.behaviours[version].shares()
