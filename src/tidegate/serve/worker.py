"""One worker: a process with the model in memory that answers the data port, led by the process of ``tidegate serve``.

``python -m tidegate.serve.worker CONTROL LISTENER``: two descriptors. Over the first come orders, answered each:

=========================  ==================================================================================
``setup``                  what to serve and how; comes first
``load`` version, digest   bring it, check it, score once: ``loaded`` with its counts, or ``refused``
``forget``                 what was loaded is not wanted: others refused it
``use``                    serve what was loaded last: ``used``, or ``refused``; the first time, take connections
``drain``                  not ready, answer what is there, end: ``drained``
=========================  ==================================================================================

It ends by itself when the leading process is gone, after answering what it has.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from tidegate.errors import TidegateError, Trouble
from tidegate.serve import wire
from tidegate.serve.access import Access
from tidegate.serve.connection import Server
from tidegate.serve.counts import Counts
from tidegate.serve.keep import Keeper
from tidegate.serve.lines import Lines
from tidegate.serve.load import load_version
from tidegate.serve.profile import ruler
from tidegate.serve.scoring import Model
from tidegate.serve.service import Service
from tidegate.serve.setup import Setup
from tidegate.store.open import open_store


class Worker:
    """A worker.

    Args:
        control: the end to the leading process.
        listener: the bound socket of the data port.
        setup: what it was told.
    """

    def __init__(self, control: socket.socket, listener: socket.socket, setup: Setup) -> None:
        self._control, self._listener, self._setup = control, listener, setup
        self._lines = Lines()
        say = lambda text: self._lines.write("prediction-log", error=text)  # noqa: E731
        self._keeper = Keeper(Path(setup.keep), say) if setup.keep else None
        self._next: Model | None = None
        self._service: Service | None = None
        self._server: Server | None = None
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    async def run(self) -> None:
        """Obey until drained."""
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        loop.add_reader(self._control, self._orders)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the terminal's; the leading process sends drain
        loop.add_signal_handler(signal.SIGTERM, lambda: self._spawn(self._drain()))
        await self._ended.wait()
        loop.remove_reader(self._control)

    def _orders(self) -> None:
        while True:
            try:
                message = wire.receive(self._control)
            except BlockingIOError:
                return None
            if message is None:
                asyncio.get_running_loop().remove_reader(self._control)
                return self._spawn(self._drain())
            order = message[0]
            match order["do"]:
                case "load":
                    self._spawn(self._obey(self._load(order["version"], order["digest"])))
                case "use":
                    self._spawn(self._obey(self._use()))
                case "forget":
                    self._next = None
                case "drain":
                    self._spawn(self._drain())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _obey(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as e:  # whatever it is, the last good version goes on and the leading process is told
            code = e.exit_code if isinstance(e, TidegateError) else 3
            wire.send(self._control, {"is": "refused", "error": wire.as_json(e), "exit_code": code})

    async def _load(self, version: int, digest: str) -> None:
        self._next = model = await asyncio.get_running_loop().run_in_executor(None, self._loaded, version, digest)
        described = wire.to_fd(model.counts.ruler.as_json())
        message = {"is": "loaded", "version": version, "digest": model.loaded.version.digest}
        wire.send(self._control, message, [model.counts.fd, described])
        os.close(described)
        os.close(model.counts.fd)

    def _loaded(self, version: int, digest: str) -> Model:
        store = open_store(self._setup.store)
        loaded = load_version(store, f"{self._setup.name}:{version}")
        if loaded.version.digest != digest:
            raise Trouble(f"version {version} has the digest {loaded.version.digest}, not {digest}")
        loaded.scorer.warm()
        return Model(loaded, Counts(ruler(store, loaded, self._lines.write)))

    async def _use(self) -> None:
        model, self._next = self._next, None
        if model is None:
            raise Trouble("nothing was loaded that could be served")
        if self._service is None:
            await self._begin(model)
        else:
            self._service.use(model)
        wire.send(self._control, {"is": "used", "version": model.loaded.version.version})

    async def _begin(self, model: Model) -> None:
        setup = self._setup
        hosts = frozenset(setup.hosts) if setup.hosts is not None else None
        access = Access("data", hosts, setup.token.encode() if setup.token else None)
        self._service = Service(
            model, access, self._lines, setup.logging, self._keeper, most_seconds=setup.most_seconds
        )
        self._server = Server(self._service, setup.limits)
        await self._server.listen(self._listener, setup.tls.context() if setup.tls else None)
        self._service.fold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)  # a request leaves no cycles behind

    async def _drain(self) -> None:
        if self._draining:
            return
        self._draining = True
        clean = True
        if self._service and self._server:
            self._service.ready = False
            clean = await self._server.drain(self._setup.grace, self._setup.seconds)
            self._service.close()
        loop = asyncio.get_running_loop()
        if self._keeper:
            await loop.run_in_executor(None, self._keeper.close)
        wire.send(self._control, {"is": "drained", "clean": clean})
        await loop.run_in_executor(None, self._lines.close)
        self._ended.set()


def _allow_files() -> None:
    """As many open files as this user may have: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _run(control: socket.socket, listener: socket.socket, setup: Setup) -> None:
    await Worker(control, listener, setup).run()


def main(args: list[str]) -> None:
    """Be a worker until told to end."""
    control, listener = (socket.socket(fileno=int(fd)) for fd in args)
    first = wire.receive(control)
    if first is None:
        return
    _allow_files()
    setup = Setup.from_json(wire.from_fd(first[1][0]))
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(control, listener, setup))
    sys.stdout.flush()
    os._exit(0)  # the scoring thread may be in the middle of a batch that nobody waits for


if __name__ == "__main__":
    main(sys.argv[1:])
