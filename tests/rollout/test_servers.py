"""What an admin port is asked: by whom, with which token, and what comes of an answer that is none."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.servers import answering, free_port, wait_until
from tidegate.cli.front import _check_open
from tidegate.errors import ConfigError, Conflict, ServerError, UsageError
from tidegate.project import SERVE_TOKEN, serve_token
from tidegate.rollout.counts import Score
from tidegate.rollout.front.fleet import Running, Server, Wanted
from tidegate.rollout.front.process import Process
from tidegate.rollout.front.weights import Weights, commit
from tidegate.rollout.router import CANARY, STABLE
from tidegate.rollout.servers import FrontFleet, ServerScores, ask, get
from tidegate.rollout.state import Target

TOKEN = "a" * 32
SCORES = {"digest": "sha256:d", "epoch": "one", "counts": [1, 2]}


class Admin(BaseHTTPRequestHandler):
    """Asks for the token; ``/away`` is elsewhere, ``/text`` is none."""

    elsewhere = ""

    def do_GET(self) -> None:
        right = self.headers.get("authorization") == f"Bearer {TOKEN}"
        self.send_response(302 if self.path == "/away" else 200 if right else 401)
        self.send_header("location", self.elsewhere)
        self.end_headers()
        self.wfile.write(b"text" if self.path == "/text" else json.dumps(SCORES).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Admin) as server, answering(server):
        yield server.server_port


@contextmanager
def listener(says: bytes = b"") -> Iterator[tuple[int, list[bytes]]]:
    """A port that says something, and what it was told."""
    told: list[bytes] = []

    def work() -> None:
        with sock.accept()[0] as peer:
            peer.sendall(says)
            told.append(peer.recv(1 << 16))

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        threading.Thread(target=work, daemon=True).start()
        yield sock.getsockname()[1], told


def test_a_token_with_a_line_end_is_the_token_that_servers_ask_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVE_TOKEN, TOKEN + "\n")
    server = Server("canary", Wanted("m:1", "sha256:d"), Process(1, 1), 1, port)
    assert ask(server, serve_token()) == Score("one", [1, 2])
    assert ask(server, "b" * 32) is None


@pytest.mark.parametrize("token", ["short", "a" * 20 + "\n" + "b" * 20, " "])
def test_what_is_no_token_is_said_before_a_front_starts_and_not_shown(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVE_TOKEN, token)
    for host in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(ConfigError) as e:
            _check_open(host, open_=False)
        assert e.value.code == "token-invalid"
        assert token.strip() not in str(e.value) or not token.strip()


def test_neither_a_redirect_nor_a_proxy_sees_the_token(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with listener() as (other, told):
        monkeypatch.setattr(Admin, "elsewhere", f"http://127.0.0.1:{other}/")
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{other}")
        with pytest.raises(ServerError, match="answers 302"):
            get(f"http://127.0.0.1:{port}", "/away", TOKEN, 5)
        assert get(f"http://127.0.0.1:{port}/", "/v1/scores", TOKEN, 5) == SCORES
    assert told == []


def test_whatever_answers_is_trouble_that_passes_and_shows_no_token(port: int) -> None:
    with listener(b"SSH-2.0-OpenSSH_9.6\r\n") as (ssh, _):
        for url, path, token in (
            (f"http://127.0.0.1:{ssh}", "/v1/scores", TOKEN),
            (f"http://127.0.0.1:{free_port()}", "/v1/scores", TOKEN),
            (f"http://127.0.0.1:{port}", "/text", TOKEN),
            (f"http://127.0.0.1:{port}", "/v1/scores", ""),
            (f"http://127.0.0.1:{port}", "/v1/scores", TOKEN + "\n"),
        ):
            with pytest.raises(ServerError) as e:
                get(url, path, token, 5)
            assert TOKEN not in str(e.value)


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "http://[::1"])
def test_what_is_no_address_of_an_admin_port_is_wrong_usage(url: str) -> None:
    with pytest.raises(UsageError, match="is no address of an admin port"):
        get(url, "/v1/scores", "", 5)


def test_that_no_server_can_be_asked_is_said_and_they_are_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fails = [True]

    def read(_: object) -> Running:
        if fails[0]:
            raise RuntimeError("can't start new thread")
        return Running(0)

    def said() -> str:
        try:
            return str(dict(scores.latest()))
        except ServerError as e:
            return e.found

    monkeypatch.setattr("tidegate.rollout.servers.files.read_running", read)
    monkeypatch.setattr("tidegate.rollout.servers.EVERY_SECONDS", 0.01)
    scores = ServerScores(tmp_path)
    wait_until(lambda: said() == "the servers cannot be asked: can't start new thread")
    fails[0] = False
    wait_until(lambda: said() == "{}")


def test_servers_are_not_started_by_who_is_older_than_the_weights_of_the_front(tmp_path: Path) -> None:
    old, new = Target(1, "sha256:1"), Target(2, "sha256:2")
    fleet = FrontFleet(tmp_path, "m")
    fleet.want({STABLE: old}, 2)
    commit(tmp_path, Weights({STABLE: 10_000}, 3))
    with pytest.raises(Conflict, match="generation 3, and you are 2"):
        fleet.want({STABLE: old, CANARY: new}, 2)
    assert fleet.wanted() == {STABLE: old}
