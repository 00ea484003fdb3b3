"""The server as a process: it answers, refuses a port in use, and stops cleanly."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.test_protocol import ROW, registered
from tidegate.errors import ServerError
from tidegate.serve.protocol import MAX_BODY
from tidegate.serve.server import free_port
from tidegate.store.local import LocalStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("server")
    registered(LocalStore(root / "s"), root)
    return root / "s"


def start(store: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tidegate", "serve", "m@champion", "--store", str(store), *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def url(store: Path) -> Iterator[str]:
    with start(store, "--port", "0") as server:
        assert server.stdout
        yield server.stdout.readline().rpartition(" ")[2].strip()
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert server.stderr
        assert server.stderr.read() == ""


def test_it_answers_over_http_and_stops_with_0_and_no_noise(url: str) -> None:
    with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=20) as response:
        assert json.load(response) == {"ready": True}
    with urllib.request.urlopen(f"{url}/predict", json.dumps([ROW]).encode(), timeout=20) as response:
        assert json.load(response)[0]["label"] == "yes"
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(f"{url}/nothing", timeout=20)
    assert e.value.code == 404
    e.value.close()


def test_a_body_that_is_too_large_is_413(url: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        sock.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 413")


def test_a_port_in_use_is_said_with_what_to_type(store: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError) as e:
            free_port("127.0.0.1", port)
        assert (e.value.code, e.value.exit_code) == ("port-in-use", 3)
        with start(store, "--port", str(port)) as server:
            out, err = server.communicate(timeout=60)
        assert server.returncode == 3
        assert "--port 0" in err
        assert "Traceback" not in out + err
    with pytest.raises(ServerError, match="cannot listen"):
        free_port("192.0.2.1", 0)
