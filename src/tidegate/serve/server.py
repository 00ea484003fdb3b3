"""``tidegate serve``: the leading process. It binds the ports, leads the workers, answers the admin port, follows an alias.

It imports neither the model nor what scores it, so that it starts at once, and answers when the workers are busy.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import ExitStack

from tidegate.errors import ModelRefused, ServerError, UsageError
from tidegate.project import check_token
from tidegate.registry.model import Version, split_reference
from tidegate.serve.access import ADMIN, DATA, Access, access
from tidegate.serve.find import find_version
from tidegate.serve.keep import check_folder
from tidegate.serve.leader import Leader, Ready
from tidegate.serve.setup import Options
from tidegate.store.open import open_store


def serve(
    reference: str,
    options: Options | None = None,
    *,
    store: str | None = None,
    digest: str = "",
    on_ready: Callable[[Ready], None],
) -> None:
    """Serve a registered model until SIGTERM or SIGINT, or an order to drain.

    Args:
        reference: ``NAME``, ``NAME@ALIAS`` or ``NAME:VERSION``.
        options: how.
        store: where the registry is.
        digest: of the only bytes that will do; by default those that are registered.
        on_ready: called once requests are answered.

    Raises:
        ConfigError: a port could be asked by strangers, or a file of the configuration cannot be used.
        ServerError: a port is in use, or the address is not ours.
        ModelRefused: the version may not be served, or has other bytes than ``digest``.
    """
    options = options or Options()
    rules = _rules(options)
    if options.follow and split_reference(reference)[1].isdecimal():
        raise UsageError(f"{reference} names a version, which never moves", allowed="--follow with NAME@ALIAS or NAME.")
    if options.follow and digest:
        raise UsageError("--digest names bytes, which never move", allowed="--follow or --digest.")
    if options.keep:
        check_folder(options.keep)
    if options.tls:
        options.tls.context()
    with ExitStack() as opened:
        listeners = listen(options.host, options.port, options.workers)
        admin = listen(options.admin_host, options.admin_port, 1, option="--admin-")[0]
        for sock in (*listeners, admin):
            opened.callback(sock.close)
        where = open_store(store)
        version = find_version(where, reference)
        if digest and version.digest != digest:
            raise _other(version, digest, where.uri)
        asyncio.run(Leader(reference, options, where, version, listeners, admin, rules).run(on_ready))


def _other(version: Version, digest: str, store: str) -> ModelRefused:
    return ModelRefused(
        f"version {version.version} of {version.model} in {store} is {version.digest}, not {digest}",
        allowed="The store that has these bytes under this number.",
        hint="--store URI",
        code="digest-other",
    )


def _rules(options: Options) -> tuple[Access, Access]:
    """The rules of the data and of the admin port."""
    token = check_token(options.token, "the configuration") if options.token is not None else None
    mutual = bool(options.tls and options.tls.client_ca)
    return (
        access(DATA, options.host, token=token, mutual=mutual, open_=options.open, names=options.names),
        access(ADMIN, options.admin_host, token=token, mutual=mutual),
    )


def listen(host: str, port: int, number: int, *, option: str = "--") -> list[socket.socket]:
    """Bind sockets to one address, one a worker; the kernel shares connections between them.

    They stay with the leading process, so that a worker that dies takes no waiting connection with it.

    Args:
        host: the address.
        port: its port; 0 picks one.
        number: how many sockets.
        option: how the options begin that say address and port.

    Raises:
        ServerError: it cannot be listened on (code ``port-in-use`` or ``address``).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made: list[socket.socket] = []
    try:
        if number > 1:  # sockets that share would share with another server of this user, too
            with _bound(family, host, port, shared=False) as probe:
                port = probe.getsockname()[1]
        for _ in range(number):
            made.append(_bound(family, host, port, shared=number > 1))
    except OSError as e:
        for sock in made:
            sock.close()
        in_use = e.errno == errno.EADDRINUSE
        raise ServerError(
            f"cannot listen on {host}:{port}: {e.strerror or e}",
            allowed="A free port of an address of this machine.",
            hint=f"{option}port 0 picks a free one." if in_use else f"{option}host 127.0.0.1",
            code="port-in-use" if in_use else "address",
        ) from e
    return made


def _bound(family: int, host: str, port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        if not shared:
            sock.listen(1024)  # or two could be bound to one port, and only the first to listen has it
    except OSError:
        sock.close()
        raise
    return sock
