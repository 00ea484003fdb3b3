"""A simulated world for each test, ended with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.trigger.simulated import World


@pytest.fixture
def world() -> Iterator[Callable[[int], World]]:
    made: list[World] = []

    def make(seed: int) -> World:
        made.append(World(seed))
        return made[-1]

    yield make
    for each in made:
        each.end()
