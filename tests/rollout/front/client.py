"""A client of the front: many requests at a time, each answer by status and text."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Answers:
    """What came back: (status, text) and how often; the slowest in seconds."""

    seen: Counter[tuple[int, str]] = field(default_factory=Counter)
    slowest: float = 0.0

    @property
    def failed(self) -> int:
        return sum(n for (status, _), n in self.seen.items() if status != 200)

    def by(self, name: str) -> int:
        return sum(n for (_, text), n in self.seen.items() if text == name)


@dataclass(frozen=True)
class Asking:
    """How to ask: what, how many times, over how many connections; ``apart``: headers first, the body a moment later."""

    port: int
    count: int
    body: bytes = b"x" * 300
    connections: int = 8
    apart: bool = False
    path: str = "/predict"
    method: str = "POST"
    headers: str = ""
    pause: float = 0.0
    chunked: bool = False
    until: Callable[[], bool] | None = None


def ask(port: int, count: int, **how: object) -> Answers:
    return asyncio.run(_ask(Asking(port, count, **how)))  # type: ignore[arg-type]


async def _ask(asking: Asking) -> Answers:
    answers, left = Answers(), iter(range(asking.count))
    await asyncio.gather(*[_connection(asking, answers, left) for _ in range(asking.connections)])
    return answers


async def _connection(asking: Asking, answers: Answers, left: object) -> None:
    reader = writer = None
    for _ in left:  # type: ignore[attr-defined]
        if asking.until and asking.until():
            break
        if writer is None or writer.is_closing():
            reader, writer = await asyncio.open_connection("127.0.0.1", asking.port)
        begin = time.monotonic()
        status, text = await _one(asking, reader, writer)
        answers.seen[status, text] += 1
        answers.slowest = max(answers.slowest, time.monotonic() - begin)
        await asyncio.sleep(asking.pause)
        if status == 0:
            writer.close()
            writer = None
    if writer:
        writer.close()


async def _one(asking: Asking, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, str]:
    length = "transfer-encoding: chunked" if asking.chunked else f"content-length: {len(asking.body)}"
    head = f"{asking.method} {asking.path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{length}\r\n{asking.headers}\r\n".encode()
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(asking.body), asking.body) if asking.chunked else asking.body
    try:
        if asking.apart:
            writer.write(head)
            await writer.drain()
            await asyncio.sleep(0.001)
            writer.write(body)
        else:
            writer.write(head + body)
        await writer.drain()
        first = await reader.readline()
        fields = {}
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            fields[name.lower()] = value.strip()
        text = await reader.readexactly(int(fields.get(b"content-length", 0)))
        if fields.get(b"connection") == b"close":
            writer.close()
        return int(first.split()[1]), text.decode()
    except (OSError, ValueError, IndexError, asyncio.IncompleteReadError):
        return 0, "broken"
