"""Servers of one model side by side, one worker each: requests a second, p99, CPU a request.

    python scripts/bench/serving.py STORE [--seconds 5] [--rounds 5] [--connections 32] [--only NAME …] [--json FILE]

STORE has the model ``fraud`` (``make demo`` leaves one in ``.tidegate/demo``). Each contender answers the same body, one row as
Open Inference Protocol JSON, and each scores the requests of one tick of its event loop as one batch, by the same code:

* ``tidegate``: ``tidegate serve`` as it is, with metrics and the log of a sample
* ``bare``: the same connections with a handler that checks, counts and logs nothing
* ``granian``, ``granian-embed``, ``uvicorn``: that handler there; uvicorn with httptools, both with uvloop
* ``mlflow``, ``bentoml``, ``mlserver``: the same graph by the same onnxruntime in those servers, each in an environment of its
  own, without batching, in the form of request that is theirs

In turn, A B C A B C …; the load is ``wrk``'s, with one thread. CPU is that of the server's processes. Rates depend on what
else the machine does; CPU a request less so.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from environments import PINS, environment

from tidegate.registry.signature import DATATYPES

ROW = {
    "category": "electronics", "amount": 912.5, "distance_km": 640.0, "online": 1, "new_device": 1, "age_days": 220,
    "count_1h": 3, "count_24h": 4, "sum_24h": 1290.0, "since_last_h": 0.2, "amount_ratio": 9.5, "hour": 3, "weekday": 6,
}  # fmt: skip
PATH = "/v2/models/fraud/infer"
OURS = ("tidegate", "bare", "granian", "granian-embed", "uvicorn")
PEERS = ("mlflow", "bentoml", "mlserver")
CONTENDERS = (*OURS, *PEERS)
TICK = 64


@dataclass(frozen=True)
class Place:
    """Where a benchmark finds what it needs.

    Attributes:
        store: has the model ``fraud``.
        model: that model's folder.
        scripts: of ``wrk``, by contender.
        python: with this checkout and the other servers.
    """

    store: str
    model: Path
    scripts: Path
    python: str


@dataclass(frozen=True)
class Sample:
    """One run of one contender."""

    rate: float
    p99_ms: float
    cpu_us: float
    failed: int


class Handler:
    """A handler that decodes, scores by the tick and encodes, and does nothing else.

    Args:
        store: where ``fraud`` is.
    """

    def __init__(self, store: str) -> None:
        import msgspec

        from tidegate.serve.load import load_version
        from tidegate.store.open import open_store

        loaded = load_version(open_store(store), "fraud")
        tensor = msgspec.defstruct("Tensor", [("name", str), ("shape", list[int]), ("datatype", str), ("data", list)])
        request = msgspec.defstruct("Request", [("inputs", list[tensor])])  # type: ignore[valid-type]
        self._decode = msgspec.json.Decoder(request).decode
        self._score = loaded.scorer.run
        signature = loaded.scorer.signature
        self._plan = [(t.name, object if t.datatype == "BYTES" else DATATYPES[t.datatype]) for t in signature.inputs]
        self._waiting: list[tuple[Callable[[bytes], Any], Any]] = []
        gc.collect()  # as a worker of tidegate does
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)

    def add(self, answer: Callable[[bytes], Any], body: bytes) -> None:
        """Answer with the body's scores, soon."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append((answer, self._decode(body)))
        if len(self._waiting) >= TICK:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        columns = zip(*[[t.data[0] for t in r.inputs] for _, r in waiting], strict=True)
        label, shares = self._score({n: np.array(c, t) for (n, t), c in zip(self._plan, columns, strict=True)})
        for (answer, _), one, (no, yes) in zip(waiting, label.tolist(), shares.tolist(), strict=True):
            answer(_ANSWER % (one, no, yes))


_ANSWER = (
    b'{"model_name":"fraud","model_version":"1","outputs":[{"name":"label","datatype":"INT64","shape":[1],"data":[%d]},'
    b'{"name":"probabilities","datatype":"FP32","shape":[1,2],"data":[%r,%r]}]}'
)


def serve_bare(store: str, port: int) -> None:
    """The handler on the connections of ``tidegate serve``."""
    from tidegate.serve.connection import Server

    handler = Handler(store)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"

    class Application:
        def plan(self, head: Any) -> Any:
            return head

        def ask(self, connection: Any, _: Any, body: bytes) -> None:
            handler.add(lambda said: connection.answer(head % (len(said), said)), body)

        def refused(self, connection: Any, _: Any, error: Any) -> None:
            connection.reply(error.status, b"{}")

    async def run() -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        await Server(Application()).listen(sock)
        await asyncio.Event().wait()

    asyncio.run(run())


def rsgi(store: str) -> Any:
    """The handler as an RSGI application."""
    handler = Handler(store)
    fields = [("content-type", "application/json")]

    async def app(_: Any, protocol: Any) -> None:
        body = await protocol()
        future = asyncio.get_running_loop().create_future()
        handler.add(future.set_result, body)
        protocol.response_bytes(200, fields, await future)

    return app


def granian_app() -> Any:
    """The application of granian's worker process, which imports this module."""
    return rsgi(os.environ["BENCH_STORE"])


def serve_granian(store: str, port: int) -> None:
    from granian.server.mp import MPServer

    os.environ["BENCH_STORE"] = store
    MPServer(
        f"{Path(__file__).stem}:granian_app", factory=True, port=port, interface="rsgi", workers=1, loop="uvloop",
        runtime_mode="st", log_enabled=False,
    ).serve()  # fmt: skip


def serve_granian_embed(store: str, port: int) -> None:
    import uvloop
    from granian.server.embed import Server

    async def run() -> None:
        await Server(rsgi(store), port=port, interface="rsgi", log_enabled=False).serve()

    uvloop.run(run())


