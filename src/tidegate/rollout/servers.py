"""A front's files and its servers' admin ports, as the fleet and the scores of a rollout."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tidegate.errors import Damaged, ServerError, UsageError
from tidegate.project import SERVE_TOKEN, serve_token
from tidegate.rollout.counts import Score
from tidegate.rollout.front import fleet as files
from tidegate.rollout.front.fleet import Server, Wanted
from tidegate.rollout.front.weights import committed
from tidegate.rollout.state import Running, Target

EVERY_SECONDS, PATIENCE_SECONDS = 0.2, 0.5
MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class FrontFleet:
    """The fleet of the front in ``folder``; every arm gets as many processes as stable has, so that arms compare."""

    folder: Path
    model: str

    def want(self, arms: Mapping[str, Target], generation: int) -> None:
        """See ``Fleet``."""
        workers = max((w.workers for w in files.read_fleet(self.folder).arms.values()), default=1)
        wanted = {a: Wanted(f"{self.model}:{t.version}", t.digest, workers) for a, t in arms.items()}
        files.write_fleet(self.folder, files.Fleet(wanted, generation), committed(self.folder).generation)

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

    Whoever asks for the latest waits for no server; one that hangs says nothing, ``PATIENCE_SECONDS`` after it was asked.

    Args:
        folder: of the front.

    Raises:
        ConfigError: the token of the environment is none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._ask = folder, partial(ask, token=serve_token())
        self._known: dict[str, tuple[Score, ...]] = {}
        self._trouble = ""
        threading.Thread(target=self._work, daemon=True, name="scores").start()

    def latest(self) -> Mapping[str, tuple[Score, ...]]:
        """See ``Scores``; raises ServerError where this process could not ask."""
        if trouble := self._trouble:
            raise ServerError(trouble, allowed="A machine with threads and descriptors left.", code="scores-unasked")
        return self._known

    def _work(self) -> None:
        with ThreadPoolExecutor(8, thread_name_prefix="scores") as pool:
            while True:
                try:
                    self._known, self._trouble = self._asked(pool), ""
                except Exception as e:  # no thread is left, or no descriptor: said, and tried again
                    self._trouble = f"the servers cannot be asked: {e or type(e).__name__}"
                time.sleep(EVERY_SECONDS)

    def _asked(self, pool: ThreadPoolExecutor) -> dict[str, tuple[Score, ...]]:
        servers: tuple[Server, ...] = ()
        with suppress(Damaged, OSError):
            servers = files.read_running(self._folder).servers
        found: dict[str, tuple[Score, ...]] = {}
        for server, score in zip(servers, pool.map(self._ask, servers), strict=True):
            if score:
                found[server.arm] = (*found.get(server.arm, ()), score)
        return found


def ask(server: Server, token: str = "") -> Score | None:
    """Return what a server says of its predictions; None where it says nothing, or is of another version than it should."""
    try:
        body = get(f"http://127.0.0.1:{server.admin_port}", "/v1/scores", token, PATIENCE_SECONDS)
        return Score(str(body["epoch"]), body["counts"]) if body["digest"] == server.wanted.digest else None
    except (ServerError, KeyError, TypeError):
        return None


def get(url: str, path: str, token: str, seconds: float) -> Any:
    """Return what the admin port of a server says, from JSON; neither a proxy nor a redirect sees the token.

    Raises:
        UsageError: the address is none.
        ServerError: it cannot be reached, answers something else than 200, or says no JSON.
    """
    connection = _connection(url, seconds)
    try:
        prefix = urlsplit(url).path.rstrip("/")
        connection.request("GET", prefix + path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        body = answer.read(MAX_BYTES)
        if answer.status != 200:
            hint = f"{SERVE_TOKEN} is the token of its admin port." if answer.status in (401, 403) else ""
            raise ServerError(f"{url}{path} answers {answer.status}", allowed="The admin port of a server.", hint=hint)
        return json.loads(body)
    except (OSError, http.client.HTTPException) as e:
        said = "The admin port of a `tidegate serve`, which it says when it starts."
        raise ServerError(f"{url} cannot be read: {e or type(e).__name__}", allowed=said) from e
    except (ValueError, RecursionError) as e:
        raise ServerError(f"{url}{path} says no JSON", allowed="The admin port of a server.", code="server-odd") from e
    finally:
        connection.close()


def _connection(url: str, seconds: float) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise UsageError(f"{url!r} is no address of an admin port", allowed="http://HOST:PORT")
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=seconds)
    return http.client.HTTPConnection(host, port, timeout=seconds)
