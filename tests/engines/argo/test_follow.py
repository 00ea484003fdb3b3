"""What pods write is passed on line by line, also where the way to them breaks off."""

from collections.abc import Iterator
from typing import Any

import pytest

from tidegate.engines.argo import follow
from tidegate.engines.argo.follow import Follower
from tidegate.engines.argo.memory import MemoryCluster
from tidegate.errors import ClusterError

ALL = [b"one\ntw", b"o\nthree\n", b"time=2026 level=info msg=x argo=true\nfour"]


class Breaking(MemoryCluster):
    """A cluster whose logs break off after more and more pieces."""

    asked = 0

    def log(self, *_: Any, **__: Any) -> Iterator[bytes]:
        self.asked += 1
        yield from ALL[: self.asked - 1]
        if self.asked <= len(ALL):
            raise ClusterError("it broke off")


def passed_on(cluster: MemoryCluster) -> list[str]:
    said: list[str] = []
    follower = Follower(cluster, "n", lambda event: said.append(event.line))
    follower.follow("step", "p")
    follower.follow("step", "p")
    follower._threads["p"].join(10)
    return said


def test_each_line_is_passed_on_once_when_the_log_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PAUSES", (0, 0.001, 0.001, 0.001))
    assert passed_on(Breaking()) == ["one", "two", "three", "four"]
