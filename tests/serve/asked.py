"""Ask a service without sockets: heads and bodies in, answers out, through the code that a worker runs."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from typing import Any

from tidegate.serve.access import DATA, Access
from tidegate.serve.counts import Counts
from tidegate.serve.http import HttpError, answer, read_head
from tidegate.serve.lines import Lines
from tidegate.serve.load import Loaded
from tidegate.serve.ruler import plain_ruler
from tidegate.serve.scoring import Model
from tidegate.serve.service import Service
from tidegate.serve.setup import Logging


@dataclass
class Answer:
    """An answer, taken apart."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def parse(payload: bytes) -> Answer:
    head, _, body = payload.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    assert int(fields["content-length"]) == len(body)
    return Answer(int(first.split()[1]), fields, body)


class Client:
    """What a service sees of a connection."""

    def __init__(self, closing: bool = False) -> None:
        self.answered: list[Answer] = []
        self.closing = closing

    def answer(self, payload: bytes) -> None:
        self.answered.append(parse(payload))

    def reply(self, status: int, body: bytes, **parts: Any) -> None:
        self.answer(answer(status, body, keep=not self.closing, **parts))


def model(loaded: Loaded) -> Model:
    counts = Counts(plain_ruler(loaded.scorer.signature))
    os.close(counts.fd)
    return Model(loaded, counts)


def service(loaded: Loaded, lines: Lines | None = None, **options: Any) -> Service:
    return Service(model(loaded), Access(DATA), lines or quiet(), options.pop("logging", Logging(0)), **options)


def quiet() -> Lines:
    lines = Lines.__new__(Lines)  # no thread, no file
    lines.dropped = 0
    lines.write = lines.bounded = lambda *_, **__: None  # type: ignore[method-assign]
    return lines


def request(method: str, path: str, body: bytes = b"", **fields: str) -> tuple[bytes, bytes]:
    said = {"host": "x", "content-length": str(len(body)), **{k.replace("_", "-"): v for k, v in fields.items()}}
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in said.items())]
    return "\r\n".join(lines).encode(), body


async def ask_all(app: Service, requests: list[tuple[bytes, bytes]]) -> list[Answer]:
    """Ask all of them in one tick of the loop."""
    clients = []
    for raw, body in requests:
        client = Client()
        clients.append(client)
        head = None
        try:
            head = read_head(raw)
            plan = app.plan(head)
        except HttpError as e:
            app.refused(client, head, e)
        else:
            app.ask(client, plan, body)
    for _ in range(2000):
        if all(c.answered for c in clients):
            break
        await asyncio.sleep(0.001)
    app.scoring.close()
    return [c.answered[0] for c in clients]


def ask(loaded: Loaded, method: str, path: str, body: Any = None, **fields: str) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""

    async def one() -> Answer:
        return (await ask_all(service(loaded), [request(method, path, raw, **fields)]))[0]

    return asyncio.run(one())
