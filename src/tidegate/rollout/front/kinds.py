"""The proxies that a front can have: HAProxy, and Envoy where requests are to be copied."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tidegate.rollout.front.configuration import Settings
from tidegate.rollout.front.envoy import EnvoyRouter, check_envoy, drain_envoy, start_envoy
from tidegate.rollout.front.fleet import read_running
from tidegate.rollout.front.haproxy import HaproxyRouter
from tidegate.rollout.front.process import Began, Process, tell
from tidegate.rollout.front.proxy import start_proxy
from tidegate.rollout.router import Router

HAPROXY, ENVOY = "haproxy", "envoy"


class ProxyRouter(Router, Protocol):
    """A router whose servers a supervisor says."""

    def serve(self, arm: str, ports: Sequence[int]) -> None:
        """Let an arm's requests go to exactly these ports of this machine; requests under way end where they are."""

    def busy(self, arm: str) -> Mapping[int, int]:
        """Requests under way, by the port of their server."""

    def restore(self, arms: Collection[str]) -> None:
        """Put the kept weights in force where the proxy began with less, once all their arms have servers."""


class Start(Protocol):
    """Starts a proxy: see ``start_proxy``."""

    def __call__(self, settings: Settings, arms: Collection[str], *, began: Began) -> Process:
        """Return the process once it answers; ``began`` is told it before that."""


@dataclass(frozen=True)
class Kind:
    """A proxy.

    Attributes:
        title: its name.
        check: refuses settings that it cannot have.
        start: starts it for the arms that have servers.
        router: steers the one of a folder.
        drain: lets it end once it has finished what it has begun.
    """

    title: str
    check: Callable[[Settings], None]
    start: Start
    router: Callable[[Path], ProxyRouter]
    drain: Callable[[Path, Process], None]


KINDS = {
    HAPROXY: Kind(
        "HAProxy", lambda _: None, start_proxy, HaproxyRouter, lambda _, process: tell(process, signal.SIGUSR1)
    ),
    ENVOY: Kind("Envoy", check_envoy, start_envoy, EnvoyRouter, drain_envoy),
}


def router(folder: Path) -> ProxyRouter:
    """Return what steers the front of a folder, whichever proxy it has.

    Raises:
        Damaged: see ``fleet.read_running``.
    """
    return KINDS[read_running(folder).kind].router(folder)
