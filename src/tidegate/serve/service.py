"""The data port of one worker: requests in, predictions, metadata and errors out, counted and logged.

What happens to a request for a prediction is bought by the microsecond; all that can be known of it by its head alone is
worked out once for each head (``plan``), all that is counted is counted by batch.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from tidegate.serve.access import Access, Found
from tidegate.serve.connection import Connection
from tidegate.serve.http import JSON, Head, HttpError
from tidegate.serve.keep import Keeper, Scored
from tidegate.serve.lines import Lines, Sample
from tidegate.serve.openapi import openapi, page
from tidegate.serve.protocol import metadata, server, welcome
from tidegate.serve.scoring import Model, Scoring, Waiting
from tidegate.serve.setup import Logging

FOLD_SECONDS = 0.2
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b"
_LAST = b"connection: close\r\n"
_BINARY = b"application/octet-stream"
_SCORES = ("infer", "predict")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a head asks for.

    Attributes:
        head: the head.
        found: its route.
        scores: whether it is for a prediction.
        rows: whether that is by rows.
        json_length: of a body with binary tensors.
        request_id: the client's own, or empty.
        echo: the field of the answer that says it again.
    """

    head: Head
    found: Found
    scores: bool
    rows: bool
    json_length: int | None
    request_id: str
    echo: bytes


