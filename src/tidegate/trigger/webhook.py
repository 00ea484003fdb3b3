"""A receiver of webhooks, whose calls are hints: GitHub's, a MinIO server's, or whoever knows the secret.

``POST`` on any path, with the body's HMAC in ``X-Hub-Signature-256: sha256=…`` as GitHub sends it, or with the secret
itself in ``Authorization: Bearer …`` as MinIO sends it. The body is not read for what it says, so a call that is
replayed or doubled is a hint more. ``GET /healthz`` tells that the receiver is up.

It speaks plain HTTP: what comes from outside belongs behind an ingress that speaks TLS. At most ``MOST_CALLS`` at a time
are listened to, each for ``CALL_SECONDS`` at most.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from tidegate.errors import ConfigError, ServerError, UsageError

MAX_BODY = 4 << 20
MOST_CALLS = 16
CALL_SECONDS = 10.0
SHORTEST = 16  # of secrets, in bytes
HEALTH = "/healthz"
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]*):(?P<port>\d{1,5})")


def parse_address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; without a host it is every address of this machine.

    Raises:
        UsageError: it is something else (code ``listen-invalid``).
    """
    found = _ADDRESS.fullmatch(text)
    if not found or int(found["port"]) > 65535:
        allowed = "HOST:PORT, such as 127.0.0.1:8090, or :8090 for every address of this machine."
        raise UsageError(f"{text!r} is no address to listen on", allowed=allowed, code="listen-invalid")
    return found["host"].strip("[]"), int(found["port"])


def check_secret(secret: str) -> bytes:
    """Return a secret without the white space around it.

    Raises:
        ConfigError: it is too short to be one (code ``webhook-secret``); an empty one would let everybody in.
    """
    body = secret.strip().encode()
    if len(body) < SHORTEST:
        raise ConfigError(
            "calls cannot be told from a stranger's: there is no secret of their senders and ours"
            if not body
            else f"the secret of webhooks has {len(body)} bytes",
            allowed=f"{SHORTEST} bytes or more, the same as the sender is given.",
            hint="export TIDEGATE_WEBHOOK_SECRET=$(openssl rand -hex 32), or --secret-file FILE",
            code="webhook-secret",
        )
    return body


def is_genuine(headers: Message, body: bytes, secret: bytes) -> bool:
    """Whether who calls knows the secret; how long that takes tells nothing about it."""
    signature = f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}".encode()
    kind, _, token = headers.get("Authorization", "").partition(" ")
    signed = hmac.compare_digest(_bytes(headers.get("X-Hub-Signature-256", "")), signature)
    return signed or (hmac.compare_digest(_bytes(token.strip()), secret) and kind.lower() == "bearer")


def _bytes(header: str) -> bytes:
    return header.encode("latin-1", "replace")  # as http.server reads them


@contextmanager
def receiver(host: str, port: int, secret: bytes, give: Callable[[], None]) -> Iterator[str]:
    """Listen while the block runs, which is given the address; each genuine call gives a hint.

    Raises:
        ServerError: the port is in use, or the address is not ours.
    """
    with _listening(host, port, secret, give) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{f'[{host}]' if ':' in host else host or '0.0.0.0'}:{server.server_port}"
        finally:
            server.wake()
            server.shutdown()
            thread.join()


def _listening(host: str, port: int, secret: bytes, give: Callable[[], None]) -> _Receiver:
    try:
        return _Receiver(host, port, secret, give)
    except OSError as e:
        raise ServerError(
            f"cannot listen on {host}:{port}: {e.strerror or e}",
            allowed="A free port of an address of this machine.",
            hint="--listen 127.0.0.1:0 picks a free one.",
            code="port-in-use" if e.errno in (98, 48) else "address",
        ) from e


class _Receiver(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 4 * MOST_CALLS  # who finds no place in it knocks again after a second, then after two more

    def __init__(self, host: str, port: int, secret: bytes, give: Callable[[], None]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.secret, self.give = secret, give
        self._calls: dict[Any, float] = {}
        super().__init__((host, port), _Call)

    def server_bind(self) -> None:
        """Bind without asking who this machine is, which may take a name server's time."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._calls) >= MOST_CALLS:
            return self.shutdown_request(request)
        self._calls[request] = time.monotonic()
        return super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._calls.pop(request, None)
        super().shutdown_request(request)

    def wake(self) -> None:
        """Take no more calls, which the loop sees at once: that it shall end it would see when its half second is over."""
        with suppress(OSError):  # macOS wakes nobody by that
            self.socket.shutdown(socket.SHUT_RDWR)

    def service_actions(self) -> None:
        """End calls that take too long, twice a second."""
        for request, since in list(self._calls.items()):
            if time.monotonic() - since > CALL_SECONDS:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave a caller who went away alone."""


class _Call(BaseHTTPRequestHandler):
    server: _Receiver
    timeout = CALL_SECONDS

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            return self._refuse(411, "a Content-Length is needed")
        if len(length) > 9 or int(length) > MAX_BODY:
            return self._refuse(413, f"the body is larger than {MAX_BODY} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            return None
        if not is_genuine(self.headers, body, self.server.secret):
            return self._say(401, "neither X-Hub-Signature-256 nor Authorization: Bearer is of our secret")
        self.server.give()
        return self._say(202, "")

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == HEALTH:
            return self._say(200, "")
        return self.do_PUT()

    def do_PUT(self) -> None:
        self._say(405, f"POST is a hint, GET {HEALTH} tells that this is up")

    do_HEAD = do_GET  # noqa: N815
    do_PATCH = do_DELETE = do_OPTIONS = do_PUT  # noqa: N815

    def _refuse(self, status: int, error: str) -> None:
        """Answer, and read on: a caller who is cut off while sending does not see the answer."""
        self._say(status, error)
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        while self.rfile.read1(1 << 16):
            pass

    def _say(self, status: int, error: str) -> None:
        body = (f'{{"error": "{error}"}}' if error else '{"status": "ok"}').encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 405:
            self.send_header("Allow", "POST")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "tidegate"  # and not which Python

    def log_message(self, *_: object) -> None:
        """Say nothing."""
