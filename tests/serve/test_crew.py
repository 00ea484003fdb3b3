"""Workers as the leading process knows them: what does not answer is ended, its late answer is nobody's."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import Any

import pytest

from tidegate.errors import ModelRefused, Refused, ServerError, Trouble, UsageError
from tidegate.serve import crew as crew_module
from tidegate.serve import wire
from tidegate.serve.crew import Crew, Target, Worker, _error
from tidegate.serve.ruler import Ruler
from tidegate.serve.setup import Setup
from tidegate.serve.sheet import new_sheet

RULER = {"edges": [], "of": "label", "classes": [], "inputs": [], "profile": ""}
REFUSED = {"is": "refused", "error": {"code": "tls-invalid", "message": "no"}, "exit_code": 2}


def idle() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def loaded(end: Any) -> None:
    wire.send(end, {"is": "loaded"}, [new_sheet(Ruler.from_json(RULER).layout()), wire.to_fd(RULER)])


class Played:
    """A crew of one, whose workers are played: each ``use`` is answered by the next of ``plays``."""

    def __init__(self, *plays: Any) -> None:
        self.said: list[tuple[str, Any]] = []
        self.listener = socket.socket()
        self.crew = Crew(Setup("store", "m", None), [self.listener], lambda e, **more: self.said.append((e, more)))
        self.crew._run = self._run  # type: ignore[method-assign]
        self._plays, self._ends = list(plays), list[Any]()
        self._processes: list[subprocess.Popen[bytes]] = []

    def _run(self, control: Any, _: Any) -> Any:
        play = self._plays.pop(0)
        if isinstance(play, Exception):
            raise play
        end = control.dup()
        self._ends.append(end)
        asyncio.get_running_loop().add_reader(end, self._obey, end, play)
        self._processes.append(idle())
        return self._processes[-1]

    def _obey(self, end: Any, play: Any) -> None:
        message = wire.receive(end)
        match message and message[0]["do"]:
            case "load":
                loaded(end)
            case "use":
                wire.send(end, play if isinstance(play, dict) else {"is": "used"})
                if play == "dies":
                    self.die()

    def die(self) -> None:
        for end in self._ends:
            asyncio.get_running_loop().remove_reader(end)
            wire.close(end)
        self._ends = []
        for process in self._processes:
            process.kill()
            process.wait()

    async def close(self) -> None:
        self.crew.ending = True
        self.die()
        while not all(w.lost for w in self.crew.workers.values()):
            await asyncio.sleep(0.001)
        self.listener.close()


async def served(crew: Crew) -> None:
    while not crew.ready:
        await asyncio.sleep(0.001)


def test_a_worker_is_replaced_however_often_none_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "LONGEST_WAIT", 0.001)

    async def go() -> None:
        played = Played("stays", BlockingIOError(11, "no"), OSError(24, "no"), RuntimeError("a bug"), "dies", "stays")
        await played.crew.start(Target(1, "sha256:a"))
        played.die()
        while played.crew.ready:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(served(played.crew), 60)
        assert [s[0] for s in played.said] == ["worker-died", *["worker-refused"] * 4]
        codes = [more["error"]["code"] for event, more in played.said if event == "worker-refused"]
        assert codes == ["worker-start", "worker-start", "internal", "worker-died"]
        await played.close()

    asyncio.run(go())


def test_a_server_whose_worker_cannot_be_started_says_so() -> None:
    async def go() -> None:
        played = Played(OSError(12, "Cannot allocate memory"))
        with pytest.raises(ServerError, match="Cannot allocate memory"):
            await played.crew.start(Target(1, "sha256:a"))
        await played.close()

    asyncio.run(go())


def test_a_worker_that_dies_while_it_says_that_it_serves_is_not_counted() -> None:
    async def go() -> None:
        played = Played("dies")
        with pytest.raises(ServerError) as e:
            await played.crew.start(Target(1, "sha256:a"))
        assert (e.value.code, played.crew.ready) == ("worker-died", False)
        await played.close()

    asyncio.run(go())


def test_a_worker_that_cannot_begin_to_serve_is_heard_at_once() -> None:
    async def go() -> None:
        played = Played(REFUSED)
        with pytest.raises(UsageError) as e:
            await played.crew.start(Target(1, "sha256:a"))
        assert (e.value.code, played.crew.ready) == ("tls-invalid", False)
        await played.close()

    asyncio.run(go())


def test_a_worker_that_takes_too_long_is_ended() -> None:
    ours, theirs = wire.pair()
    worker = Worker(0, idle(), ours)
    with pytest.raises(ServerError, match="took more than"):
        asyncio.run(worker.order(0.01, do="load"))
    assert worker.process.wait(20) == -9
    wire.close(theirs)
    with pytest.raises(ServerError) as e:
        asyncio.run(worker.order(1, do="load"))
    assert e.value.code == "worker-died"
    wire.close(ours)


def test_when_one_worker_refuses_all_are_told_to_forget_and_the_target_stays() -> None:
    async def go() -> None:
        crew = Crew(None, [], lambda *_, **__: None)
        crew.target = Target(1, "sha256:a")
        ends, asked = [], []
        for n in range(2):
            ours, theirs = wire.pair()
            ours.setblocking(False)
            worker = crew.workers[n] = Worker(n, idle(), ours)
            worker.serving = True
            asyncio.get_running_loop().add_reader(ours, crew._heard, worker)
            ends += [ours, theirs]

            def play(end: Any = theirs, n: int = n) -> None:
                order = wire.receive(end)
                assert order
                asked.append((n, order[0]["do"]))
                if order[0]["do"] == "load" and n == 0:
                    loaded(end)
                elif order[0]["do"] == "load":
                    error = {"code": "model-invalid", "message": "no"}
                    wire.send(end, {"is": "refused", "error": error, "exit_code": 1})

            asyncio.get_running_loop().add_reader(theirs, play)
        with pytest.raises(ModelRefused, match="no"):
            await crew.change(Target(2, "sha256:b"))
        while len(asked) < 4:
            await asyncio.sleep(0.001)
        assert sorted(asked) == [(0, "forget"), (0, "load"), (1, "forget"), (1, "load")]
        assert crew.target == Target(1, "sha256:a")
        for end in ends:
            asyncio.get_running_loop().remove_reader(end)
            wire.close(end)
        crew.kill()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("code", "exit_code", "kind"),
    [("model-invalid", 1, ModelRefused), ("other", 1, Refused), ("input", 2, UsageError), ("internal", 3, Trouble)],
)
def test_an_error_of_a_worker_is_the_leading_processs(code: str, exit_code: int, kind: type[Exception]) -> None:
    made = _error({"error": {"code": code, "message": "m", "hint": "h"}, "exit_code": exit_code})
    assert (type(made), made.code, made.found, made.hint) == (kind, code, "m", "h")
