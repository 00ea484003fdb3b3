"""How to serve, and what a worker is told of it first. Nothing heavy is imported: the leading process writes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tidegate.serve.connection import Limits
from tidegate.serve.tls import Tls


@dataclass(frozen=True)
class Logging:
    """What goes into the log.

    Attributes:
        share: of requests that are neither slow nor wrong.
        slow: seconds from which a request is slow.
        kept: the share of requests whose rows are kept.
    """

    share: float = 0.01
    slow: float = 0.5
    kept: float = 0.01


@dataclass(frozen=True)
class Setup:
    """What a worker is told first.

    Attributes:
        store: where the registry is.
        name: the model's.
        hosts: that Host may say; None for any.
        token: of callers, or None.
        tls: of the data port, or None.
        limits: of the data port.
        logging: of requests.
        keep: the folder of the prediction log, or None.
        most_seconds: that a request may wait.
        grace: seconds between being not ready and taking no more connections.
        seconds: the most that a drain takes after that.
    """

    store: str
    name: str
    hosts: list[str] | None
    token: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    limits: Limits = field(default_factory=Limits)
    logging: Logging = field(default_factory=Logging)
    keep: str | None = None
    most_seconds: float = 1.0
    grace: float = 0.5
    seconds: float = 30.0

    def as_json(self) -> dict[str, Any]:
        """To send it."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Setup:
        """The inverse of ``as_json``."""
        tls = Tls(**body["tls"]) if body["tls"] else None
        return cls(**{**body, "tls": tls, "limits": Limits(**body["limits"]), "logging": Logging(**body["logging"])})


@dataclass(frozen=True)
class Options:
    """How to serve.

    Attributes:
        host: the address of the data port.
        port: 0 picks a free one.
        admin_host: the address of the admin port.
        admin_port: 0 picks a free one.
        workers: processes that score.
        token: the bearer token of callers and operators.
        tls: of both ports.
        open: whether everybody who reaches the data port may ask it.
        names: more names that Host may say to the data port on loopback; ``*`` for any.
        follow: whether to serve what the alias names, whenever it moves.
        poll: seconds between two looks at it.
        limits: of the data port.
        logging: of requests.
        keep: the folder of the prediction log.
        most_seconds: that a request may wait to be scored.
        grace: seconds between being not ready and taking no more connections.
        drain: the most seconds after that.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    admin_host: str = "127.0.0.1"
    admin_port: int = 0
    workers: int = 1
    token: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    open: bool = False
    names: tuple[str, ...] = ()
    follow: bool = False
    poll: float = 2.0
    limits: Limits = field(default_factory=Limits)
    logging: Logging = field(default_factory=Logging)
    keep: Path | None = None
    most_seconds: float = 1.0
    grace: float = 0.5
    drain: float = 30.0
