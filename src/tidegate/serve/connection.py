"""Connections: bytes in, requests to the application one at a time, answers out; limits, time-outs, a graceful end.

A request that arrives whole in one piece with a head that was seen before, as nearly all do, costs one look-up. Written
here and not taken from a server library because it was measured: docs/adr/0007.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from tidegate.serve.http import CHUNKED, JSON, MAX_HEAD, Chunks, Head, HttpError, answer, read_head, too_large

LARGE = 64 << 10
MOST_HEADS, LONGEST_HEAD = 1024, 1024
LINGER = 2.0  # seconds
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class Limits:
    """How much one server takes.

    Attributes:
        body: bytes of a request's body.
        connections: at a time; more are answered with 503.
        held: bytes of large bodies that are being read or answered, at a time.
        seconds: to send a whole request, and to take an answer.
        idle: seconds that a connection is kept without a request.
    """

    body: int = 8 << 20
    connections: int = 1024
    held: int = 256 << 20
    seconds: float = 30.0
    idle: float = 75.0


class Application(Protocol):
    """What answers requests."""

    def plan(self, head: Head) -> Any:
        """Say what a head asks for; what is returned is kept for the same head again.

        Raises:
            HttpError: it is refused.
        """

    def ask(self, connection: Connection, plan: Any, body: bytes) -> None:
        """Answer a request, now or later, by exactly one ``connection.answer``."""

    def refused(self, connection: Connection, head: Head | None, error: HttpError) -> None:
        """Answer a request that was refused before it was asked."""


@dataclass
class Server:
    """A listening server and what its connections share."""

    application: Application
    limits: Limits = field(default_factory=Limits)
    now: float = field(default_factory=time.monotonic)
    draining: bool = False
    connections: set[Connection] = field(default_factory=set)
    heads: dict[bytes, tuple[Head, Any]] = field(default_factory=dict)
    held: int = 0
    _listener: asyncio.Server | None = None
    _sweep: asyncio.TimerHandle | None = None

    async def listen(self, sock: Any, tls: ssl.SSLContext | None = None) -> None:
        """Take connections on a bound socket."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self), sock=sock, ssl=tls, backlog=1024, ssl_handshake_timeout=10.0 if tls else None
        )
        self._tick(loop)

    async def drain(self, grace: float, seconds: float) -> bool:
        """End without losing a request; say whether all were answered.

        Args:
            grace: seconds in which connections are still taken, each answer is the last of its connection.
            seconds: the most to wait then for requests that are being answered.
        """
        self.draining = True
        await asyncio.sleep(grace)
        if self._listener:
            self._listener.close()
        await asyncio.sleep(0)  # connections that were taken in this tick are made in it
        for connection in list(self.connections):
            connection.end_if_idle()
        end = time.monotonic() + seconds
        while self.connections and time.monotonic() < end:
            await asyncio.sleep(0.01)
        lost = any(c.busy for c in self.connections)
        for connection in list(self.connections):
            connection.abort()
        if self._sweep:
            self._sweep.cancel()
        return not lost

    def reserve(self, size: int) -> None:
        """Make room for a large body.

        Raises:
            HttpError: there is none now (503).
        """
        if self.held + size > self.limits.held:
            raise busy("too many large requests are being answered", 1)
        self.held += size

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = time.monotonic()
        for connection in list(self.connections):
            connection.check_time(self.now)
        self._sweep = loop.call_later(1.0, self._tick, loop)


def busy(why: str, seconds: int) -> HttpError:
    """The refusal of a request that would have to wait too long."""
    return HttpError(503, f"{why}; try again", b"retry-after: %d\r\n" % max(seconds, 1))


