"""What a supervisor is to do, from what is wanted and what runs. Pure.

1. An arm gets as many servers of the wanted version as it wants, and loses what is too many.
2. Requests go to the ready servers of the wanted version; but while not all of them are ready, and some of the version
   before are, to those: an arm never serves two versions at a time, and never none where there was one.
3. A server that gets no more requests and is not wanted leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate.rollout.front.fleet import Fleet, Server, Wanted
from tidegate.rollout.router import ARMS


@dataclass(frozen=True)
class Orders:
    """What is to be done.

    Attributes:
        start: the arms that lack a server, each as often as it lacks one.
        routes: the servers that get an arm's requests.
        leave: servers to send away.
    """

    start: tuple[tuple[str, Wanted], ...]
    routes: Mapping[str, tuple[Server, ...]]
    leave: tuple[Server, ...]


def orders(fleet: Fleet, servers: Sequence[Server]) -> Orders:
    """Say what is to be done for all arms."""
    start: list[tuple[str, Wanted]] = []
    routes: dict[str, tuple[Server, ...]] = {}
    leave: list[Server] = []
    for arm in ARMS:
        there = [s for s in servers if s.arm == arm]
        wanted = fleet.arms.get(arm)
        current = [s for s in there if wanted and _serves(s, wanted)]
        old = [s for s in there if s not in current]
        if wanted:
            # the ready ones first: they stay
            current = sorted(current, key=lambda s: not s.ready)[: wanted.workers]
            start += [(arm, wanted)] * (wanted.workers - len(current))
        ready, ready_before = [s for s in current if s.ready], [s for s in old if s.ready]
        waits = wanted and ready_before and len(ready) < wanted.workers
        routes[arm] = tuple(ready_before if waits else ready)
        leave += [s for s in there if s not in current and s not in routes[arm]]
    return Orders(tuple(start), routes, tuple(leave))


def _serves(server: Server, wanted: Wanted) -> bool:
    return (server.wanted.reference, server.wanted.digest) == (wanted.reference, wanted.digest)
