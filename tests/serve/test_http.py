"""HTTP/1.1 heads and chunks: what two readers could understand differently is refused; what is accepted, h11 reads alike."""

from __future__ import annotations

import os
import random
from typing import Any

import h11
import pytest

from tidegate.serve.http import CHUNKED, Chunks, Head, HttpError, answer, read_head

LONG = os.environ.get("TIDEGATE_LONG") == "1"
GOOD = b"POST /predict HTTP/1.1\r\nHost: x:1\r\nContent-Length: 3"


def head(*lines: str) -> bytes:
    return "\r\n".join(lines).encode("latin-1")


def test_a_head_says_what_is_asked() -> None:
    found = read_head(head("POST /a%20b/?q=1 HTTP/1.1", "Host: h:80", "content-length:  12  ", "X: 1", "x: 2"))
    assert found == Head(
        "POST", "/a b/", "h:80", {b"host": b"h:80", b"content-length": b"12", b"x": b"1, 2"}, 12, True, False
    )
    assert read_head(head("GET http://other/x HTTP/1.1", "Host: h")).host == "other"
    assert read_head(head("GET / HTTP/1.1", "Host: h", "Transfer-Encoding: Chunked")).length == CHUNKED
    assert read_head(head("GET / HTTP/1.1", "Host: h", "Expect: 100-Continue")).expects


@pytest.mark.parametrize(
    ("lines", "keep"),
    [
        (["GET / HTTP/1.1", "Host: h"], True), (["GET / HTTP/1.1", "Host: h", "Connection: close"], False),
        (["GET / HTTP/1.1", "Host: h", "Connection: x, Close"], False), (["GET / HTTP/1.0"], False),
        (["GET / HTTP/1.0", "Connection: keep-alive"], True),
    ],
)  # fmt: skip
def test_a_connection_stays_as_its_head_says(lines: list[str], keep: bool) -> None:
    assert read_head(head(*lines)).keep is keep


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["GET / HTTP/2.0", "Host: h"], 505), (["GET / HTTP/1.2", "Host: h"], 505), (["GET /"], 400), ([""], 400),
        (["GET  / HTTP/1.1", "Host: h"], 400), (["GET / HTTP/1.1 ", "Host: h"], 400), (["G\x00T / HTTP/1.1", "Host: h"], 400),
        (["GET /\x7f HTTP/1.1", "Host: h"], 400), (["GET x HTTP/1.1", "Host: h"], 400), (["GET / HTTP/1.1"], 400),
        (["GET / HTTP/1.1", "Host: a", "host: b"], 400), (["GET / HTTP/1.1", "Host: h", " folded"], 400),
        (["GET / HTTP/1.1", "Host: h", "A : b"], 400), (["GET / HTTP/1.1", "Host: h", "A\x00: b"], 400),
        (["GET / HTTP/1.1", "Host: h", "A: b\x00"], 400), (["GET / HTTP/1.1", "Host: h", "A: b\nC: d"], 400),
        (["GET / HTTP/1.1", "Host: h", "A: b\rC: d"], 400), (["GET / HTTP/1.1", "Host: h", "nothing"], 400),
        (["POST / HTTP/1.1", "Host: h", "Content-Length: 1", "Content-Length: 1"], 400),
        (["POST / HTTP/1.1", "Host: h", "Content-Length: +1"], 400), (["POST / HTTP/1.1", "Host: h", "Content-Length: 1, 1"], 400),
        (["POST / HTTP/1.1", "Host: h", "Content-Length: 0x1"], 400), (["POST / HTTP/1.1", "Host: h", "Content-Length:"], 400),
        (["POST / HTTP/1.1", "Host: h", "Content-Length: \xb2"], 400),
        (["POST / HTTP/1.1", "Host: h", "Content-Length: 3", "Transfer-Encoding: chunked"], 400),
        (["POST / HTTP/1.0", "Host: h", "Transfer-Encoding: chunked"], 400),
        (["POST / HTTP/1.1", "Host: h", "Transfer-Encoding: gzip, chunked"], 501),
        (["POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"], 400),
        (["GET / HTTP/1.1", "Host: h", *(f"x{i}: 1" for i in range(101))], 431),
    ],
)  # fmt: skip
def test_what_two_readers_could_read_differently_is_refused(lines: list[str], status: int) -> None:
    with pytest.raises(HttpError) as e:
        read_head(head(*lines))
    assert e.value.status == status


