"""A way to the object store that can be closed: an outage that nobody else on the cluster feels."""

import contextlib
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.cluster import setting


class Relay(socketserver.ThreadingTCPServer):
    """Passes connections on while it is open; those that are there break when it is closed."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), _Handler)
        self.opened = threading.Event()
        self.opened.set()

    @property
    def endpoint(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"


class _Handler(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        if not self.server.opened.is_set():
            return
        parts = urlsplit(setting.endpoint())
        with contextlib.suppress(OSError), socket.create_connection((parts.hostname, parts.port)) as there:
            pairs = {self.request: there, there: self.request}
            while self.server.opened.is_set():
                for ready in select.select([*pairs], [], [], 0.1)[0]:
                    if not (data := ready.recv(1 << 16)):
                        return
                    pairs[ready].sendall(data)


@contextlib.contextmanager
def relay() -> Iterator[Relay]:
    """A relay on the address of this machine that pods reach."""
    with Relay(setting.HOST) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
