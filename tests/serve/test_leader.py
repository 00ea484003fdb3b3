"""The leading process and the alias it follows: trouble is said once, waited for with patience, and ends nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.made import registered, table_model
from tidegate.errors import ModelRefused, StoreError, TidegateError
from tidegate.registry.model import Registry
from tidegate.serve import leader as module
from tidegate.serve.access import ADMIN, DATA, Access
from tidegate.serve.crew import Target
from tidegate.serve.find import find_version
from tidegate.serve.leader import LONGEST_WAIT, Leader
from tidegate.serve.setup import Options
from tidegate.store.local import LocalStore


class Troubled:
    """A leader of version 1, whose alias names version 2; what its crew and its registry do is said by the test."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = LocalStore(root / "s")
        registered(store, root)
        first = find_version(store, "m")
        registered(store, root / "v", table_model(root / "v" / "model", "2"), alias="challenger")
        Registry(store).promote("m", 2, "champion", actor="test")
        self.sockets = [socket.socket() for _ in range(2)]
        for sock in self.sockets:
            sock.bind(("127.0.0.1", 0))
        rules = Access(DATA), Access(ADMIN)
        options = Options(follow=True, poll=2.0)
        self.leader = Leader("m", options, store, first, self.sockets[:1], self.sockets[1], rules)
        self.said: list[str] = []
        self.leader._lines.write = lambda event, **_: self.said.append(event)  # type: ignore[method-assign]
        self.worker: Exception | None = None
        self.registry: Exception | None = None
        self.leader._crew.change = self._change  # type: ignore[method-assign]
        monkeypatch.setattr(module, "find_version", self._find)

    async def _change(self, target: Target) -> None:
        if self.worker:
            raise self.worker

    def _find(self, *args: Any) -> Any:
        if self.registry:
            raise self.registry
        return find_version(*args)

    def look(self) -> dict[str, Any]:
        asyncio.run(self.leader._catch_up(told=False))
        return self.leader._status()

    def away(self) -> bool:
        return b"tidegate_store_trouble 1.0" in self.leader._metrics()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Troubled]:
    troubled = Troubled(tmp_path, monkeypatch)
    yield troubled
    troubled.leader._lines.close()
    for sock in troubled.sockets:
        sock.close()


def test_trouble_of_workers_is_said_once_and_they_load_less_and_less_often(made: Troubled) -> None:
    made.worker = StoreError("503")
    waits = []
    for _ in range(7):
        assert made.look()["trouble"] == "503"
        waits.append(made.leader._wait)
    assert made.said == ["trouble"]
    assert waits == [4, 8, 16, 32, 60, 60, 60]
    assert waits[-1] == LONGEST_WAIT
    assert not made.away()  # the registry answers
    made.worker = None
    assert (made.look()["version"], made.look()["trouble"], made.leader._wait) == (2, None, 2)
    assert made.said == ["trouble", "swapped"]


def test_a_registry_that_is_away_is_told_from_a_version_that_is_refused(made: Troubled) -> None:
    made.registry = StoreError("no route")
    assert made.look()["trouble"] == "no route"
    assert made.away()
    made.registry, made.worker = None, ModelRefused("no model")
    said = made.look()
    assert (said["trouble"], said["refused"]["version"], made.away()) == (None, 2, False)
    assert (made.look()["version"], made.said) == (1, ["trouble", "refused"])


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), RuntimeError("a bug"), IndexError(1)])
def test_whatever_happens_while_it_looks_it_looks_again(made: Troubled, error: Exception) -> None:
    assert not isinstance(error, TidegateError)
    made.registry = error
    made.look()
    made.registry, made.worker = None, error
    made.look()
    made.worker = None
    assert made.look()["version"] == 2
