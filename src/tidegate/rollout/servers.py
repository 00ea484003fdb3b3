"""A front's files and its servers' admin ports, as the fleet and the scores of a rollout."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import Damaged
from tidegate.rollout.counts import Score
from tidegate.rollout.front import fleet as files
from tidegate.rollout.front.fleet import Server, Wanted
from tidegate.rollout.state import Running, Target

EVERY_SECONDS, PATIENCE_SECONDS = 0.2, 0.5
MAX_BYTES = 1 << 20
TOKEN = "TIDEGATE_SERVE_TOKEN"


@dataclass(frozen=True)
class FrontFleet:
    """The fleet of the front in ``folder``; every arm gets as many processes as stable has, so that arms compare."""

    folder: Path
    model: str

    def want(self, arms: Mapping[str, Target], generation: int) -> None:
        """See ``Fleet``."""
        workers = max((w.workers for w in files.read_fleet(self.folder).arms.values()), default=1)
        wanted = {a: Wanted(f"{self.model}:{t.version}", t.digest, workers) for a, t in arms.items()}
        files.write_fleet(self.folder, files.Fleet(wanted, generation))

    def wanted(self) -> Mapping[str, Target]:
        """See ``Fleet``."""
        return {a: Target(_version(w), w.digest) for a, w in files.read_fleet(self.folder).arms.items()}

    def running(self) -> Mapping[str, Running]:
        """See ``Fleet``."""
        wanted = files.read_fleet(self.folder).arms
        found: dict[str, list[Server]] = {}
        for server in files.read_running(self.folder).servers:
            found.setdefault(server.arm, []).append(server)
        return {arm: _running(some, wanted.get(arm)) for arm, some in found.items()}


def _running(servers: list[Server], wanted: Wanted | None) -> Running:
    digests = frozenset(s.wanted.digest for s in servers)
    return Running(digests, sum(s.ready for s in servers), wanted.workers if wanted else 1)


def _version(wanted: Wanted) -> int:
    return int(wanted.reference.rpartition(":")[2])


class ServerScores:
    """What the servers of a front say of their predictions, asked again and again by threads of their own.

    A server that hangs delays nobody: what it said last is what is known.

    Args:
        folder: of the front.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[Score, ...]] = {}
        threading.Thread(target=self._work, daemon=True, name="scores").start()

    def latest(self) -> Mapping[str, tuple[Score, ...]]:
        """See ``Scores``."""
        return self._known

    def _work(self) -> None:
        with ThreadPoolExecutor(8, thread_name_prefix="scores") as pool:
            while True:
                servers: tuple[Server, ...] = ()
                with suppress(Damaged, OSError):
                    servers = files.read_running(self._folder).servers
                found: dict[str, tuple[Score, ...]] = {}
                for server, score in zip(servers, pool.map(ask, servers), strict=True):
                    if score:
                        found[server.arm] = (*found.get(server.arm, ()), score)
                self._known = found
                time.sleep(EVERY_SECONDS)


def ask(server: Server) -> Score | None:
    """Return what a server says of its predictions; None where it says nothing, or is of another version than it should."""
    connection = http.client.HTTPConnection("127.0.0.1", server.admin_port, timeout=PATIENCE_SECONDS)
    token = os.environ.get(TOKEN, "")
    try:
        connection.request("GET", "/v1/scores", headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        body: Any = json.loads(answer.read(MAX_BYTES)) if answer.status == 200 else {}
        return Score(str(body["epoch"]), body["counts"]) if body["digest"] == server.wanted.digest else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()
