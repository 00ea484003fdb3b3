"""The cache: what a step with a given key made, believed only after every byte of it was checked.

An entry is ``cache/<2 hex>/<62 hex>``: JSON with its own checksum. An entry that is damaged, or whose blobs are
missing or damaged, is a miss; it is moved to ``damaged/`` and the reason is reported.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.errors import Damaged, NotFound
from tidegate.store.base import Store
from tidegate.store.blobs import FILE, Blobs

SCHEMA = 1
REFRESH_SECONDS = 86_400


@dataclass(frozen=True)
class Hit:
    """A checked entry: the outputs, and the run and step that made them."""

    outputs: Mapping[str, Any]
    run: str
    step: str


@dataclass(frozen=True)
class Miss:
    """Nothing usable; ``damaged`` says that something was there and was set aside, ``reason`` why."""

    damaged: bool = False
    reason: str = ""


class Cache:
    """The cache of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def put(self, key: str, outputs: Mapping[str, Any], *, run: str, step: str) -> None:
        """Keep what a step made.

        Args:
            key: 64 hex digits.
            outputs: JSON; its ``artifacts`` list names a ``digest`` and ``kind`` each, which ``lookup`` checks.
            run: the run's id.
            step: the step's path.
        """
        said = {"schema": SCHEMA, "key": key, "outputs": outputs, "run": run, "step": step}
        body = json.loads(json.dumps(said))  # as it will be read, so that the checksum is of that
        text = json.dumps({**body, "checksum": _checksum(body)}, sort_keys=True)
        self.store.put(_key(key), text.encode())

    def lookup(self, key: str, blobs: Blobs) -> Hit | Miss:
        """Return the entry of a key with every blob checked, or why there is none."""
        try:
            data = self.store.get(_key(key))
        except NotFound:
            return Miss()
        try:
            body = _read(data, key)
            for artifact in body["outputs"].get("artifacts", ()):
                if artifact.get("digest"):
                    blobs.check(artifact["digest"], artifact.get("kind", FILE))
        except (Damaged, NotFound) as e:
            self._set_aside(key, data)
            return Miss(True, e.found)
        self._refresh(key, data)
        return Hit(body["outputs"], body["run"], body["step"])

    def _refresh(self, key: str, data: bytes) -> None:
        """Write an entry again that is in use, so that garbage collection sees it is."""
        found = self.store.find(_key(key))
        if found and time.time() - found.modified > REFRESH_SECONDS:
            self.store.put(_key(key), data)

    def _set_aside(self, key: str, data: bytes) -> None:
        self.store.put(f"damaged/{_key(key)}", data)
        self.store.delete(_key(key))


def _key(key: str) -> str:
    return f"cache/{key[:2]}/{key[2:]}"


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read(data: bytes, key: str) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(data)
        checksum = body.pop("checksum")
    except (ValueError, KeyError, AttributeError, TypeError) as e:
        raise Damaged(f"the cache entry {key[:16]}… cannot be read") from e
    if checksum != _checksum(body) or body.get("key") != key or body.get("schema") != SCHEMA:
        raise Damaged(f"the cache entry {key[:16]}… is not what was written")
    return body