def serve_uvicorn(store: str, port: int) -> None:
    import uvicorn

    handler = Handler(store)

    async def app(_: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        future = asyncio.get_running_loop().create_future()
        handler.add(future.set_result, body)
        said = await future
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": said})

    uvicorn.run(app, port=port, lifespan="off", access_log=False, log_level="error")


def command(name: str, place: Place, port: int) -> list[str]:
    if name == "tidegate":
        return [place.python, "-m", "tidegate", "serve", "fraud", "--store", place.store, "--port", str(port)]
    if name in PEERS:
        script = Path(__file__).parent / "peers" / f"serve_{name}.py"
        return [environment(name).python, str(script), str(place.model), str(port)]
    return [place.python, __file__, place.store, "--be", name, "--port", str(port)]


def asked(name: str, place: Place) -> tuple[str, str]:
    """The path and the body of a request, in the form that a contender takes."""
    if name == "mlflow":
        return "/invocations", json.dumps({"dataframe_records": [ROW]})
    if name == "bentoml":
        return "/predict", json.dumps({"rows": [ROW]})
    inputs = json.loads((place.model / "signature.json").read_text())["inputs"]
    tensors = [{"name": t["name"], "shape": [1], "datatype": t["datatype"], "data": [ROW[t["name"]]]} for t in inputs]
    return PATH, json.dumps({"inputs": tensors})


@contextmanager
def running(name: str, place: Place, port: int) -> Iterator[int]:
    """A contender while the block runs, which is given its pid."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), env.get("PYTHONPATH", "")])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = command(name, place, port)
    with subprocess.Popen(words, env=env if name in OURS else _clean(env), **quiet) as server:  # type: ignore[call-overload]
        try:
            end = time.monotonic() + 120
            while not _answers(port, *asked(name, place)):
                if server.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"{name} does not start: {' '.join(words)}")
                time.sleep(0.05)
            yield server.pid
        finally:
            started = _processes(server.pid)
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
            for pid in started:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _clean(env: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in env.items() if k != "PYTHONPATH"}


def _answers(port: int, path: str, body: str) -> bool:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body.encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def cpu(pid: int) -> float:
    """CPU seconds of a process and all that it started, so far."""
    return sum(_processes(pid).values()) / os.sysconf("SC_CLK_TCK")


def _processes(pid: int) -> dict[int, int]:
    """The ticks of CPU that a process and all that it started have used, by pid."""
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            ticks[int(stat.parent.name)] = int(fields[11]) + int(fields[12])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {one: ticks[one] for one in found if one in ticks}


def measure(name: str, place: Place, seconds: int, connections: int) -> Sample:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    path, body = asked(name, place)
    script = place.scripts / f"{name}.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\nwrk.body = [=[{body}]=]\n'
    )
    url = f"http://127.0.0.1:{port}{path}"
    with running(name, place, port) as pid:
        load(url, script, 1, connections)
        before = cpu(pid)
        said = load(url, script, seconds, connections)
        used = cpu(pid) - before
    requests = int(re.findall(r"(\d+) requests in", said)[0])
    failed = int((re.findall(r"Non-2xx or 3xx responses: (\d+)", said) or ["0"])[0])
    p99, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s)", said)[0]
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])
    return Sample(rate, float(p99) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit], used / max(requests, 1) * 1e6, failed)


def load(url: str, script: Path, seconds: int, connections: int) -> str:
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-s", str(script), url]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def export(store: str, folder: Path) -> Path:
    """Write the model's folder, for those who do not know our registry."""
    from tidegate.serve.find import find_version
    from tidegate.store.blobs import Blobs
    from tidegate.store.open import open_store

    opened = open_store(store)
    version = find_version(opened, "fraud")
    Blobs(opened).fetch(version.digest, folder / "model", kind=version.kind)
    return folder / "model"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--be", choices=OURS[1:], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.be:
        globals()[f"serve_{said.be.replace('-', '_')}"](said.store, said.port)
        return 0
    there = [name for name in said.only if name in OURS or _installed(name)]
    found: dict[str, list[Sample]] = {name: [] for name in there}
    with tempfile.TemporaryDirectory() as folder:
        place = Place(said.store, export(said.store, Path(folder)), Path(folder), environment("servers").python)
        for _ in range(said.rounds):
            for name in there:
                found[name].append(measure(name, place, said.seconds, said.connections))
    print(f"{said.connections} connections, median of {said.rounds} rounds of {said.seconds} s, [least..most]")
    for name, samples in found.items():
        print(row(name, samples, found.get("tidegate", samples)))
    if said.json:
        said.json.write_text(json.dumps({n: [asdict(s) for s in samples] for n, samples in found.items()}, indent=1))
    return 0


def _installed(name: str) -> bool:
    made = environment(name)
    if made.trouble:
        print(f"{name:<14} {', '.join(PINS[name])} {made.trouble}")
    return not made.trouble


def row(name: str, samples: list[Sample], ours: list[Sample]) -> str:
    """A contender's figures, and how many times its rate ours is."""
    rates = [s.rate for s in samples]
    middle = {f: statistics.median(getattr(s, f) for s in samples) for f in ("rate", "p99_ms", "cpu_us")}
    ratio = statistics.median(s.rate for s in ours) / middle["rate"]
    spread = f"[{min(rates):.0f}..{max(rates):.0f}]"
    failed = sum(s.failed for s in samples)
    return (
        f"{name:<14} {middle['rate']:>8.0f} req/s {spread:<16} p99 {middle['p99_ms']:>7.2f} ms"
        f"  {middle['cpu_us']:>6.1f} us of CPU a request  {failed} failed  tidegate: {ratio:.2f} x"
    )


if __name__ == "__main__":
    raise SystemExit(main())
