"""The workers of one server, as the leading process knows them: started, given versions, counted, ended, started again.

A version is taken in two steps, so that all workers serve the same one or none changes: all load it, and only when all
have, all use it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tidegate.errors import ModelRefused, Refused, ServerError, TidegateError, Trouble, UsageError
from tidegate.serve import wire
from tidegate.serve.ruler import Ruler
from tidegate.serve.sheet import Numbers, Sheet, total

LOAD_SECONDS = 300.0
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
KEPT = 8  # versions whose counts are kept


@dataclass(frozen=True)
class Target:
    """A version to serve."""

    version: int
    digest: str


@dataclass
class Counted:
    """The counts of one version by all workers that are or were there."""

    target: Target
    ruler: Ruler
    sheets: list[Sheet] = field(default_factory=list)
    past: list[Numbers] = field(default_factory=list)

    def numbers(self) -> Numbers:
        """The sums."""
        return total([*self.past, *(s.read() for s in self.sheets)])

    def retire(self, sheet: Sheet) -> None:
        """Keep what a worker that is gone had counted, without its sheet."""
        self.past = [total([*self.past, sheet.read()])]
        self.sheets.remove(sheet)


class Worker:
    """One worker process.

    Args:
        number: which.
        process: the process.
        control: our end to it.
    """

    def __init__(self, number: int, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.number, self.process, self.control = number, process, control
        self.serving, self.drained, self.lost = False, False, False
        self.sheets: list[tuple[Counted, Sheet]] = []
        self.answer: asyncio.Future[tuple[dict[str, Any], list[int]]] | None = None

    async def order(self, seconds: float, **message: Any) -> tuple[dict[str, Any], list[int]]:
        """Send an order and wait for its answer; one that takes too long is killed, or its answer would be taken for another's.

        Raises:
            TidegateError: why it refuses.
            ServerError: it died, or took longer than ``seconds``.
        """
        self.answer = asyncio.get_running_loop().create_future()
        if not wire.send(self.control, message):
            self.answer.cancel()
            raise _died(self)
        try:
            said, fds = await asyncio.wait_for(self.answer, seconds)
        except TimeoutError as e:
            self.process.kill()
            raise ServerError(f"worker {self.number} took more than {seconds:g} s to {message['do']}") from e
        if said["is"] == "refused":
            raise _error(said)
        return said, fds


class Crew:
    """All workers.

    Args:
        setup: what each is told first.
        listeners: the bound socket of each.
        say: the log.
    """

    def __init__(self, setup: Any, listeners: list[socket.socket], say: Callable[..., None]) -> None:
        self.workers: dict[int, Worker] = {}
        self.target: Target | None = None
        self.counted: dict[str, Counted] = {}
        self.restarts = 0
        self.ending = False
        self._setup, self._listeners, self._say = setup, listeners, say
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lock = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """Whether all workers serve, and none is to end."""
        return not self.ending and sum(w.serving for w in self.workers.values()) == len(self._listeners)

    async def start(self, target: Target) -> None:
        """Start all workers with a version.

        Raises:
            TidegateError: why one of them cannot serve it.
        """
        self.target = target
        await asyncio.gather(*(self._hire(n) for n in range(len(self._listeners))))

    async def change(self, target: Target) -> None:
        """Serve another version, all workers or none.

        Raises:
            TidegateError: why one of them cannot; all serve what they served.
        """
        async with self._lock:
            workers = [w for w in self.workers.values() if w.serving]
            loaded = await asyncio.gather(*(self._load(w, target) for w in workers), return_exceptions=True)
            for outcome in loaded:
                if isinstance(outcome, BaseException):
                    for worker in workers:
                        wire.send(worker.control, {"do": "forget"})
                    raise outcome
            self.target = target  # whoever starts from here on starts with it
            used = await asyncio.gather(*(w.order(30, do="use") for w in workers), return_exceptions=True)
            for worker, answer in zip(workers, used, strict=True):
                if isinstance(answer, BaseException):
                    worker.process.kill()  # it does not obey; the next one will

    async def drain(self, seconds: float) -> bool:
        """End all workers; say whether each request was answered."""
        self.ending = True
        for listener in self._listeners:  # when its worker closes it too, the kernel refuses what still comes
            listener.close()
        for worker in self.workers.values():
            wire.send(worker.control, {"do": "drain"})
        end = time.monotonic() + seconds
        while any(w.process.poll() is None for w in self.workers.values()) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        clean = all(w.drained for w in self.workers.values())
        self.kill()
        return clean

    def kill(self) -> None:
        """End all workers now."""
        self.ending = True
        for worker in self.workers.values():
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()

    async def _hire(self, number: int) -> None:
        """Start a worker and let it serve."""
        assert self.target is not None
        try:
            worker = self.workers[number] = self._begin(number)
        except OSError as e:  # no memory, process or descriptor left
            raise ServerError(f"cannot start worker {number}: {e.strerror or e}", code="worker-start") from e
        asyncio.get_running_loop().add_reader(worker.control, self._heard, worker)
        try:
            await self._load(worker, self.target)
            await worker.order(30, do="use")
            if worker.lost:  # its answer and its end were heard at once
                raise _died(worker)
        except BaseException:
            worker.process.kill()
            raise
        worker.serving = True

    def _begin(self, number: int) -> Worker:
        ours, theirs = wire.pair()
        ours.setblocking(False)
        try:
            process = self._run(theirs, self._listeners[number])
            fd = wire.to_fd(self._setup.as_json())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        wire.send(ours, {"do": "setup"}, [fd])
        os.close(fd)
        return Worker(number, process, ours)

    def _run(self, control: socket.socket, listener: socket.socket) -> subprocess.Popen[bytes]:
        module = ["-P", "-m", "tidegate.serve.worker"]  # -P: nothing of the working directory is imported
        return subprocess.Popen(
            [sys.executable, *module, str(control.fileno()), str(listener.fileno())],
            pass_fds=(control.fileno(), listener.fileno()),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the leading process
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    async def _load(self, worker: Worker, target: Target) -> None:
        _, fds = await worker.order(LOAD_SECONDS, do="load", version=target.version, digest=target.digest)
        ruler = Ruler.from_json(wire.from_fd(fds[1]))
        known, sheet = self.counted.pop(target.digest, None), Sheet(fds[0], ruler.layout())
        if known is None or (known.target, known.ruler) != (target, ruler):
            known = Counted(target, ruler)
        self.counted[target.digest] = known
        for old in list(self.counted)[:-KEPT]:
            del self.counted[old]
        known.sheets.append(sheet)
        worker.sheets.append((known, sheet))

    def _heard(self, worker: Worker) -> None:
        while True:
            try:
                message = wire.receive(worker.control)
            except BlockingIOError:
                return None
            if message is None:
                return self._lost(worker)
            if message[0]["is"] == "drained":
                worker.drained = message[0]["clean"]
                worker.serving = False
            elif worker.answer and not worker.answer.done():
                worker.answer.set_result(message)

    def _lost(self, worker: Worker) -> None:
        asyncio.get_running_loop().remove_reader(worker.control)
        wire.close(worker.control)
        for counted, sheet in worker.sheets:
            counted.retire(sheet)
        served, worker.serving, worker.lost = worker.serving, False, True
        if worker.answer and not worker.answer.done():
            worker.answer.set_exception(_died(worker))
        if not self.ending and (served or worker.drained):
            task = asyncio.get_running_loop().create_task(self._replace(worker))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _replace(self, worker: Worker) -> None:
        while (code := worker.process.poll()) is None:
            await asyncio.sleep(0.02)
        self._say("worker-died", worker=worker.number, pid=worker.process.pid, code=code)
        wait = FIRST_WAIT
        while not self.ending:
            self.restarts += 1
            try:
                async with self._lock:
                    await self._hire(worker.number)
                return
            except Exception as e:  # whatever it is, there is no server without workers
                self._say("worker-refused", worker=worker.number, error=wire.as_json(e))
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)


def _died(worker: Worker) -> ServerError:
    return ServerError(
        f"worker {worker.number} (pid {worker.process.pid}) ended before it answered",
        hint="What it wrote last stands above.",
        code="worker-died",
    )


def _error(said: dict[str, Any]) -> TidegateError:
    """The error that a worker had, as ours."""
    body = said["error"]
    kind = {1: Refused, 2: UsageError}.get(said["exit_code"], Trouble)
    if str(body["code"]).startswith("model-"):
        kind = ModelRefused
    return kind(body["message"], allowed=body.get("allowed", ""), hint=body.get("hint", ""), code=body["code"])
