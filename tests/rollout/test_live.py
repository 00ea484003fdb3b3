"""Rollouts of real processes: HAProxy, servers of small models, a controller that is killed, steady traffic."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rollout.made import BODY, NAME, Place, placed, traffic
from tests.servers import wait_until
from tidegate.rollout.front.fleet import read_fleet
from tidegate.rollout.front.haproxy import HaproxyRouter
from tidegate.rollout.journal import Journal
from tidegate.rollout.router import CANARY, STABLE, WHOLE
from tidegate.store.local import LocalStore

FAILS = BODY.replace(b"1.0", b"9.0")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with placed() as made:
        made.register("champion")
        made.front()
        yield made


def weights(place: Place) -> dict[str, int]:
    return dict(HaproxyRouter(place.folder).observe().weights)


def step(place: Place) -> int:
    loaded = Journal(LocalStore(place.folder / "rollout")).load()
    return loaded[0].step if loaded and loaded[0].phase == "canary" else -1


def events(place: Place) -> list[str]:
    said = [r.body for r in place.registry.ledger.records(NAME) if r.kind == "rollout"]
    return [b["event"] for b in said if b["id"] == said[-1]["id"]]


def champion(place: Place) -> int:
    return place.registry.state(NAME).aliases["champion"]


def test_a_good_candidate_is_promoted_by_itself_and_no_request_fails(place: Place) -> None:
    number = place.register("challenger")
    with traffic(place.port) as answers:
        code, out, err = place.run("rollout", "start", NAME, "--rate", "300")
    assert (code, "promoted" in out) == (0, True), out + err
    assert (champion(place), answers.failed) == (number, 0)
    assert sum(answers.seen.values()) > 100
    assert events(place) == ["started", "step", "promoted", "finished"]
    assert weights(place) == {STABLE: WHOLE}
    assert read_fleet(place.folder).arms[STABLE].reference == f"{NAME}:{number}"
    assert place.registry.verify(NAME)


def test_a_candidate_that_fails_is_taken_back_by_itself_and_no_client_sees_it(place: Place) -> None:
    before = champion(place)
    number = place.register("challenger", fails_above=5.0)
    with traffic(place.port, FAILS) as answers:
        code, out, err = place.run("rollout", "start", f"{NAME}:{number}", "--rate", "300")
        assert (code, "rolled-back" in out) == (1, True), out + err
        again = place.run("rollout", "start", f"{NAME}:{number}", "--rate", "300")
    assert (champion(place), answers.failed, weights(place)) == (before, 0, {STABLE: WHOLE})
    assert events(place) == ["started", "step", "rolled-back"]
    assert "errors: the canary's error rate" in out
    assert (again[0], "--again" in again[2]) == (2, True), "the same version is not tried again by accident"


def test_a_candidate_that_takes_other_inputs_is_refused_before_a_client_was(place: Place) -> None:
    number = place.register("challenger", feature="y")
    code, _, err = place.run("rollout", "start", f"{NAME}:{number}", "--rate", "300")
    assert code == 2, err
    assert f"version {number} takes 'y' (FP32) where the champion, version {champion(place)}, has 'x' (FP32)" in err


def test_one_killed_in_mid_canary_leaves_the_weights_and_the_next_one_goes_on(place: Place) -> None:
    number = place.register("challenger")
    with traffic(place.port) as answers:
        first = place.start("rollout", "start", NAME, "--step", "10,50", "--rate", "300")
        wait_until(lambda: step(place) == 0)
        second = place.run("rollout", "start", NAME)
        assert (second[0], "rollout-controlled" in second[2]) == (3, True), second
        first.send_signal(signal.SIGKILL)
        first.wait()
        left = weights(place)
        assert left.get(CANARY, 0) > 0
        status = json.loads(place.run("rollout", "status", NAME, "--json")[1])
        assert (status["trouble"], weights(place)) == (["no controller is alive"], left)
        code, out, err = place.run("rollout", "start", NAME)
    assert (code, champion(place), answers.failed) == (0, number, 0), out + err
    assert "resumed" in events(place)


def test_a_controller_is_left_behind_once_the_journal_is_its_own_or_says_why_it_is_none(place: Place) -> None:
    number = place.register("challenger")
    code, _, err = place.run("rollout", "start", NAME, "--detach", "--rate", "0.001", "--deadline", "1m")
    assert (code, "rollout-undecidable" in err) == (2, True), err
    code, out, err = place.run("rollout", "start", NAME, "--detach", "--rate", "0.001", "--deadline", "1m", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "rollout-undecidable"), err
    with traffic(place.port):
        code, out, err = place.run("rollout", "start", NAME, "--detach", "--rate", "300", "--json")
        assert code == 0, err
        said = json.loads(out)
        assert said["log"] == str(place.folder / "rollout.log")
        status = json.loads(place.run("rollout", "status", NAME, "--json")[1])
        assert (status["id"], status["candidate"]) == (said["id"], number), "not the rollout before"
        assert place.run("rollout", "watch", NAME)[0] == 0
    assert champion(place) == number


@pytest.mark.long
def test_a_promoted_version_is_taken_back_at_once_with_its_alias() -> None:
    from dataclasses import replace

    from tests.rollout.made import RULES

    with placed(replace(RULES, rollback_window=600.0)) as place:
        place.register("champion")
        number = place.register("challenger")
        place.front()
        with traffic(place.port) as answers:
            controller = place.start("rollout", "start", NAME)
            wait_until(lambda: champion(place) == number)
            code, out, err = place.run("rollback", NAME, "--reason", "ann saw something")
            assert code == 0, out + err
            assert weights(place) == {STABLE: WHOLE}
            assert controller.wait(120) == 1
        assert (champion(place), answers.failed) == (1, 0)
        assert events(place)[-1] == "rolled-back"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["abort", "rollback"])
def test_traffic_is_taken_back_although_the_controller_hangs(kind: str) -> None:
    with placed() as place:
        place.register("champion")
        place.register("challenger")
        place.front()
        with traffic(place.port):
            controller = place.start("rollout", "start", NAME)
            wait_until(
                lambda: weights(place).get(CANARY, 0) > 0
            )  # not in the instant in which it holds the front's lock
            controller.send_signal(signal.SIGSTOP)
            said: Any = place.run("rollback", NAME) if kind == "rollback" else place.run("rollout", "abort", NAME)
            assert weights(place) == {STABLE: WHOLE}
            assert "the ledger does not hold it yet" in said[1] + said[2]
            controller.send_signal(signal.SIGCONT)
            assert controller.wait(120) == 1
        assert events(place)[-1] == {"abort": "aborted", "rollback": "rolled-back"}[kind]


@pytest.mark.long
def test_a_rollback_ends_although_nobody_is_in_charge_and_the_store_takes_calls_and_never_answers() -> None:
    with placed() as place, socket.create_server(("127.0.0.1", 0)) as silent:
        place.register("champion")
        place.register("challenger")
        place.front()
        aws = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "AWS_REGION": "us-east-1"}
        place.more = {**aws, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
        with traffic(place.port) as answers:
            controller = place.start("rollout", "start", NAME, "--step", "10,50", "--rate", "300")
            wait_until(lambda: weights(place).get(CANARY, 0) > 0)
            controller.kill()
            controller.wait()
            code, out, err = place.run("rollback", NAME, "--store", "s3://bucket/store")
            assert (code, weights(place)) == (0, {STABLE: WHOLE}), out + err
            assert "the ledger does not hold it yet" in out
            assert events(place)[-1] == "step"
            assert place.run("rollout", "start", NAME)[0] == 1
        assert (events(place)[-1], champion(place), answers.failed) == ("rolled-back", 1, 0)


def test_without_a_front_there_is_nothing_to_steer() -> None:
    with placed() as place:
        place.register("champion")
        place.register("challenger")
        code, _, err = place.run("rollout", "start", NAME)
        assert (code, f"tidegate front {NAME}" in err) == (3, True), err
        code, _, err = place.run("rollback", NAME)
        assert (code, "no front of fraud was ever started here" in err) == (3, True), err


def test_a_monitor_tells_drift_of_what_a_front_serves() -> None:
    with placed() as place:
        place.register("champion")
        place.front()
        with traffic(place.port, BODY.replace(b"1.0", b"9.0")) as answers:
            wait_until(lambda: seen_by_monitor(place) >= 200)
        code, out, err = place.run("monitor", NAME, "--once", "--min-rows", "200", "--json")
        assert (code, json.loads(out)["drifted"], answers.failed) == (1, ["predictions"], 0), out + err
        assert place.run("data", "pin", f"drift:{NAME}")[1].startswith(f"drift:{NAME}:1#digest=sha256:")


def seen_by_monitor(place: Place) -> int:
    _, out, err = place.run("monitor", NAME, "--once", "--min-rows", "1", "--psi", "1000", "--json")
    assert out, err
    return int(json.loads(out).get("rows", 0))
