"""What a supervisor is to do: pure."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tidegate.rollout.front.fleet import Fleet, Server, Wanted
from tidegate.rollout.front.orders import orders
from tidegate.rollout.front.process import Process
from tidegate.rollout.router import ARMS, CANARY, STABLE

OLD, NEW = Wanted("fraud:1", "sha256:a"), Wanted("fraud:2", "sha256:b")


def server(number: int, wanted: Wanted = OLD, *, arm: str = STABLE, ready: bool = True) -> Server:
    return Server(arm, wanted, Process(number, 1), 20_000 + number, 30_000 + number, ready)


def fleet(wanted: Wanted, workers: int = 1, **others: Wanted) -> Fleet:
    return Fleet({STABLE: replace(wanted, workers=workers), **others})


def test_what_is_wanted_and_not_there_is_started() -> None:
    found = orders(fleet(OLD, 3, canary=NEW), [server(1)])
    assert [arm for arm, _ in found.start] == [STABLE, STABLE, CANARY]
    assert found.routes[STABLE] == (server(1),)


def test_a_server_gets_no_request_before_it_is_ready() -> None:
    assert orders(fleet(OLD), [server(1, ready=False)]).routes[STABLE] == ()


def test_the_old_version_serves_until_all_of_the_new_are_ready_and_then_leaves() -> None:
    old = [server(1), server(2)]
    begun = orders(fleet(NEW, 2), old)
    assert (begun.routes[STABLE], begun.leave, len(begun.start)) == (tuple(old), (), 2)
    half = orders(fleet(NEW, 2), [*old, server(3, NEW), server(4, NEW, ready=False)])
    assert (half.routes[STABLE], half.leave, half.start) == (tuple(old), (), ())
    new = (server(3, NEW), server(4, NEW))
    done = orders(fleet(NEW, 2), [*old, *new])
    assert (done.routes[STABLE], done.leave) == (new, tuple(old))


def test_an_arm_that_is_not_wanted_any_more_gets_nothing_and_leaves() -> None:
    canary = server(2, NEW, arm=CANARY)
    found = orders(fleet(OLD), [server(1), canary])
    assert (found.routes[CANARY], found.leave) == ((), (canary,))


def test_of_too_many_servers_the_ready_ones_stay() -> None:
    found = orders(fleet(OLD), [server(1, ready=False), server(2)])
    assert (found.routes[STABLE], found.leave) == ((server(2),), (server(1, ready=False),))


@given(st.lists(st.tuples(st.sampled_from(ARMS), st.booleans(), st.booleans()), max_size=8), st.integers(1, 3))
def test_an_arm_never_serves_two_versions_and_never_none_where_one_is_ready(
    rows: list[tuple[str, bool, bool]], workers: int
) -> None:
    servers = [server(n, NEW if new else OLD, arm=arm, ready=ready) for n, (arm, new, ready) in enumerate(rows)]
    found = orders(fleet(NEW, workers, canary=OLD), servers)
    for arm in (STABLE, CANARY):
        routed = found.routes[arm]
        assert len({s.wanted.reference for s in routed}) <= 1
        assert bool(routed) == any(s.ready for s in servers if s.arm == arm)
    assert not set(found.leave) & {s for routed in found.routes.values() for s in routed}
    current = [s for s in servers if s.arm == STABLE and s.wanted == NEW and s not in found.leave]
    assert len(current) + sum(arm == STABLE for arm, _ in found.start) == workers
