"""When what is scored: one call for the requests of a tick, a thread for what is long, nobody fails for another."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import numpy as np
import pytest

from tests.serve import asked
from tests.serve.made import registered
from tests.serve.test_protocol import ROW, TENSORS
from tidegate.serve.http import read_head
from tidegate.serve.load import Loaded, load_version
from tidegate.serve.scoring import TICK
from tidegate.serve.service import Service
from tidegate.store.memory import MemoryStore


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    store = MemoryStore()
    registered(store, tmp_path_factory.mktemp("scoring"))
    return load_version(store, "m@champion")


class Spy:
    """A scorer that is watched; it fails on rows whose ``x`` is 13, and waits for ``gate`` where it has one."""

    def __init__(self, scorer: Any, gate: threading.Event | None = None) -> None:
        self.signature, self._scorer, self._gate = scorer.signature, scorer, gate
        self.calls: list[tuple[int, bool]] = []

    def run(self, columns: Any) -> Any:
        beside = threading.current_thread() is not threading.main_thread()
        self.calls.append((len(columns["x"]), beside))
        if self._gate and beside:
            self._gate.wait(20)
        if 13.0 in columns["x"].tolist():
            raise ValueError("unlucky")
        return self._scorer.run(columns)


def spied(loaded: Loaded, gate: threading.Event | None = None, **options: Any) -> tuple[Service, Spy]:
    spy = Spy(loaded.scorer, gate)
    return asked.service(Loaded(loaded.version, spy), **options), spy  # type: ignore[arg-type]


def rows(n: int, x: float = 19.0) -> tuple[bytes, bytes]:
    return asked.request("POST", "/predict", json.dumps([{**ROW, "x": x}] * n).encode())


def ask(app: Service, requests: list[tuple[bytes, bytes]]) -> list[asked.Answer]:
    return asyncio.run(asked.ask_all(app, requests))


def test_the_requests_of_a_tick_are_one_call_and_each_gets_its_own_answer(loaded: Loaded) -> None:
    app, spy = spied(loaded)
    infer = asked.request("POST", "/v2/models/m/infer", json.dumps({"inputs": TENSORS, "id": "i"}).encode())
    said = ask(app, [rows(1, 0.0), infer, rows(3), rows(1)])
    assert spy.calls == [(7, False)]
    own = loaded.scorer.predict(
        {"x": np.array([0.0, 19.0], np.float32), "n": np.array([1, 1]), "kind": np.array(["a", "a"])}
    )
    for answer, label in ((said[0], own["label"][0]), (said[2], own["label"][1]), (said[3], own["label"][1])):
        assert {a["label"] for a in answer.json} == {label}
    assert (len(said[2].json), said[1].json["id"], said[1].json["outputs"][0]["data"]) == (3, "i", ["yes", "no"])


def test_a_tick_is_bounded(loaded: Loaded) -> None:
    app, spy = spied(loaded)
    assert {a.status for a in ask(app, [rows(1)] * (2 * TICK + 5))} == {200}
    assert [n for n, _ in spy.calls] == [TICK, TICK, 5]


def test_a_request_that_the_model_cannot_score_fails_alone(loaded: Loaded) -> None:
    app, _ = spied(loaded)
    said = ask(app, [rows(1), rows(1, 13.0), rows(2)])
    assert [a.status for a in said] == [200, 500, 200]
    assert said[1].json == {"error": "ValueError while scoring"}
    assert said[1].fields["x-request-id"]


def test_so_does_one_of_many_rows_in_the_thread(loaded: Loaded) -> None:
    app, spy = spied(loaded)
    said = ask(app, [rows(TICK + 1), rows(TICK + 2), rows(TICK + 3, 13.0), rows(TICK + 4)])
    assert [a.status for a in said] == [200, 200, 500, 200]
    assert all(beside for _, beside in spy.calls)


def test_an_answer_that_cannot_be_written_leaves_the_others_theirs(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, _ = spied(loaded)
    write = app.model.codec.write

    def broken(asked_: Any, label: list[Any], shares: Any) -> Any:
        if label[0] == "no":
            raise RuntimeError("a bug")
        return write(asked_, label, shares)

    monkeypatch.setattr(app.model.codec, "write", broken)
    assert [a.status for a in ask(app, [rows(1), rows(1, 0.0), rows(1)])] == [200, 500, 200]


def test_what_is_long_is_scored_beside_and_small_requests_are_answered_meanwhile(loaded: Loaded) -> None:
    gate = threading.Event()
    app, spy = spied(loaded, gate)

    async def go() -> None:
        long, small = asked.Client(), asked.Client()
        for client, (raw, body) in ((long, rows(TICK + 1)), (small, rows(1))):
            app.ask(client, app.plan(read_head(raw)), body)  # type: ignore[arg-type]
        while not small.answered:
            await asyncio.sleep(0.001)
        assert not long.answered
        gate.set()
        while not long.answered:
            await asyncio.sleep(0.001)
        assert len(long.answered[0].json) == TICK + 1

    asyncio.run(go())
    app.scoring.close()
    assert sorted(spy.calls) == [(1, False), (TICK + 1, True)]


def test_who_would_wait_too_long_is_told_when_to_come_back(loaded: Loaded) -> None:
    gate = threading.Event()
    app, _ = spied(loaded, gate, most_seconds=0.5)
    app.scoring._row_seconds = 0.1  # as if a row took that long

    async def go() -> list[asked.Answer]:
        clients = [asked.Client() for _ in range(3)]
        for client in clients:
            raw, body = rows(TICK + 1)
            app.ask(client, app.plan(read_head(raw)), body)  # type: ignore[arg-type]
        refused = [c.answered[0] for c in clients[1:]]
        gate.set()
        while not clients[0].answered:
            await asyncio.sleep(0.001)
        return [clients[0].answered[0], *refused]

    first, *refused = asyncio.run(go())
    app.scoring.close()
    assert first.status == 200
    for answer in refused:
        assert (answer.status, answer.fields["retry-after"]) == (503, "7")


def test_what_is_in_the_thread_during_a_swap_is_counted(loaded: Loaded) -> None:
    gate = threading.Event()
    app, _ = spied(loaded, gate)
    before = app.model

    async def go() -> None:
        client = asked.Client()
        raw, body = rows(TICK + 1)
        app.ask(client, app.plan(read_head(raw)), body)  # type: ignore[arg-type]
        app.use(asked.model(loaded))
        gate.set()
        while not client.answered:
            await asyncio.sleep(0.001)

    asyncio.run(go())
    app.scoring.close()
    assert sum(before.counts.read()["labels"]) == TICK + 1


def test_requests_around_a_swap_are_answered_by_the_version_they_came_to(loaded: Loaded) -> None:
    app, _ = spied(loaded)
    other = asked.model(loaded)
    other.version = "2"
    clients = [asked.Client() for _ in range(4)]

    async def go() -> None:
        for i, client in enumerate(clients):
            if i == 2:
                app.use(other)
            raw, body = asked.request("POST", "/v2/models/m/infer", json.dumps({"inputs": TENSORS}).encode())
            app.ask(client, app.plan(read_head(raw)), body)  # type: ignore[arg-type]
        await asyncio.sleep(0.01)

    before = app.model
    asyncio.run(go())
    app.scoring.close()
    assert [c.answered[0].status for c in clients] == [200] * 4
    other.counts.fold()
    assert sum(before.counts.read()["labels"]) == 4
    assert sum(other.counts.read()["labels"]) == 4