class Service:
    """The application of a worker's data port.

    Args:
        model: what is served at first.
        access: who may ask.
        lines: the log.
        logging: what goes into it.
        keeper: the prediction log, if there is one.
        most_seconds: see ``Scoring``.
    """

    def __init__(
        self,
        model: Model,
        access: Access,
        lines: Lines,
        logging: Logging | None = None,
        keeper: Keeper | None = None,
        most_seconds: float = 1.0,
    ) -> None:
        self.model, self.ready = model, True
        self._access, self._lines, self._logging = access, lines, logging or Logging()
        self._keeper = keeper
        self._sample, self._kept = Sample(self._logging.share), Sample(self._logging.kept if keeper else 0)
        self.scoring = Scoring(self._done, self._failed, most_seconds)
        self._beside = (0, 0, 0)
        self._timer: asyncio.TimerHandle | None = None

    def plan(self, head: Head) -> Plan:
        """See ``Application``."""
        found = self._access.find(head)
        scores = found.route.name in _SCORES
        coding = head.fields.get(b"content-encoding", b"identity").lower()
        if scores and coding != b"identity":
            raise HttpError(415, "a body is read as it is, not compressed", b"accept-encoding: identity\r\n")
        if found.model and found.model != self.model.loaded.name:
            text = f"there is no model {found.model[:100]!r}; this server has {self.model.loaded.name!r}"
            raise HttpError(404, text)
        length = head.fields.get(b"inference-header-content-length")
        if length is not None and (not length.isdigit() or len(length) > 9):
            raise HttpError(400, "inference-header-content-length is no number")
        said = _request_id(head)
        echo = b"x-request-id: %b\r\n" % said.encode() if said else b""
        rows = found.route.name == "predict"
        return Plan(head, found, scores, rows, int(length) if length is not None else None, said, echo)

    def ask(self, connection: Connection, plan: Plan, body: bytes) -> None:
        """See ``Application``."""
        start = time.perf_counter()
        try:
            model = self.model
            if plan.found.version and plan.found.version != model.version:
                text = f"there is no version {plan.found.version[:100]!r}; this server has {model.version}"
                raise HttpError(404, text)
            if plan.scores:
                read = model.codec
                asked = read.predict(body) if plan.rows else read.infer(body, plan.json_length)
                self.scoring.add(Waiting(model, asked, (connection, plan), start))
                return
            self._say(connection, plan, model, start)
        except HttpError as e:
            self._error(connection, plan.head, e, start, plan.request_id)
        except Exception as e:  # a bug of ours must not end a connection without an answer
            text = f"{type(e).__name__} while the request was read"
            self._error(connection, plan.head, HttpError(500, text), start, plan.request_id)

    def refused(self, connection: Connection, head: Head | None, error: HttpError) -> None:
        """See ``Application``."""
        self._error(connection, head, error, time.perf_counter(), _request_id(head) if head else "")

    def use(self, model: Model) -> None:
        """Serve another version from the next request on; those that are on their way are answered by theirs."""
        self.model.counts.fold()
        self.model = model

    def fold(self) -> None:
        """Add up what was counted, now and again."""
        self.model.counts.fold()
        self._fold_beside()
        self._timer = asyncio.get_running_loop().call_later(FOLD_SECONDS, self.fold)

    def _fold_beside(self) -> None:
        kept, lost = (self._keeper.kept, self._keeper.dropped) if self._keeper else (0, 0)
        now = (self._lines.dropped, kept, lost)
        if now != self._beside:
            self.model.counts.beside(*(a - b for a, b in zip(now, self._beside, strict=True)))
            self._beside = now

    def close(self) -> None:
        """End what runs beside."""
        if self._timer:
            self._timer.cancel()
        self.model.counts.fold()
        self.scoring.close()

    def _done(self, batch: list[Waiting], columns: Any, label: Any, probabilities: Any) -> None:
        model = batch[0].model
        labels, shares, write = label.tolist(), probabilities.tolist(), model.codec.write
        at = 0
        for w in batch:
            end = at + w.asked.rows
            try:
                body, fields = write(w.asked, labels[at:end], shares[at:end])
            except Exception as e:  # a bug of ours must not leave the others of the batch without an answer
                self._failed([w], e)
                at = end
                continue
            connection, plan = w.caller
            kind = _BINARY if fields else JSON
            if connection.closing:
                fields += _LAST
            connection.answer(_OK % (kind, len(body), fields, plan.echo, body))
            at = end
        now = time.perf_counter()
        model.counts.batch(columns, label, probabilities, [w.start for w in batch], now)
        if model is not self.model:
            model.counts.fold()  # nobody does so again and again for a version that is served no more
        if now - batch[0].start >= self._logging.slow:
            self._log_slow(batch, now)
        for i in self._sample.take(len(batch)):
            self._log(batch[i], now, "sample")
        if self._keeper:
            for i in self._kept.take(len(batch)):
                self._keep(batch, i, columns, labels, shares)

    def _failed(self, batch: list[Waiting], error: BaseException) -> None:
        for w in batch:
            connection, plan = w.caller
            said = HttpError(500, f"{type(error).__name__} while scoring")
            self._error(connection, plan.head, said, w.start, plan.request_id, detail=str(error)[:500])

    def _say(self, connection: Connection, plan: Plan, model: Model, start: float) -> None:
        """Answer what is no prediction."""
        loaded, name, fields, kind, status = model.loaded, plan.found.route.name, plan.echo, JSON, 200
        if name in ("ready", "model-ready"):
            status = 200 if self.ready else 400  # what the protocol says for no
            body = msgspec.json.encode({"ready": self.ready} | ({"name": loaded.name} if name != "ready" else {}))
        elif name == "page":
            text, policy = page(loaded)
            body, kind = text.encode(), b"text/html; charset=utf-8"
            fields += b"content-security-policy: %b\r\nx-content-type-options: nosniff\r\n" % policy
        else:
            said = {"live": {"live": True}, "server": server()}.get(name)
            make = {"welcome": welcome, "model": metadata, "openapi": openapi}
            body = msgspec.json.encode(said if said is not None else make[name](loaded))
        connection.reply(status, body, kind=kind, fields=fields)
        model.counts.answered(status, time.perf_counter() - start)
        if self._sample.take(1):
            self._log_line("sample", plan.head, plan.request_id, status, start)

    def _error(
        self, connection: Connection, head: Head | None, error: HttpError, start: float, request_id: str, **more: Any
    ) -> None:
        said = request_id or _new_id()
        fields = error.fields + b"x-request-id: %b\r\n" % said.encode()
        body = msgspec.json.encode({"error": str(error)})
        connection.reply(error.status, body, fields=fields)
        self.model.counts.answered(error.status, time.perf_counter() - start)
        self._log_line("error", head, said, error.status, start, error=str(error), **more)

    def _log_slow(self, batch: list[Waiting], now: float) -> None:
        for w in batch:
            if now - w.start >= self._logging.slow:
                self._log(w, now, "slow")

    def _log(self, waiting: Waiting, now: float, why: str) -> None:
        _, plan = waiting.caller
        rows, model = waiting.asked.rows, waiting.model
        self._log_line(why, plan.head, plan.request_id, 200, waiting.start, end=now, model=model, rows=rows)

    def _log_line(
        self, why: str, head: Head | None, request_id: str, code: int, start: float, *,
        end: float | None = None, model: Model | None = None, **more: Any,
    ) -> None:  # fmt: skip
        version = (model or self.model).loaded.version
        write = self._lines.bounded if why == "error" else self._lines.write
        write(
            "request",
            why=why,
            id=request_id or _new_id(),
            method=head.method if head else None,
            path=head.path[:200] if head else None,
            code=code,
            ms=round(((end or time.perf_counter()) - start) * 1000, 3),
            model=version.model,
            version=version.version,
            digest=version.digest,
            **more,
        )

    def _keep(self, batch: list[Waiting], index: int, columns: Any, labels: list[Any], shares: list[Any]) -> None:
        at = sum(w.asked.rows for w in batch[:index])
        w = batch[index]
        part = slice(at, at + w.asked.rows)
        version, classes = w.model.loaded.version, w.model.loaded.scorer.signature.classes
        probabilities = {str(c): [p[i] for p in shares[part]] for i, c in enumerate(classes)}
        inputs = {name: values[part].tolist() for name, values in columns.items()}
        said = w.caller[1].request_id or w.asked.id or _new_id()
        scored = Scored(
            time.time(), said, version.model, version.version, version.digest, inputs, labels[part], probabilities
        )
        assert self._keeper is not None
        self._keeper.add(scored)


_IDS = random.Random(secrets.randbits(128))


def _new_id() -> str:
    """An id for a request that brought none; it tells requests apart and is no secret."""
    return f"{_IDS.getrandbits(64):016x}"


def _request_id(head: Head) -> str:
    said = head.fields.get(b"x-request-id", b"")
    return said.decode() if 0 < len(said) <= 128 and said.isascii() and b'"' not in said else ""
