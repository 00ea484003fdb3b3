"""A proxy in front of an S3 server that does what networks do: the put lands and the answer is lost, or it never lands."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.servers import answering

# fault -> (does the put reach the server, what the client hears: a status, or None for a hang-up)
FAULTS: dict[str, tuple[bool, int | None]] = {
    "stored-500": (True, 500),
    "stored-503": (True, 503),
    "stored-409": (True, 409),
    "stored-hangup": (True, None),
    "lost-500": (False, 500),
    "lost-hangup": (False, None),
}


class Proxy(ThreadingHTTPServer):
    """Plays ``fault`` on the next ``times`` conditional puts, then behaves."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.fault, self.times = "", 0
        self.lock = threading.Lock()

    def play(self, fault: str, times: int) -> None:
        self.fault, self.times = fault, times

    def take(self) -> tuple[bool, int | None] | None:
        with self.lock:
            if self.times <= 0:
                return None
            self.times -= 1
            return FAULTS[self.fault]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        conditional = self.command == "PUT" and self.headers.get("if-none-match")
        fault = self.server.take() if conditional else None
        if fault is None:
            return self._answer(*self._forward(body))
        reaches, status = fault
        if reaches:
            self._forward(body)
        if status is None:
            self.close_connection = True
            return self.connection.close()
        return self._answer(status, {}, b"")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=20)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        return answer.status, dict(answer.getheaders()), data

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length", headers.get("content-length")) if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    with Proxy(upstream) as server, answering(server):
        yield server
