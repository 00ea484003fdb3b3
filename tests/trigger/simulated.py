"""Machines in a simulated world: one clock that only the simulation moves, a store that switches between machines at
every call, and whatever can happen to a process there: it is killed, it is stopped for a while, its calls are slow.

One thread a machine, of which one at a time runs; which one is next is drawn from a seed, so that a run can be repeated.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.errors import NotFound
from tidegate.plan.events import SUCCEEDED
from tidegate.registry.model import Entry as Entry_
from tidegate.registry.model import ModelState, Registry
from tidegate.store.base import Entry, Store
from tidegate.store.blobs import Content
from tidegate.store.memory import MemoryStore
from tidegate.trigger.claim import Done
from tidegate.trigger.watch import Order


class Killed(BaseException):
    """kill -9: nothing of the process runs after it."""


@dataclass
class Machine:
    """One process with its own clock, and what is to happen to it at which of its store calls."""

    world: World
    name: str
    main: Callable[[Machine], object]
    offset: float
    wake: float = 0.0
    hintable: bool = False
    calls: int = 0
    stopped: bool = False
    dead: bool = False
    kill_at: float = float("inf")
    stop_at: float = float("inf")
    stop_seconds: float = 0.0
    latency: float = 0.01
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def clock(self) -> float:
        """Monotonic seconds of this machine, which mean nothing on another."""
        return self.world.now + self.offset

    def wall(self) -> float:
        """What it takes for the time of day: days off."""
        return 1.8e9 + self.world.now - self.offset

    def wait(self, seconds: float) -> None:
        """Wait for a hint, seconds at most."""
        self.hintable = True
        self.pause(seconds)
        self.hintable = False

    def pause(self, seconds: float) -> None:
        """Let the others run."""
        self.wake = self.world.now + seconds
        self.world.baton.release()
        self.gate.acquire()
        if self.world.over:
            raise Killed

    def stop(self, seconds: float) -> None:
        """SIGSTOP, then SIGCONT."""
        self.stopped = True
        self.pause(seconds)
        self.stopped = False

    def call(self, action: Callable[[], object]) -> object:
        """A call of the store: others run before it and after it; a kill falls before its effect or after it."""
        self.calls += 1
        number = self.calls
        self._happen(number - 0.5)
        self.pause(self.world.random.random() * self.latency)
        result = action()
        self._happen(number)
        return result

    def _happen(self, at: float) -> None:
        if at == self.kill_at:
            raise Killed
        if at == self.stop_at:
            self.stop(self.stop_seconds)


class World:
    """The simulation.

    Args:
        seed: repeats it.
    """

    def __init__(self, seed: int) -> None:
        self.random, self.now, self.over = random.Random(seed), 0.0, False
        self.memory = MemoryStore("world")
        self.machines: list[Machine] = []
        self.baton = threading.Semaphore(0)
        self.failure: BaseException | None = None

    def start(self, name: str, main: Callable[[Machine], object], after: float = 0.0) -> Machine:
        """Start a process."""
        machine = Machine(self, name, main, self.random.uniform(0, 1e6), self.now + after)
        self.machines.append(machine)
        threading.Thread(target=self._live, args=(machine,), daemon=True).start()
        return machine

    def _live(self, machine: Machine) -> None:
        machine.gate.acquire()
        try:
            if not self.over:
                machine.main(machine)
        except Killed:
            pass
        except BaseException as e:
            self.failure = e
        machine.dead = True
        self.baton.release()

    def hint(self, machine: Machine) -> None:
        """Tell a machine to look; lost where it is not waiting."""
        if machine.hintable:
            machine.wake = min(machine.wake, self.now)

    def run(self, until: float) -> None:
        """Let time pass."""
        while not self.failure:
            alive = [m for m in self.machines if not m.dead]
            soonest = min((m.wake for m in alive), default=until)
            if soonest >= until:
                break
            machine = self.random.choice([m for m in alive if m.wake == soonest])
            self.now = max(self.now, soonest)
            machine.gate.release()
            self.baton.acquire()
        self.now = until
        if self.failure:
            raise self.failure

    def end(self) -> None:
        """End every process."""
        self.over = True
        for machine in self.machines:
            if not machine.dead:
                machine.gate.release()
                self.baton.acquire()


@dataclass(frozen=True)
class Reached(Store):
    """The world's store, as one machine reaches it."""

    machine: Machine

    @property
    def uri(self) -> str:
        return self._store.uri

    @property
    def _store(self) -> MemoryStore:
        return self.machine.world.memory

    def get(self, key: str) -> bytes:
        return self.machine.call(lambda: self._store.get(key))  # type: ignore[return-value]

    def put(self, key: str, data: bytes) -> None:
        self.machine.call(lambda: self._store.put(key, data))

    def put_new(self, key: str, data: bytes) -> bool:
        return self.machine.call(lambda: self._store.put_new(key, data))  # type: ignore[return-value]

    def find(self, key: str) -> Entry | None:
        return self.machine.call(lambda: self._store.find(key))  # type: ignore[return-value]

    def list(self, prefix: str, *, recursive: bool = True) -> Iterator[Entry]:
        return iter(self.machine.call(lambda: [*self._store.list(prefix, recursive=recursive)]))  # type: ignore[call-overload]

    def delete(self, key: str) -> None:
        self.machine.call(lambda: self._store.delete(key))


