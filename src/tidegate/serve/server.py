"""The server: the protocol on granian's RSGI, one process, loopback by default."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Any

from tidegate.errors import ServerError
from tidegate.serve.load import Loaded, load_version
from tidegate.serve.protocol import MAX_BODY, handle
from tidegate.store.open import open_store

_HEADERS = [("content-type", "application/json")]


def serve(
    reference: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    store: str | None = None,
    on_ready: Callable[[Loaded, str], None] = print,
) -> None:
    """Serve a registered model until SIGTERM or SIGINT.

    Args:
        reference: ``NAME``, ``NAME@ALIAS`` or ``NAME:VERSION``.
        host: the address to listen on.
        port: 0 picks a free one.
        store: where the registry is.
        on_ready: called with what is served and the URL once requests are answered.

    Raises:
        ServerError: the port is in use, or the address is not ours.
        ModelRefused: the version may not be served.
    """
    port = free_port(host, port)
    loaded = load_version(open_store(store), reference)
    asyncio.run(_serve(loaded, host, port, on_ready))


def free_port(host: str, port: int) -> int:
    """Return ``port``, or a free one for 0, after making sure that it can be listened on.

    Raises:
        ServerError: it cannot (code ``port-in-use`` or ``address``).
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as e:
            in_use = e.errno in (98, 48)
            raise ServerError(
                f"cannot listen on {host}:{port}: {e.strerror}",
                allowed="A free port of an address of this machine.",
                hint="--port 0 picks a free one." if in_use else "--host 127.0.0.1",
                code="port-in-use" if in_use else "address",
            ) from e
        return int(sock.getsockname()[1])


async def _serve(loaded: Loaded, host: str, port: int, on_ready: Callable[[Loaded, str], None]) -> None:
    from granian.server.embed import Server

    server = Server(_app(loaded), address=host, port=port, interface="rsgi", log_enabled=False)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, server.stop)
    ready = loop.create_task(_tell_when_up(host, port, lambda url: on_ready(loaded, url)))
    try:
        await server.serve()
    finally:
        ready.cancel()
        await asyncio.sleep(0.1)  # granian's threads still tell this loop that they end


async def _tell_when_up(host: str, port: int, on_ready: Callable[[str], None]) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")


def _app(loaded: Loaded) -> Any:
    async def app(scope: Any, protocol: Any) -> None:
        if scope.proto != "http":
            return
        length = scope.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            protocol.response_bytes(413, _HEADERS, b'{"error":"the body is larger than %d bytes"}' % MAX_BODY)
            return
        body = b""
        async for chunk in protocol:
            body += chunk
            if len(body) > MAX_BODY:
                protocol.response_bytes(413, _HEADERS, b'{"error":"the body is larger than %d bytes"}' % MAX_BODY)
                return
        response = handle(loaded, scope.method, scope.path, body)
        protocol.response_bytes(response.status, _HEADERS, response.body)

    return app
