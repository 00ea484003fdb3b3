"""Messages between the process that leads and its workers: JSON over a socket pair, one a packet, descriptors beside."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Any

from tidegate.errors import TidegateError

MOST = 64 << 10


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that keep the limits of messages."""
    kind = socket.SOCK_SEQPACKET if hasattr(socket, "SOCK_SEQPACKET") else socket.SOCK_DGRAM
    return socket.socketpair(socket.AF_UNIX, kind)


def send(end: socket.socket, message: dict[str, Any], fds: list[int] | None = None) -> bool:
    """Send a message; False when nobody is there any more."""
    try:
        socket.send_fds(end, [json.dumps(message).encode()], fds or [])
    except OSError:
        return False
    return True


def receive(end: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors; None when the other end is gone.

    Raises:
        BlockingIOError: there is none now.
    """
    try:
        data, fds, _, _ = socket.recv_fds(end, MOST, 4)
    except BlockingIOError:
        raise
    except OSError:
        return None
    if not data:
        return None
    found: dict[str, Any] = json.loads(data)
    return found, fds


def as_json(error: Exception) -> dict[str, Any]:
    """An error to send or to log; ``internal`` where nobody foresaw it."""
    if isinstance(error, TidegateError):
        return error.as_json()
    return {"code": "internal", "message": repr(error)[:500]}


def to_fd(body: Any) -> int:
    """Something larger than a packet, as a descriptor to send."""
    data = json.dumps(body).encode()
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("tidegate-message")
    else:
        import tempfile

        with tempfile.TemporaryFile() as f:
            fd = os.dup(f.fileno())
    with os.fdopen(os.dup(fd), "wb") as f:
        f.write(data)
    return fd


def from_fd(fd: int) -> Any:
    """What ``to_fd`` was given; closes the descriptor."""
    with os.fdopen(fd, "rb") as f:
        f.seek(0)
        return json.loads(f.read())


def close(end: socket.socket) -> None:
    """Close an end."""
    with contextlib.suppress(OSError):
        end.close()
