"""The leading process while it serves: it leads the workers, answers the admin port, follows an alias, drains."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tidegate.errors import ModelRefused, TidegateError, UsageError
from tidegate.registry.model import Version
from tidegate.serve import wire
from tidegate.serve.access import Access
from tidegate.serve.admin import Admin, Answer, inputs, scores
from tidegate.serve.connection import Limits, Server
from tidegate.serve.crew import Counted, Crew, Target
from tidegate.serve.find import find_version
from tidegate.serve.lines import Lines
from tidegate.serve.setup import Options, Setup
from tidegate.store.runs import iso

LONGEST_WAIT = 60.0  # seconds between two looks while there is trouble


@dataclass(frozen=True)
class Ready:
    """What is served, and where."""

    version: Version
    url: str
    admin: str
    pid: int


class Leader:
    """The leading process.

    Args:
        reference: what to serve.
        options: how.
        store: where the registry is.
        version: what ``reference`` names now.
        listeners: of the data port, one a worker.
        admin: of the admin port.
        rules: of both.
    """

    def __init__(
        self, reference: str, options: Options, store: Any, version: Version,
        listeners: list[socket.socket], admin: socket.socket, rules: tuple[Access, Access],
    ) -> None:  # fmt: skip
        self._reference, self._options, self._store, self._version = reference, options, store, version
        self._admin, self._rules = admin, rules
        self._lines = Lines()
        self._epoch, self._started = secrets.token_hex(8), time.time()
        self._url, self._admin_url = (_url(s, options) for s in (listeners[0], admin))
        self._crew = Crew(_setup(options, store, version, rules[0]), listeners, self._lines.write)
        self._stop, self._look = asyncio.Event(), asyncio.Event()
        self._refused: dict[str, Any] | None = None
        self._trouble: str | None = None
        self._away = False  # whether the registry could not be asked
        self._wait = options.poll
        self._refusals, self._served = 0, False
        self._checked = self._started

    async def run(self, on_ready: Callable[[Ready], None]) -> None:
        """Serve until told to stop."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._told)
        loop.add_signal_handler(signal.SIGHUP, self._look.set)
        admin = Server(Admin(self._rules[1], self._answers()), Limits(body=1 << 16, connections=64))
        await admin.listen(self._admin, self._options.tls.context() if self._options.tls else None)
        try:
            await self._until_stopped(on_ready)
        finally:
            if not await self._crew.drain(self._options.grace + self._options.drain + 15) and self._served:
                self._lines.write("drain-cut", seconds=self._options.drain)
            await admin.drain(0, 1)
            self._lines.close()

    async def _until_stopped(self, on_ready: Callable[[Ready], None]) -> None:
        stop = asyncio.ensure_future(self._stop.wait())
        start = asyncio.ensure_future(self._crew.start(Target(self._version.version, self._version.digest)))
        try:
            await asyncio.wait({stop, start}, return_when=asyncio.FIRST_COMPLETED)
            if not start.done():
                return
            await start
            self._served = True
            on_ready(Ready(self._version, self._url, self._admin_url, os.getpid()))
            follow = asyncio.ensure_future(self._follow())
            await stop
            follow.cancel()
            with suppress(asyncio.CancelledError):
                await follow
        finally:
            start.cancel()
            stop.cancel()

    def _told(self) -> None:
        """The first signal drains, the second ends at once."""
        if self._stop.is_set():
            self._crew.kill()
        self._stop.set()

    async def _follow(self) -> None:
        """Look now and then, or when told to, whether the alias names another version."""
        while True:
            wait = self._wait if self._options.follow else None
            told = True
            try:
                await asyncio.wait_for(self._look.wait(), wait)
            except TimeoutError:
                told = False
            self._look.clear()
            await self._catch_up(told)

    async def _catch_up(self, told: bool) -> None:
        """Serve what the reference names now; whatever is wrong with it, the last good version stays, and that is said."""
        loop = asyncio.get_running_loop()
        found: Version | None = None
        try:
            found = await loop.run_in_executor(None, find_version, self._store, self._reference)
            self._checked = time.time()
            if found.digest == self._version.digest and found.version == self._version.version:
                self._refused = None
            elif told or not self._refused or self._refused["version"] != found.version:
                await self._swap(found)  # one that was refused is tried again when told to
        except (ModelRefused, UsageError) as e:
            self._refuse(found, e)
        except Exception as e:  # the store, a worker, a bug: next time it may do
            self._note(e, away=found is None)
            return
        self._trouble, self._away, self._wait = None, False, self._options.poll

    async def _swap(self, found: Version) -> None:
        await self._crew.change(Target(found.version, found.digest))
        self._lines.write("swapped", before=self._version.version, version=found.version, digest=found.digest)
        self._version, self._refused = found, None

    def _note(self, error: Exception, *, away: bool) -> None:
        """Say trouble once while it lasts, and look less and less often: each look may make all workers load."""
        if self._trouble != str(error):
            self._lines.write("trouble", error=wire.as_json(error), serving=self._version.version)
        self._trouble, self._away = str(error), away
        self._wait = max(self._options.poll, min(2 * self._wait, LONGEST_WAIT))

    def _refuse(self, found: Version | None, error: TidegateError) -> None:
        version = found.version if found else None
        if self._refused is None or self._refused["version"] != version:
            self._lines.write("refused", version=version, error=error.as_json(), serving=self._version.version)
            self._refusals += 1
        self._refused = {"version": version, "error": error.as_json(), "time": iso(time.time())}

    def _answers(self) -> dict[str, Callable[[], Answer]]:
        return {
            "live": lambda: (200, {"live": True}),
            "ready": lambda: (200 if self._ready else 503, {"ready": self._ready}),
            "status": lambda: (200, self._status()),
            "scores": lambda: self._counted(scores),
            "inputs": lambda: self._counted(inputs),
            "metrics": lambda: (200, self._metrics()),
            "drain": self._drain,
            "reload": self._reload,
        }

    def _drain(self) -> Answer:
        self._stop.set()
        return 202, {"draining": True}

    def _reload(self) -> Answer:
        self._look.set()
        return 202, {"looking": True}

    @property
    def _ready(self) -> bool:
        return self._crew.ready and not self._stop.is_set()

    def _status(self) -> dict[str, Any]:
        workers = [
            {"number": w.number, "pid": w.process.pid, "serving": w.serving} for w in self._crew.workers.values()
        ]
        return {
            "model": self._version.model,
            "version": self._version.version,
            "digest": self._version.digest,
            "reference": self._reference,
            "url": self._url,
            "pid": os.getpid(),
            "epoch": self._epoch,
            "started": iso(self._started),
            "ready": self._ready,
            "draining": self._stop.is_set(),
            "workers": workers,
            "restarts": self._crew.restarts,
            "follow": self._options.follow,
            "checked": iso(self._checked),
            "refused": self._refused,
            "trouble": self._trouble,
        }

    def _counted(self, make: Callable[[Counted], dict[str, Any]]) -> Answer:
        counted = self._crew.counted.get(self._version.digest)
        if counted is None:
            return 503, {"error": "nothing is served yet"}
        of = {"version": self._version.version, "digest": self._version.digest, "epoch": self._epoch}
        return 200, {**of, **make(counted)}

    def _metrics(self) -> bytes:
        from tidegate.serve.metrics import Collector, exposition

        version = {"version": str(self._version.version), "digest": self._version.digest}
        refused = str((self._refused or {}).get("version") or "")
        gauges = [
            ("tidegate_serving", "The version that is served.", 1.0, {"model": self._version.model, **version}),
            ("tidegate_ready", "Whether all workers serve.", float(self._ready), {}),
            ("tidegate_workers", "Workers that serve.", float(sum(w["serving"] for w in self._status()["workers"])), {}),
            ("tidegate_worker_restarts", "Workers that were started again.", float(self._crew.restarts), {}),
            ("tidegate_refused", "Whether the alias names a version that is not served.",
             float(self._refused is not None), {"version": refused}),
            ("tidegate_refusals", "Versions that were refused.", float(self._refusals), {}),
            ("tidegate_store_trouble", "Whether the registry cannot be asked.", float(self._away), {}),
        ]  # fmt: skip
        return exposition(Collector(self._version.model, list(self._crew.counted.values()), gauges))


def _setup(options: Options, store: Any, version: Version, rules: Access) -> Setup:
    return Setup(
        store=store.uri,
        name=version.model,
        hosts=sorted(rules.hosts) if rules.hosts is not None else None,
        token=rules.token.decode() if rules.token else None,
        tls=options.tls,
        limits=options.limits,
        logging=options.logging,
        keep=str(options.keep.absolute()) if options.keep else None,
        most_seconds=options.most_seconds,
        grace=options.grace,
        seconds=options.drain,
    )


def _url(sock: socket.socket, options: Options) -> str:
    host, port = sock.getsockname()[:2]
    return f"http{'s' if options.tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"
