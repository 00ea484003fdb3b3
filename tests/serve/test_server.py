"""The server as processes: it answers, follows an alias, survives its workers' deaths, and ends without losing a request."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.registry.made import evaluation, model, policy
from tests.serve.test_protocol import ROW, registered
from tidegate.errors import ServerError
from tidegate.registry.model import Registry
from tidegate.registry.register import Candidate, register
from tidegate.serve.server import listen
from tidegate.store.blobs import digest_path
from tidegate.store.local import LocalStore


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("server")
    registered(LocalStore(root / "s"), root)
    return root / "s"


def again(store: Path, folder: Path, estimator: str) -> int:
    """Register one more version of the model, which the champion then names; return its number."""
    made = model(folder / estimator, estimator)
    data = folder / f"data-{estimator}"
    data.mkdir()
    (data / "x").write_text("x")
    said = evaluation(data={"digest": digest_path(data).digest, "rows": 4})
    (folder / f"{estimator}.json").write_text(json.dumps(said))
    register(Candidate("m", made, folder / f"{estimator}.json", data, {}, policy().json()), LocalStore(store))
    return Registry(LocalStore(store)).version("m")[1].version


@dataclass
class Served:
    """A server and what it said of itself."""

    process: subprocess.Popen[str]
    url: str
    admin: str
    errors: Path

    def get(self, path: str, base: str = "") -> Any:
        with urllib.request.urlopen(f"{base or self.url}{path}", timeout=20) as response:
            body = response.read()
        return json.loads(body) if body[:1] in (b"{", b"[") else body.decode()

    def predict(self, rows: Any) -> Any:
        with urllib.request.urlopen(f"{self.url}/predict", json.dumps(rows).encode(), timeout=20) as response:
            return json.load(response)

    def status(self) -> Any:
        return self.get("/v1/status", self.admin)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.errors.read_text().splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == name]


def command(store: Path, *args: str, reference: str = "m@champion") -> list[str]:
    return [sys.executable, "-m", "tidegate", "serve", reference, "--store", str(store), "--port", "0", *args]


@contextmanager
def serving(store: Path, folder: Path, *args: str, reference: str = "m@champion") -> Iterator[Served]:
    errors = folder / "errors.jsonl"
    words = command(store, "--json", "--grace", "0.05", *args, reference=reference)
    with errors.open("w") as said, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line, errors.read_text()
            ready = json.loads(line)
            yield Served(process, ready["url"], ready["admin"], errors)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_it_answers_over_http_and_stops_with_0_and_no_noise(made: Path, tmp_path: Path) -> None:
    with serving(made, tmp_path, "--log-sample", "0") as server:
        assert server.get("/v2/health/ready") == {"ready": True}
        assert server.get("/v1/ready", server.admin) == {"ready": True}
        assert server.predict([ROW])[0]["label"] == "yes"
    assert server.process.returncode == 0
    assert server.errors.read_text() == ""


def test_the_first_line_ends_with_the_url(made: Path) -> None:
    with subprocess.Popen(command(made), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        url = server.stdout.readline().rpartition(" ")[2].strip()
        try:
            with urllib.request.urlopen(f"{url}/v2/health/live", timeout=20) as response:
                assert response.status == 200
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


def test_a_port_in_use_is_said_with_what_to_type(made: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for workers in (1, 2):
            with pytest.raises(ServerError) as e:
                listen("127.0.0.1", port, workers)
            assert (e.value.code, e.value.exit_code) == ("port-in-use", 3)
    with pytest.raises(ServerError, match="cannot listen"):
        listen("192.0.2.1", 0, 1)


def test_two_servers_of_several_workers_never_share_a_port() -> None:
    ours = listen("127.0.0.1", 0, 2)
    for sock in ours:
        sock.listen()
    with pytest.raises(ServerError):
        listen("127.0.0.1", ours[0].getsockname()[1], 2)
    for sock in ours:
        sock.close()
