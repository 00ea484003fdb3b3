"""One store of each kind, for what all of them promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import moto_bucket
from tidegate.store.base import Store
from tidegate.store.local import LocalStore
from tidegate.store.memory import MemoryStore
from tidegate.store.object import ObjectStore

KINDS = ["local", "memory", "object"]


@pytest.fixture(scope="session")
def bucket() -> Iterator[Callable[[], ObjectStore]]:
    with moto_bucket() as make:
        yield make


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "object":
        made: ObjectStore = request.getfixturevalue("bucket")()
        return made
    return LocalStore(tmp_path / "store") if request.param == "local" else MemoryStore()