class Connection(asyncio.Protocol):
    """One client.

    Args:
        server: what it belongs to.
    """

    __slots__ = (
        "_buffer", "_chunks", "_gone", "_head", "_held", "_keep", "_linger", "_paused", "_plan", "_since", "_surplus",
        "_transport", "busy", "server",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self.server = server
        self.busy = False  # a request is being answered
        self._transport: Any = None
        self._buffer = bytearray()
        self._head: Head | None = None  # of a request whose body is not complete
        self._plan: Any = None
        self._chunks: Chunks | None = None
        self._keep = True
        self._linger = False  # after the last answer, what still comes is read and thrown away for a while
        self._surplus = False
        self._gone = False  # nothing more is read
        self._paused = False
        self._held = 0
        self._since = server.now

    def connection_made(self, transport: Any) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = transport
        self.server.connections.add(self)
        self._surplus = len(self.server.connections) > self.server.limits.connections

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """See ``asyncio.Protocol``."""
        self.server.connections.discard(self)
        self._gone = True
        self._buffer.clear()
        self._release()

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self._paused = True

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self._paused = False
        if self._buffer:
            self._go_on()

    def eof_received(self) -> bool:
        """A client that has sent all still reads its answer."""
        if not self.busy or self._transport.get_extra_info("sslcontext"):
            return False
        self._keep = False
        return True

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if self._gone:
            return
        if not (self.busy or self._paused or self._buffer) and self._head is None:
            end = data.find(b"\r\n\r\n")
            known = self.server.heads.get(data[:end])
            if known is not None and end > 0 and known[0].length == len(data) - end - 4 and not self._surplus:
                head, plan = known
                self.busy, self._keep, self._since = True, head.keep, self.server.now
                self.server.application.ask(self, plan, data[end + 4 :])
                return
        if not self._buffer and self._head is None:  # chunks leave nothing in the buffer and are of the same request
            self._since = self.server.now
        self._buffer += data
        if not (self.busy or self._paused):
            self._advance()
        elif len(self._buffer) > LARGE:
            self._transport.pause_reading()

    def answer(self, payload: bytes) -> None:
        """Send an answer, as ``http.answer`` makes it; ``closing`` said whether it has to tell that it is the last."""
        self.busy, self._since = False, self.server.now
        if self._held:
            self._release()
        if self._gone:
            return
        self._transport.write(payload)
        if self.closing:
            self._gone = True
            self._finish()
        elif self._buffer:
            asyncio.get_running_loop().call_soon(self._go_on)

    def reply(self, status: int, body: bytes, *, kind: bytes = JSON, fields: bytes = b"") -> None:
        """Send an answer that is put together here."""
        self.answer(answer(status, body, kind=kind, fields=fields, keep=not self.closing))

    @property
    def closing(self) -> bool:
        """Whether the next answer is the last."""
        return not self._keep or self.server.draining

    def end_if_idle(self) -> None:
        """Close it unless a request is being read or answered."""
        if not self.busy and self._head is None and not self._buffer:
            self._transport.close()

    def abort(self) -> None:
        """Close it now."""
        self._gone = True
        self._transport.abort()

    def check_time(self, now: float) -> None:
        """Close it when its client takes too long."""
        waiting = now - self._since
        if self.busy and not self._paused:
            return
        if self._paused or self._gone:
            if waiting > self.server.limits.seconds:
                self.abort()
        elif self._buffer or self._head is not None:
            if waiting > self.server.limits.seconds:
                self._refuse(HttpError(408, f"the request took more than {self.server.limits.seconds:g} s to arrive"))
        elif waiting > self.server.limits.idle:
            self._transport.close()

    def _finish(self) -> None:
        """A client that is cut off while it sends does not see the answer."""
        if self._linger and self._transport.can_write_eof():
            with contextlib.suppress(OSError):
                self._transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER, self._transport.close)
        else:
            self._transport.close()

    def _release(self) -> None:
        self.server.held -= self._held
        self._held = 0

    def _go_on(self) -> None:
        if self._gone or self.busy or self._paused:
            return
        self._transport.resume_reading()
        self._advance()

    def _advance(self) -> None:
        """Ask the next request if it is there whole."""
        try:
            if self._head is None and not self._read_head():
                return
            body = self._read_body()
        except HttpError as e:
            self._refuse(e)
            return
        if body is None:
            return
        head, plan = self._head, self._plan
        assert head is not None
        self._head, self._chunks, self._plan = None, None, None
        self.busy, self._keep = True, head.keep
        self.server.application.ask(self, plan, body)

    def _read_head(self) -> bool:
        while self._buffer[:2] == b"\r\n":  # RFC 9112, 2.2: an empty line before a request
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD + 4)
        if end < 0:
            if len(self._buffer) > MAX_HEAD:
                raise HttpError(431, f"the head is larger than {MAX_HEAD} bytes")
            return False
        raw = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        if self._surplus:
            raise busy(f"there are {self.server.limits.connections} connections already", 1)
        known = self.server.heads.get(raw)
        if known is None:
            self._head = read_head(raw)
            known = self._head, self.server.application.plan(self._head)
            self._remember(raw, known)
        self._head, self._plan = known
        self._expect(self._head)
        return True

    def _remember(self, raw: bytes, known: tuple[Head, Any]) -> None:
        heads = self.server.heads
        # what needs a look at its length each time is not asked at once when it comes in one piece
        short = known[0].length <= min(self.server.limits.body, LARGE)
        if len(raw) <= LONGEST_HEAD and short and not known[0].expects:
            if len(heads) >= MOST_HEADS:
                heads.clear()
            heads[raw] = known

    def _expect(self, head: Head) -> None:
        limit = self.server.limits.body
        if head.length > limit:
            raise too_large(limit)
        if head.length == CHUNKED:
            self._chunks = Chunks(limit)
        if head.length > LARGE or head.length == CHUNKED:
            size = limit if head.length == CHUNKED else head.length
            self.server.reserve(size)
            self._held = size
        if head.expects and len(self._buffer) < abs(head.length):
            self._transport.write(CONTINUE)

    def _read_body(self) -> bytes | None:
        head = self._head
        assert head is not None
        if self._chunks is not None:
            return bytes(self._chunks.body) if self._chunks.feed(self._buffer) else None
        if len(self._buffer) < head.length:
            return None
        body = bytes(self._buffer[: head.length])
        del self._buffer[: head.length]
        return body

    def _refuse(self, error: HttpError) -> None:
        head, self._head, self._chunks = self._head, None, None
        self.busy, self._keep = True, False
        self._linger = head is None or head.length != 0
        self._buffer.clear()
        self.server.application.refused(self, head, error)