def by_h11(raw: bytes) -> Any:
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(raw + b"\r\n\r\n")
    return reader.next_event()


def test_whatever_is_accepted_h11_reads_alike() -> None:
    pieces = [
        b"GET / HTTP/1.1", b"POST /a HTTP/1.0", b"Host: h", b"host:h", b"Content-Length: 3", b"content-length:  7 ",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: CHUNKED", b"A: b", b"A:", b"b : c", b" c", b"Connection: close",
        b"Expect: 100-continue", b"X: \xff", b"\x00: 1", b"Content-Length: 1, 1", b"Content-Length: -1", b"a: b\x0bc", b"\t", b"",
    ]  # fmt: skip
    rng, accepted = random.Random(1), 0
    for _ in range(200_000 if LONG else 5_000):
        lines = [rng.choice(pieces[:2]), *(rng.choice(pieces[2:]) for _ in range(rng.randint(0, 4)))]
        raw = bytearray(b"\r\n".join(lines))
        for _ in range(rng.randint(0, 2)):
            raw[rng.randrange(len(raw))] = rng.choice(b" \t\r\n:,;/\x00\x7f\xffaZ09")
        if b"\r\n\r\n" in raw:  # the head ends there
            continue
        try:
            found = read_head(bytes(raw))
        except HttpError:
            continue
        accepted += 1
        said = by_h11(bytes(raw))
        assert isinstance(said, h11.Request), raw
        fields = {k: v for k, v in said.headers if k in (b"content-length", b"transfer-encoding", b"host")}
        length = CHUNKED if b"transfer-encoding" in fields else int(fields.get(b"content-length", 0))
        assert (found.method.encode(), found.length, found.host.encode("latin-1")) == (
            said.method,
            length,
            fields.get(b"host", b""),
        ), raw
    assert accepted > 100


BODY = b"3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nTrailer: 1\r\n\r\n"


def test_chunks_are_put_together_however_they_arrive() -> None:
    for size in range(1, len(BODY) + 1):
        chunks, data, done = Chunks(10), bytearray(), False
        for at in range(0, len(BODY), size):
            assert not done
            data += BODY[at : at + size]
            done = chunks.feed(data)
        assert done
        assert bytes(chunks.body) == b"abcd"
    chunks, data = Chunks(10), bytearray(BODY + b"GET /")
    assert chunks.feed(data)
    assert data == b"GET /"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"x\r\n", 400), (b"-1\r\n", 400), (b"0x3\r\n", 400), (b"3\r\nabcd\r\n", 400), (b"\r\n", 400), (b" 3\r\n", 400),
        (b"ffffffffff\r\n", 400), (b"3" * 20_000, 400), (b"b\r\n", 413), (b"5\r\nabcde\r\n6\r\n", 413), (b"0\r\nno field\r\n", 400),
    ],
)  # fmt: skip
def test_what_is_no_chunk_or_too_much_is_refused(raw: bytes, status: int) -> None:
    with pytest.raises(HttpError) as e:
        Chunks(10).feed(bytearray(raw))
    assert e.value.status == status


def test_an_answer_is_what_h11_reads() -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer(503, b"{}", fields=b"retry-after: 1\r\n", keep=False))
    said = client.next_event()
    assert isinstance(said, h11.Response)
    assert (said.status_code, dict(said.headers)[b"retry-after"], dict(said.headers)[b"connection"]) == (
        503,
        b"1",
        b"close",
    )
    assert client.next_event().data == b"{}"