@dataclass(frozen=True)
class Shape:
    """A pin of simulated data."""

    identity: str
    complete: bool = False
    source: str = "sim"
    revision: str = ""
    lacks: str = ""

    def __str__(self) -> str:
        return f"sim:{self.identity}"

    def absent(self) -> NotFound | None:
        return NotFound(f"{self.lacks} is not there yet", code="data-missing") if self.lacks else None

    def fetch(self, target: Path) -> Content:
        raise NotImplementedError


@dataclass
class Runs:
    """What runs leave in a world, and who runs what at this moment."""

    world: World
    steps: int = 4
    going: list[tuple[Machine, str]] = field(default_factory=list)
    started: list[tuple[float, str, Mapping[str, Any]]] = field(default_factory=list)

    def starter(self, machine: Machine) -> Callable[[Order], str]:
        """Run as the real one does: a heartbeat again and again, and an end when the lease is lost."""

        def start(order: Order) -> str:
            others = [m.name for m, run in self.going if run == order.run_id and m.stop_at == float("inf")]
            assert not others, f"{machine.name} runs {order.run_id} beside {others}"
            self.going.append((machine, order.run_id))
            self.started.append((self.world.now, order.run_id, order.parameters))
            try:
                return self._run(machine, order)
            finally:
                self.going.remove((machine, order.run_id))

        return start

    def _run(self, machine: Machine, order: Order) -> str:
        for _ in range(self.steps):
            machine.pause(order.lease.claims.lease / 4)
            if not order.lease.beat():
                raise KeyboardInterrupt
        register(Reached(machine), order.run_id, self.world.random.randbytes(32).hex())
        return SUCCEEDED


def register(store: Store, run_id: str, sha256: str) -> None:
    """Register as ``registry.register`` does, with other bytes each time: training need not be repeatable."""

    def decide(state: ModelState) -> Entry_ | None:
        if state.by_step(run_id, "register"):
            return None
        digest = f"sha256:{sha256}"
        verdict = {"outcome": "pass", "model": digest}
        body = {"version": len(state.versions) + 1, "digest": digest, "kind": "file", "size": 1, "evidence": ""}
        return Entry_("version", {**body, "verdict": verdict, "lineage": {"step": "register"}})

    Registry(store, lambda: 0.0).transact("m", decide, actor="sim", run=run_id)


def outcomes(world: World) -> list[Done]:
    """The outcomes that are kept."""
    keys = [e.key for e in world.memory.list("claims") if e.key.endswith("/done")]
    return [Done(**json.loads(world.memory.get(k))) for k in keys]


def versions(world: World) -> list[str]:
    """The runs that registered a version, one a version."""
    return [v.run for v in Registry(world.memory).state("m").versions.values()]
