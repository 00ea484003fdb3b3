"""Connections over real sockets: pieces, order, limits, time-outs, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tidegate.serve.connection import Connection, Limits, Server
from tidegate.serve.http import Head, HttpError

POST = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"


class Echo:
    """Answers with the body: at once, or, for ``/later``, when told to."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.waiting: list[tuple[Connection, bytes]] = []
        self.planned = 0

    def plan(self, head: Head) -> str:
        self.planned += 1
        if head.path == "/no":
            raise HttpError(404, "nothing")
        return head.path

    def ask(self, connection: Connection, plan: str, body: bytes) -> None:
        self.asked.append(body)
        if plan == "/later":
            self.waiting.append((connection, body))
        else:
            connection.reply(200, body)

    def refused(self, connection: Connection, head: Head | None, error: HttpError) -> None:
        connection.reply(error.status, str(error).encode(), fields=error.fields)

    def go(self) -> None:
        waiting, self.waiting = self.waiting, []
        for connection, body in waiting:
            connection.reply(200, body)


class Peer:
    """A client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        first, *lines = raw[:-4].split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines)
        body = await self.reader.readexactly(int(fields.get(b"content-length", 0)))
        return int(first.split()[1]), fields, body

    async def ended(self) -> bool:
        return await asyncio.wait_for(self.reader.read(), 20) == b""


Work = Callable[[Server, Echo, Callable[[], Awaitable[Peer]]], Awaitable[None]]


def run(work: Work, **limits: Any) -> None:
    @asynccontextmanager
    async def served() -> Any:
        app = Echo()
        server = Server(app, Limits(**limits))
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        await server.listen(sock)
        peers: list[Peer] = []

        async def connect() -> Peer:
            peer = Peer(*await asyncio.open_connection("127.0.0.1", port))
            peers.append(peer)
            return peer

        try:
            yield server, app, connect
        finally:
            app.go()
            for peer in peers:
                peer.writer.close()
            await server.drain(0, 5)

    async def go() -> None:
        async with served() as parts:
            await work(*parts)

    asyncio.run(asyncio.wait_for(go(), 60))


def test_requests_are_answered_however_they_are_cut_into_pieces() -> None:
    raw = (
        POST % (b"/", 3, b"abc")
        + b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n"
    )

    async def work(server: Server, app: Echo, connect: Any) -> None:
        for size in (1, 2, 7, 40, len(raw)):
            peer = await connect()
            for at in range(0, len(raw), size):
                peer.send(raw[at : at + size])
                await asyncio.sleep(0)
            assert [(await peer.answer())[2] for _ in range(2)] == [b"abc", b"de"]
        assert app.planned == 2  # a head that was seen is not read again

    run(work)


def test_answers_come_in_the_order_of_the_requests() -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        peer = await connect()
        peer.send(POST % (b"/later", 1, b"1") + POST % (b"/", 1, b"2") + POST % (b"/no", 0, b""))
        while not app.waiting:
            await asyncio.sleep(0.001)
        assert app.asked == [b"1"]
        app.go()
        said = [await peer.answer() for _ in range(3)]
        assert [(s[0], s[2]) for s in said] == [(200, b"1"), (200, b"2"), (404, b"nothing")]
        assert await peer.ended()

    run(work)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n" + b"x" * 101, 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101, 413),
        (b"GET / HTTP/1.1\r\nHost: " + b"x" * 17_000, 431), (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_what_is_too_large_or_no_http_is_answered_and_then_the_connection_ends(raw: bytes, status: int) -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        peer = await connect()
        peer.send(raw)
        said = await peer.answer()
        assert (said[0], said[1][b"connection"]) == (status, b"close")
        assert await peer.ended()
        assert app.asked == []

    run(work, body=100)


def test_a_client_that_waits_for_100_continue_is_told_to_go_on_or_why_not() -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        peer = await connect()
        peer.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send(b"abc")
        assert (await peer.answer())[2] == b"abc"
        other = await connect()
        other.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\nExpect: 100-continue\r\n\r\n")
        assert (await other.answer())[0] == 413

    run(work, body=100)


def test_more_connections_than_allowed_are_told_to_come_back() -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        first = await connect()
        first.send(POST % (b"/", 1, b"a"))
        assert (await first.answer())[0] == 200
        second = await connect()
        second.send(POST % (b"/", 1, b"b"))
        status, fields, _ = await second.answer()
        assert (status, fields[b"retry-after"], fields[b"connection"]) == (503, b"1", b"close")
        first.send(POST % (b"/", 1, b"c"))
        assert (await first.answer())[2] == b"c"

    run(work, connections=1)


def test_large_bodies_are_bounded_together() -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        first, second = await connect(), await connect()
        first.send(POST % (b"/later", 80_000, b"x" * 80_000))
        while not app.waiting:
            await asyncio.sleep(0.001)
        second.send(POST % (b"/", 80_000, b"x" * 80_000))
        status, fields, _ = await second.answer()
        assert (status, fields[b"retry-after"]) == (503, b"1")
        app.go()
        assert (await first.answer())[0] == 200
        assert server.held == 0
        third = await connect()
        third.send(POST % (b"/", 80_000, b"x" * 80_000))
        assert (await third.answer())[0] == 200

    run(work, held=100_000)


def test_a_head_that_was_seen_before_makes_no_body_smaller() -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        for _ in range(2):
            peer = await connect()
            peer.send(POST % (b"/", 100_001, b"x" * 100_001))
            assert (await peer.answer())[0] == 413
        assert app.asked == []
        first, second = await connect(), await connect()
        first.send(POST % (b"/later", 80_000, b"x" * 80_000))
        while not app.waiting:
            await asyncio.sleep(0.001)
        second.send(POST % (b"/later", 80_000, b"x" * 80_000))
        assert (await second.answer())[0] == 503
        assert server.held == 80_000

    run(work, body=100_000, held=100_000)


def test_a_head_that_was_seen_before_is_never_taken_for_its_own_body() -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 42"
        assert len(head) == 42 + 2
        for _ in range(2):
            peer = await connect()
            peer.send(head + b"\r\n\r\n" + b"b" * 42)
            assert (await peer.answer())[2] == b"b" * 42
        next(iter(server.connections)).data_received(head + b"\r")
        assert app.asked == [b"b" * 42] * 2

    run(work)


def test_who_is_slow_to_ask_gets_408_and_who_is_idle_is_closed() -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        slow, idle, waiting = await connect(), await connect(), await connect()
        slow.send(b"POST / HTT")
        waiting.send(POST % (b"/later", 1, b"a"))
        while not app.waiting:
            await asyncio.sleep(0.001)
        for connection in list(server.connections):
            connection.check_time(server.now + 31)
        status, fields, _ = await slow.answer()
        assert (status, fields[b"connection"]) == (408, b"close")
        for connection in list(server.connections):
            connection.check_time(server.now + 80)
        assert await idle.ended()
        app.go()
        assert (await waiting.answer())[0] == 200  # the server's own time is not the client's fault

    run(work)


def test_a_body_in_chunks_has_no_more_time_than_another() -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        peer = await connect()
        peer.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not server.held:
            await asyncio.sleep(0.001)
        (connection,) = server.connections
        began = server.now
        for seconds in (20, 40):
            server.now = began + seconds
            connection.data_received(b"1\r\na\r\n")
        connection.check_time(began + 40)
        assert (await peer.answer())[0] == 408
        assert server.held == 0

    run(work)


def test_a_client_that_goes_away_while_it_is_answered_disturbs_nobody() -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        gone, other = await connect(), await connect()
        gone.send(POST % (b"/later", 80_000, b"x" * 80_000))
        while not app.waiting:
            await asyncio.sleep(0.001)
        gone.writer.transport.abort()
        for _ in range(5):
            await asyncio.sleep(0.001)
        app.go()
        other.send(POST % (b"/", 1, b"a"))
        assert (await other.answer())[2] == b"a"
        while len(server.connections) > 1:
            await asyncio.sleep(0.001)
        assert server.held == 0

    run(work)


def test_a_client_that_never_reads_holds_one_answer_and_is_closed() -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        peer = await connect()
        body = b"x" * 1_000_000
        peer.writer.transport.pause_reading()
        for _ in range(20):
            peer.send(POST % (b"/", len(body), body))
        for _ in range(200):
            await asyncio.sleep(0.001)
        assert len(app.asked) < 20
        (connection,) = server.connections
        connection.check_time(server.now + 31)
        while server.connections:
            await asyncio.sleep(0.001)

    run(work)


def test_a_drain_loses_no_request_and_takes_no_new_connection() -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        busy, idle, half = await connect(), await connect(), await connect()
        busy.send(POST % (b"/later", 1, b"a"))
        half.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
        while not app.waiting or len(server.connections) < 3:
            await asyncio.sleep(0.001)
        drain = asyncio.ensure_future(server.drain(0.05, 20))
        await asyncio.sleep(0)
        late = await connect()  # before the grace is over
        late.send(POST % (b"/", 1, b"l"))
        status, fields, body = await late.answer()
        assert (status, fields[b"connection"], body) == (200, b"close", b"l")
        assert await idle.ended()
        with pytest.raises(OSError):
            await connect()
        assert not drain.done()
        app.go()
        half.send(b"b")
        for peer, wanted in ((busy, b"a"), (half, b"ab")):
            status, fields, body = await peer.answer()
            assert (status, fields[b"connection"], body) == (200, b"close", wanted)
        assert await drain

    run(work)


def test_a_drain_that_takes_too_long_says_that_it_cut_somebody_off() -> None:
    async def work(server: Server, app: Echo, connect: Any) -> None:
        peer = await connect()
        peer.send(POST % (b"/later", 1, b"a"))
        while not app.waiting:
            await asyncio.sleep(0.001)
        assert not await server.drain(0, 0.01)

    run(work)
