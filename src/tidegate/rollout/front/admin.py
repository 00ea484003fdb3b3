"""HAProxy's admin socket: commands in, text out."""

from __future__ import annotations

import socket
from pathlib import Path

from tidegate.errors import ServerError


def ask(path: Path, *commands: str, seconds: float = 2.0) -> str:
    """Return the answers to commands, which go in one connection, one after the other.

    Args:
        path: the admin socket.
        commands: without line ends or semicolons.
        seconds: how long to wait for more of an answer.

    Raises:
        ServerError: HAProxy cannot be reached or does not answer (code ``front-unreachable``).
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(seconds)
            sock.connect(str(path))
            sock.sendall(";".join(commands).encode() + b"\n")
            return b"".join(iter(lambda: sock.recv(1 << 16), b"")).decode(errors="replace")
    except OSError as e:
        raise ServerError(
            f"HAProxy does not answer at {path}: {e.strerror or e}",
            allowed="A front that runs.",
            hint=f"tidegate front {path.parent.name}",
            code="front-unreachable",
        ) from e
