"""What a front is to run, and what it runs, as files in its folder.

``fleet.json`` is written by whoever steers (a rollout's controller), ``running.json`` by the supervisor; each reads the
other's. A server that ``running.json`` calls ready gets its arm's requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tidegate.errors import Conflict, Damaged, ServerError
from tidegate.project import state_home
from tidegate.registry.ledger import check_name
from tidegate.rollout.front import files
from tidegate.rollout.front.process import Process
from tidegate.rollout.router import ARMS

FLEET, RUNNING, LOCK = "fleet.json", "running.json", "fleet.lock"


@dataclass(frozen=True)
class Wanted:
    """The version that an arm is to serve.

    Attributes:
        reference: ``NAME:VERSION``.
        digest: of the model.
        workers: how many processes.
    """

    reference: str
    digest: str
    workers: int = 1


@dataclass(frozen=True)
class Fleet:
    """What each arm is to serve, and the generation of who says so; an arm that is not named has no servers."""

    arms: Mapping[str, Wanted] = field(default_factory=dict)
    generation: int = 0


@dataclass(frozen=True)
class Server:
    """A process that serves a version for an arm.

    Attributes:
        arm: whose requests it gets.
        wanted: what it serves.
        process: by pid and start.
        port: where it answers requests, on 127.0.0.1.
        admin_port: where it says what it did.
        ready: whether it has said that it is ready.
    """

    arm: str
    wanted: Wanted
    process: Process
    port: int
    admin_port: int
    ready: bool = False


@dataclass(frozen=True)
class Running:
    """What a front runs.

    Attributes:
        port: where clients ask; 0 before the proxy was started.
        host: the address there.
        proxy: HAProxy, or Envoy.
        supervisor: who looks after it.
        servers: those that are wanted.
        leaving: those that are not any more, and finish what they have begun.
        kind: of the proxy, one of ``kinds.KINDS``.
    """

    port: int = 0
    host: str = "127.0.0.1"
    proxy: Process | None = None
    supervisor: Process | None = None
    servers: tuple[Server, ...] = ()
    leaving: tuple[Server, ...] = ()
    kind: str = "haproxy"

    def ready(self, arm: str) -> list[Server]:
        """The servers of an arm that get its requests."""
        return [s for s in self.servers if s.arm == arm and s.ready]


def new_front_folder(name: str) -> Path:
    """Return the folder of a model's front, made for its owner only.

    Raises:
        UsageError: that is no model's name.
    """
    folder = _folder(name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def front_folder(name: str) -> Path:
    """Return the folder of a front that was started on this machine; nothing is made.

    Raises:
        UsageError: that is no model's name.
        ServerError: none was (code ``front-none``).
    """
    folder = _folder(name)
    if not _was_started(folder):
        there = ", ".join(sorted(f.name for f in folder.parent.glob("*") if _was_started(f))) or "none"
        raise ServerError(
            f"no front of {name} was ever started here",
            allowed=f"There are: {there}.",
            hint=f"tidegate front {name}",
            code="front-none",
        )
    return folder


def _folder(name: str) -> Path:
    return state_home() / "front" / check_name(name)


def _was_started(folder: Path) -> bool:
    return any((folder / file).exists() for file in (FLEET, RUNNING))


def read_fleet(folder: Path) -> Fleet:
    """Return what is wanted; nothing where nobody has said so.

    Raises:
        Damaged: the file is no fleet.
    """
    found = files.read(folder / FLEET)
    if found is None:
        return Fleet()
    try:
        return Fleet({arm: Wanted(**found["arms"][arm]) for arm in ARMS if arm in found["arms"]}, found["generation"])
    except (KeyError, TypeError) as e:
        raise Damaged(f"{folder / FLEET} is no fleet: {e}", code="front-file") from e


def write_fleet(folder: Path, fleet: Fleet, least: int = 0) -> None:
    """Say what is wanted from now on.

    Args:
        folder: of the front.
        fleet: what is wanted.
        least: the generation that somebody has to have who says so.

    Raises:
        Conflict: somebody of a higher generation is in charge (code ``rollout-fenced``).
    """
    with files.locked(folder / LOCK):
        there = max(read_fleet(folder).generation, least)
        if fleet.generation < there:
            raise Conflict(
                f"the front is of the generation {there}, and you are {fleet.generation}",
                allowed="Somebody newer is in charge of this rollout.",
                hint="tidegate rollout status",
                code="rollout-fenced",
            )
        arms = {arm: asdict(wanted) for arm, wanted in fleet.arms.items()}
        files.write(folder / FLEET, {"generation": fleet.generation, "arms": arms})


def read_running(folder: Path) -> Running:
    """Return what runs, as the supervisor last wrote it.

    Raises:
        Damaged: the file is not what a supervisor writes.
    """
    found = files.read(folder / RUNNING)
    if found is None:
        return Running()
    try:
        servers = tuple(_server(arm, s) for arm, some in found["arms"].items() for s in some)
        leaving = tuple(_server(s["arm"], s) for s in found["leaving"])
        proxy, supervisor = _process(found["proxy"]), _process(found["supervisor"])
        return Running(found["port"], found["host"], proxy, supervisor, servers, leaving, found.get("kind", "haproxy"))
    except (KeyError, TypeError, AttributeError) as e:
        raise Damaged(f"{folder / RUNNING} is not what a supervisor writes: {e}", code="front-file") from e


def write_running(folder: Path, running: Running) -> None:
    """Say what runs."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for server in running.servers:
        arms.setdefault(server.arm, []).append(_as_json(server))
    content = {
        "port": running.port,
        "host": running.host,
        "kind": running.kind,
        "proxy": asdict(running.proxy) if running.proxy else None,
        "supervisor": asdict(running.supervisor) if running.supervisor else None,
        "arms": arms,
        "leaving": [{"arm": s.arm, **_as_json(s)} for s in running.leaving],
    }
    files.write(folder / RUNNING, content)


def _as_json(server: Server) -> dict[str, Any]:
    return {
        **asdict(server.process),
        "port": server.port,
        "admin_port": server.admin_port,
        "reference": server.wanted.reference,
        "version": int(server.wanted.reference.rpartition(":")[2]),
        "digest": server.wanted.digest,
        "ready": server.ready,
    }


def _server(arm: str, found: Mapping[str, Any]) -> Server:
    wanted = Wanted(found["reference"], found["digest"])
    process = Process(found["pid"], found["started"])
    return Server(arm, wanted, process, found["port"], found["admin_port"], found["ready"])


def _process(found: Mapping[str, Any] | None) -> Process | None:
    return Process(found["pid"], found["started"]) if found else None
