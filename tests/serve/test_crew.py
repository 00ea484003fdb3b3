"""Workers as the leading process knows them: what does not answer is ended, its late answer is nobody's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from tidegate.errors import ModelRefused, Refused, ServerError, Trouble, UsageError
from tidegate.serve import wire
from tidegate.serve.crew import Crew, Target, Worker, _error
from tidegate.serve.ruler import Ruler
from tidegate.serve.sheet import new_sheet


def idle() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


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
                    ruler = {"edges": [], "of": "label", "classes": [], "inputs": [], "profile": ""}
                    wire.send(end, {"is": "loaded"}, [new_sheet(Ruler.from_json(ruler).layout()), wire.to_fd(ruler)])
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
