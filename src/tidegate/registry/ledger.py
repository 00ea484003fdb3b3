"""The ledger: one hash-chained log per model, appended by create-if-absent on the head.

* Record ``n`` of a chain is ``ledger/<model>/<n, 12 digits>.json``: canonical JSON with the sha256 of record ``n - 1``
  (empty for record 0) and a random nonce, so that equal bytes mean *our* record.
* To append is to create record ``head + 1``: of two writers one wins, the other reads again and decides again.
* The head is found by probing forward, never by listing. The chain ``_root`` records which models exist.
* A record that is not what the next one says it was is damage, and loud; so is a missing one with one behind it. A tail
  that was cut off is seen only by whoever kept the head (an anchor); nothing inside the chain can show it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.errors import Damaged, NotFound, UsageError
from tidegate.registry.policy import NAME
from tidegate.store.base import Store

ROOT = "_root"
SCHEMA = 1


@dataclass(frozen=True)
class Head:
    """The last record of a chain: its number (-1 when empty) and its sha256."""

    seq: int = -1
    hash: str = ""


@dataclass(frozen=True)
class Record:
    """One entry of a chain."""

    model: str
    seq: int
    prev: str
    time: str
    nonce: str
    actor: str
    run: str
    kind: str
    body: Mapping[str, Any]
    hash: str = ""

    @property
    def head(self) -> Head:
        """This record as the head of its chain."""
        return Head(self.seq, self.hash)


class Ledger:
    """The chains of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def append(
        self, model: str, head: Head, kind: str, body: Mapping[str, Any], *, actor: str, run: str, time: str
    ) -> Record | None:
        """Write the record after ``head``; None when another writer was first.

        Raises:
            StoreError: the outcome is unknown; reading the chain again tells.
        """
        said = {"schema": SCHEMA, "model": model, "seq": head.seq + 1, "prev": head.hash, "time": time, "actor": actor}
        text = _canonical({**said, "run": run, "kind": kind, "body": body, "nonce": secrets.token_hex(16)})
        return _parse(text, model, head) if self.store.put_new(_key(model, head.seq + 1), text) else None

    def records(self, model: str, after: Head = Head()) -> Iterator[Record]:
        """Yield the records after ``after`` in order, each checked against the one before.

        Raises:
            Damaged: a record cannot be read, does not follow from the one before it, or is missing.
        """
        head = after
        while (text := self._next(model, head.seq + 1)) is not None:
            record = _parse(text, model, head)
            yield record
            head = record.head

    def check_end(self, model: str, head: Head) -> None:
        """Make sure by listing, which no reader relies on, that nothing stands beyond the end of a chain.

        Raises:
            Damaged: something does, so the records between were removed.
        """
        last = max((e.key for e in self.store.list(f"ledger/{model}")), default="")
        if last > _key(model, head.seq) and self._get(model, head.seq + 1) is None:
            raise _missing(model, head.seq + 1, last)

    def holds(self, model: str, head: Head) -> bool:
        """Whether record ``head.seq`` is there with that hash."""
        text = self._get(model, head.seq)
        return text is not None and hashlib.sha256(text).hexdigest() == head.hash

    def _next(self, model: str, seq: int) -> bytes | None:
        """The record ``seq``; None where the chain ends before it."""
        text = self._get(model, seq)
        if text is None and self.store.find(_key(model, seq + 1)):
            text = self._get(model, seq)  # written between the two looks, or removed
            if text is None:
                raise _missing(model, seq, _key(model, seq + 1))
        return text

    def _get(self, model: str, seq: int) -> bytes | None:
        try:
            return self.store.get(_key(model, seq))
        except NotFound:
            return None


def check_name(model: str) -> str:
    """Return a legal model name.

    Raises:
        UsageError: it is none.
    """
    if not NAME.fullmatch(model):
        alone = "A NAME alone, without a version: " if {":", "@"} & set(model) else ""
        raise UsageError(
            f"{model[:80]!r} is no model name",
            allowed=f"{alone}a-z, 0-9, '.', '_', '-', 63 characters at most.",
            code="name-invalid",
        )
    return model


def _key(model: str, seq: int) -> str:
    return f"ledger/{ROOT if model == ROOT else check_name(model)}/{seq:012d}.json"


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _parse(text: bytes, model: str, before: Head) -> Record:
    where = f"ledger record {model}/{before.seq + 1}"
    try:
        body = json.loads(text)
        if body.pop("schema") != SCHEMA:
            raise _damaged(f"{where} has another schema")
        record = Record(**body, hash=hashlib.sha256(text).hexdigest())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise _damaged(f"{where} cannot be read") from e
    if (record.model, record.seq) != (model, before.seq + 1):
        raise _damaged(f"{where} is the record {record.model}/{record.seq}")
    if record.prev != before.hash:
        raise _damaged(f"{where} does not follow from the record before it: one of them was changed")
    return record


def _missing(model: str, seq: int, behind: str) -> Damaged:
    return _damaged(f"ledger record {model}/{seq} is missing: {behind} is there")


def _damaged(found: str) -> Damaged:
    return Damaged(
        found,
        allowed="A chain in which every record holds the hash of the one before.",
        hint="Nothing is served or promoted from this chain until it is restored from a backup of the store.",
        code="ledger-damaged",
    )
