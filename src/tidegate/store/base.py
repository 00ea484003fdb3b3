"""The store's protocol: a flat map of checked keys to bytes with an atomic create-if-absent.

Keys are '/'-separated segments of ``[A-Za-z0-9._-]``, none empty, ``.`` or ``..``, 512 characters in all. They are
never built from raw user text: names that come from users are checked or hashed first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tidegate.errors import UsageError

_KEY = re.compile(r"(?!.*(^|/)\.{1,2}(/|$))[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")


@dataclass(frozen=True, order=True)
class Entry:
    """One listed key with its size in bytes and when it was written, in seconds since the epoch.

    A folder (``recursive=False``) ends with '/', has size 0 and no time.
    """

    key: str
    size: int
    modified: float = field(default=0.0, compare=False)


class Store(Protocol):
    """What every durable byte of tidegate stands on."""

    @property
    def uri(self) -> str:
        """The address that opens this store again (``tidegate.store.open.open_store``)."""

    def get(self, key: str) -> bytes:
        """Return the bytes of ``key``; raise ``NotFound``."""

    def put(self, key: str, data: bytes) -> None:
        """Write ``key`` whole or not at all, replacing what was there. For caches and derived files only."""

    def put_new(self, key: str, data: bytes) -> bool:
        """Create ``key`` if absent, durable when it returns.

        Returns:
            True when the stored bytes are ours, False when other bytes stood there first.

        Raises:
            StoreError: the outcome is unknown.
        """

    def put_file_new(self, key: str, path: Path) -> bool:
        """As ``put_new`` with the content of a file, streamed."""

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of ``key`` in pieces, so that a large one passes through little memory; raise ``NotFound``."""

    def find(self, key: str) -> Entry | None:
        """Return the entry of ``key``, None where it is not there."""

    def list(self, prefix: str, *, recursive: bool = True) -> Iterator[Entry]:
        """Yield the entries below the folder ``prefix`` ('' for all) in key order; one level when not ``recursive``."""

    def move(self, key: str, to: str) -> None:
        """Give the bytes of ``key`` another key, replacing what was there; raise ``NotFound``."""

    def delete(self, key: str) -> None:
        """Remove ``key``; absent is fine."""


def check_key(key: str) -> str:
    """Return ``key`` if it is a legal key.

    Raises:
        UsageError: it is not.
    """
    if len(key) > 512 or not _KEY.fullmatch(key):
        raise UsageError(
            f"{key[:80]!r} is no store key",
            allowed="Segments of [A-Za-z0-9._-] joined by '/', 512 characters at most.",
            code="key-invalid",
        )
    return key
