"""HAProxy as a router: shares, counts, generations, servers, and what survives what."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.rollout.front.conftest import Backend, Front, fronted
from tests.servers import listening, wait_until
from tidegate.errors import Conflict, ServerError, UsageError
from tidegate.rollout.front import proxy
from tidegate.rollout.front.configuration import SLOW, Settings, configuration
from tidegate.rollout.front.haproxy import HaproxyRouter
from tidegate.rollout.front.proxy import start_proxy
from tidegate.rollout.front.weights import committed
from tidegate.rollout.router import BASELINE, CANARY, LATENCY_EDGES, STABLE, WHOLE


def test_each_request_draws_its_arm_at_random_by_the_weights(front: Front) -> None:
    front.weights(500, 500)
    before = front.observe().arms
    answers = front.ask(4000)
    # 200 of 4,000 expected, standard deviation 13.8: 90 is 6.5 of them
    assert answers.failed == 0
    assert abs(answers.by(CANARY) - 200) < 90
    assert abs(answers.by(BASELINE) - 200) < 90
    after = front.observe().arms
    for arm in (STABLE, CANARY, BASELINE):
        assert after[arm].requests - before[arm].requests == answers.by(arm)
        assert after[arm].errors == before[arm].errors


def test_the_latency_of_an_arm_is_counted_under_its_edges(front: Front) -> None:
    front.backends[CANARY].be("slow-40")
    front.weights(5000)
    before = front.observe().arms
    answers = front.ask(60)
    after = front.observe().arms
    slow = [b - a for a, b in zip(before[CANARY].latency, after[CANARY].latency, strict=True)]
    assert len(slow) == SLOW + 1
    assert sum(slow) == answers.by(CANARY)
    low = next(i for i, edge in enumerate(LATENCY_EDGES) if edge >= 38_000)
    assert sum(slow[:low]) == 0
    assert sum(after[STABLE].latency[:low]) > sum(before[STABLE].latency[:low])


def test_a_proxy_that_an_older_tidegate_started_is_read_and_counts_refusals_as_answers(
    own: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(*given: Any) -> str:
        return "".join(line for line in configuration(*given).splitlines(keepends=True) if "refused" not in line)

    monkeypatch.setattr(proxy, "configuration", older)
    own.kill()
    own.start()
    own.backends[CANARY].be("status-400")
    own.weights(5000, 5000)
    answers = own.ask(60)
    canary = own.observe().arms[CANARY]
    assert answers.seen[400, CANARY] == canary.requests == sum(canary.latency) > 0
    assert (canary.errors, canary.refused) == (0, 0)


def test_a_client_with_the_header_always_meets_the_same_arm_and_keeps_it_when_its_share_grows() -> None:
    with fronted(sticky="x-account") as front:
        front.start()
        front.weights(2500, 2500)

        def arm(account: int) -> str:
            answers = front.ask(3, headers=f"x-account: {account}\r\n", connections=1)
            ((_, name),) = answers.seen
            return name

        first = {account: arm(account) for account in range(60)}
        assert set(first.values()) == {STABLE, CANARY, BASELINE}
        front.weights(5000)
        second = {account: arm(account) for account in range(60)}
        assert all(second[a] == CANARY for a in first if first[a] == CANARY)
        assert len(front.ask(200).seen) == 2


def test_twenty_changes_of_weights_under_load_cost_no_request(front: Front) -> None:
    over = threading.Event()

    def change() -> None:
        for n in range(20):
            front.weights((500, 5000, 0, WHOLE, 2500)[n % 5])
            over.wait(0.02)
        over.set()

    thread = threading.Thread(target=change)
    thread.start()
    answers = front.ask(100_000, until=over.is_set)
    thread.join()
    assert answers.failed == 0
    assert answers.by(CANARY) > 0
    assert answers.by(STABLE) > 0


def test_weights_are_in_force_when_the_call_returns_and_twice_is_once(front: Front) -> None:
    front.weights(WHOLE)
    assert front.ask(40).by(CANARY) == 40
    front.router.set_weights({CANARY: WHOLE}, front.generation)
    front.weights(0)
    assert front.ask(40).by(STABLE) == 40
    seen = front.observe()
    assert (seen.weights, seen.generation) == ({STABLE: WHOLE}, front.generation)


def test_a_controller_of_an_older_generation_is_refused_and_changes_nothing(front: Front) -> None:
    front.weights(500)
    front.weights(2500)
    for generation in (front.generation - 1, front.generation):
        with pytest.raises(Conflict):
            front.router.set_weights({CANARY: WHOLE}, generation)
    assert front.observe().weights == {STABLE: 7500, CANARY: 2500}
    assert committed(front.settings.folder).shares == {STABLE: 7500, CANARY: 2500}


def test_of_controllers_that_race_the_newest_wins(front: Front) -> None:
    begin = front.generation + 1

    def steer(generation: int) -> None:
        try:
            front.router.set_weights({STABLE: WHOLE - generation, CANARY: generation}, begin + generation)
        except Conflict:
            return

    threads = [threading.Thread(target=steer, args=[n]) for n in range(1, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    front.generation = begin + 12
    assert front.observe().weights == {STABLE: WHOLE - 12, CANARY: 12} == committed(front.settings.folder).shares


def test_wrong_weights_are_refused_before_anything_is_asked(front: Front) -> None:
    for wrong in ({STABLE: 1}, {"green": WHOLE}, {STABLE: WHOLE + 5, CANARY: -5}):
        with pytest.raises(UsageError):
            front.router.set_weights(wrong, front.generation + 1)


def test_a_proxy_that_was_killed_begins_with_the_last_committed_weights_and_another_epoch(own: Front) -> None:
    own.weights(2500)
    epoch = own.observe().epoch
    own.ask(100)
    own.kill()
    with pytest.raises(ServerError):
        own.observe()
    own.start()
    seen = own.observe()
    assert seen.epoch not in ("", epoch)
    assert (seen.weights, seen.generation) == ({STABLE: 7500, CANARY: 2500}, own.generation)
    assert seen.arms[CANARY].requests == 0
    with pytest.raises(Conflict):
        own.router.set_weights({CANARY: WHOLE}, own.generation - 1)


def test_a_proxy_that_begins_without_the_canary_serves_stable_only(own: Front) -> None:
    own.weights(5000)
    own.kill()
    own.backends.pop(CANARY).stop()
    own.start((STABLE,))
    assert own.observe().weights == {STABLE: WHOLE}
    assert own.ask(50).seen == {(200, STABLE): 50}


def test_traffic_taken_away_while_the_proxy_is_dead_stays_away_and_none_is_given(own: Front) -> None:
    own.weights(2500)
    own.kill()
    with pytest.raises(ServerError):
        own.weights(5000)
    assert committed(own.settings.folder).shares[CANARY] == 2500
    with pytest.raises(ServerError):
        own.weights(0)
    own.start()
    assert own.observe().weights == {STABLE: WHOLE}


def test_servers_come_and_go_under_load_and_no_request_is_dropped(own: Front) -> None:
    own.weights(2500)
    more = [Backend(STABLE) for _ in range(3)]
    over = threading.Event()
    failed: list[BaseException] = []

    def change() -> None:
        try:
            for n in range(12):
                own.router.serve(STABLE, [own.backends[STABLE].port, *[b.port for b in more]][n % 4 :])
                own.router.serve(CANARY, [own.backends[CANARY].port] if n % 2 else [more[0].port])
                over.wait(0.02)
        except BaseException as e:
            failed.append(e)
        finally:
            over.set()

    try:
        for backend in more:
            backend.start()
        wait_until(lambda: all(listening(b.port) for b in more))
        thread = threading.Thread(target=change)
        thread.start()
        answers = own.ask(100_000, until=over.is_set)
        thread.join()
    finally:
        for backend in more:
            backend.stop()
    assert not failed
    assert answers.failed == 0, answers.seen


def test_requests_of_a_candidate_are_spread_over_all_its_servers(own: Front) -> None:
    second = Backend("second")
    try:
        second.start()
        wait_until(lambda: listening(second.port))
        own.router.serve(CANARY, [own.backends[CANARY].port, second.port])
        own.weights(WHOLE)
        answers = own.ask(400)
        assert 120 < answers.by("second") < 280
        second.stop()
        before = own.observe().arms[CANARY]
        wait_until(lambda: own.ask(20).seen == {(200, CANARY): 20})  # once its health check is seen to fail
        assert own.observe().arms[CANARY].requests > before.requests
    finally:
        second.stop()


def test_more_servers_than_there_are_places_are_refused(front: Front) -> None:
    with pytest.raises(ServerError):
        front.router.serve(CANARY, range(20_000, 20_050))


def test_a_port_in_use_is_said_with_what_to_type(own: Front) -> None:
    with fronted() as second, pytest.raises(ServerError) as caught:
        start_proxy(Settings(second.settings.folder, own.settings.port), [STABLE])
    assert caught.value.code == "front-start"
    assert "--port" in caught.value.hint


def test_a_front_that_does_not_run_is_said(own: Front) -> None:
    own.kill()
    with pytest.raises(ServerError) as caught:
        own.observe()
    assert caught.value.code == "front-unreachable"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "proc.weights: type=sint value=<5>\n\nproc.epoch: type=str value=<e>\n\n",
        "Unknown command: 'get var'",
        "\xff",
    ],
)
def test_an_answer_that_is_cut_short_is_an_error_and_never_no_requests(answer: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tidegate-front-"))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "haproxy.sock"))
        sock.listen()

        def say() -> None:
            connection, _ = sock.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer.encode("latin-1"))

        thread = threading.Thread(target=say)
        thread.start()
        with pytest.raises(ServerError) as caught:
            HaproxyRouter(folder).observe()
        thread.join()
    shutil.rmtree(folder)
    assert caught.value.code == "front-unreachable"
