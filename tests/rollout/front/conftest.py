"""A real HAProxy before real servers that misbehave on request."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.rollout.front import client
from tests.servers import listening, wait_until
from tidegate.rollout.front.configuration import Settings
from tidegate.rollout.front.haproxy import HaproxyRouter
from tidegate.rollout.front.process import Process, is_alive, reap, tell
from tidegate.rollout.front.proxy import start_proxy
from tidegate.rollout.router import ARMS, BASELINE, CANARY, STABLE, WHOLE, Observation

BACKEND = Path(__file__).with_name("backend.py")


def quiet_port() -> int:
    """A free port that no outgoing connection is given meanwhile: below those that the system gives out."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


@dataclass
class Backend:
    """A server of an arm, in a process of its own."""

    name: str
    port: int = field(default_factory=quiet_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-S", "-E", str(BACKEND), str(self.port), self.name]
        self.process = subprocess.Popen(command, start_new_session=True)

    def be(self, mode: str) -> None:
        assert client.ask(self.port, 1, path=f"/mode/{mode}", connections=1).failed == 0

    def send(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Front:
    """HAProxy with its router, and a server an arm."""

    settings: Settings
    binary: str = ""
    backends: dict[str, Backend] = field(default_factory=dict)
    process: Process | None = None
    generation: int = 0

    @property
    def router(self) -> HaproxyRouter:
        return HaproxyRouter(self.settings.folder)

    def start(self, arms: tuple[str, ...] = ARMS) -> None:
        for arm in arms:
            if arm not in self.backends:
                self.backends[arm] = Backend(arm)
                self.backends[arm].start()
        wait_until(lambda: all(listening(b.port) for b in self.backends.values()))
        self.process = start_proxy(self.settings, arms, binary=self.binary)
        for arm in arms:
            self.router.serve(arm, [self.backends[arm].port])

    def kill(self) -> None:
        assert self.process
        tell(self.process, signal.SIGKILL)
        wait_until(lambda: not is_alive(self.process))
        reap()

    def weights(self, canary: int = 0, baseline: int = 0) -> None:
        self.generation += 1
        shares = {STABLE: WHOLE - canary - baseline, CANARY: canary, BASELINE: baseline}
        self.router.set_weights(shares, self.generation)

    def ask(self, count: int, **how: object) -> client.Answers:
        return client.ask(self.settings.port, count, **how)

    def observe(self) -> Observation:
        return self.router.observe()

    def stop(self) -> None:
        if self.process:
            self.kill()
        for backend in self.backends.values():
            backend.stop()


@contextmanager
def fronted(binary: str = "", **settings: object) -> Iterator[Front]:
    # HAProxy's sockets need a short path
    folder = Path(tempfile.mkdtemp(prefix="tidegate-front-"))
    front = Front(Settings(folder, quiet_port(), **{"timeout_ms": 150, **settings}), binary)  # type: ignore[arg-type]
    try:
        yield front
    finally:
        front.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shared() -> Iterator[Front]:
    """One front for the tests of a module: each begins with healthy servers."""
    with fronted() as front:
        front.start()
        yield front


@pytest.fixture
def front(shared: Front) -> Front:
    return healthy(shared)


def healthy(front: Front) -> Front:
    """The front with healthy servers, all requests for stable."""
    for arm, backend in front.backends.items():
        if backend.process is None:
            backend.start()
            wait_until(lambda b=backend: listening(b.port))
        backend.be("ok")
        front.router.serve(arm, [])
        front.router.serve(arm, [backend.port])
    front.weights()
    return front


@pytest.fixture
def own() -> Iterator[Front]:
    """A front for one test."""
    with fronted() as front:
        front.start()
        yield front
