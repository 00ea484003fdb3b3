"""Steady live traffic for the demo: transactions asked one by one, and a count of what came of them. Not for benchmarks.

``traffic.py URL RATE SUMMARY`` asks until SIGTERM, then writes the summary as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))
from components.generate_transactions.transactions import generate

CONNECTIONS = 8
LARGE = 250_000.0  # an amount that no evaluation has seen; one request in a hundred has it


def bodies(count: int = 500) -> list[bytes]:
    """Requests, each a row of the model's columns."""
    frame = generate(20_000, seed=99).drop("time", "customer", "merchant", "date", "is_fraud").sample(count, seed=0)
    rows = frame.to_dicts()
    for row in rows[::100]:
        row["amount"] = LARGE
    return [json.dumps([row], default=float).encode() for row in rows]


class Traffic:
    """Requests at a steady rate over a few connections that are kept.

    Args:
        url: where the front answers.
        rate: requests a second.
    """

    def __init__(self, url: str, rate: float) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.pause = parts.hostname or "127.0.0.1", parts.port or 80, CONNECTIONS / rate
        self.requests = [self._request(body) for body in bodies()]
        self.answers: Counter[str] = Counter()
        self.slowest = 0.0
        self.over = asyncio.Event()

    def _request(self, body: bytes) -> bytes:
        head = f"POST /predict HTTP/1.1\r\nhost: {self.host}:{self.port}\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def run(self) -> None:
        """Ask until it is over."""
        await asyncio.gather(*(self._connection(i) for i in range(CONNECTIONS)))

    async def _connection(self, number: int) -> None:
        chosen = random.Random(number)
        while not self.over.is_set():
            try:
                reader, writer = await asyncio.open_connection(self.host, self.port)
                await self._ask(reader, writer, chosen)
                writer.close()
            except (OSError, asyncio.IncompleteReadError, ValueError) as e:
                self.answers[type(e).__name__] += 1

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chosen: random.Random) -> None:
        due = time.monotonic() + chosen.random() * self.pause
        while not self.over.is_set():
            await asyncio.sleep(due - time.monotonic())
            due = max(due + self.pause, time.monotonic() - 1)  # what was missed is made up for, up to a second
            began = time.monotonic()
            writer.write(chosen.choice(self.requests))
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            await reader.readexactly(int(fields[b"content-length"]))
            self.answers[head[9:12].decode()] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            if fields.get(b"connection") == b"close":
                return

    def summary(self) -> dict[str, object]:
        """What came of it."""
        failed = sum(n for code, n in self.answers.items() if code != "200")
        return {"requests": self.answers.total(), "failed": failed, "answers": dict(self.answers),
                "slowest_ms": round(1000 * self.slowest)}  # fmt: skip


async def main(url: str, rate: str, summary: str) -> None:
    traffic = Traffic(url, float(rate))
    for kind in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(kind, traffic.over.set)
    await traffic.run()
    Path(summary).write_text(json.dumps(traffic.summary()))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
