"""A store that waits for the one behind it: an outage of seconds ends no step that worked for hours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tidegate.errors import StoreError
from tidegate.store.base import Entry, Store

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0


@dataclass(frozen=True)
class PatientStore:
    """A ``Store`` whose every call is made again while the store behind it is unreachable.

    Every call may be repeated: writes are whole, and ``put_new`` finds out whether its bytes landed.

    Args:
        store: the store behind.
        seconds: how long a call is repeated.
        pause: waits, in seconds; the seam for tests.
        clock: seconds that only grow.
    """

    store: Store
    seconds: float = 120.0
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    @property
    def uri(self) -> str:
        """The address of the store behind."""
        return self.store.uri

    def get(self, key: str) -> bytes:
        """See ``Store``."""
        return self._patiently(lambda: self.store.get(key))

    def put(self, key: str, data: bytes) -> None:
        """See ``Store``."""
        self._patiently(lambda: self.store.put(key, data))

    def put_new(self, key: str, data: bytes) -> bool:
        """See ``Store``."""
        return self._patiently(lambda: self.store.put_new(key, data))

    def put_file_new(self, key: str, path: Path) -> bool:
        """See ``Store``."""
        return self._patiently(lambda: self.store.put_file_new(key, path))

    def chunks(self, key: str) -> Iterator[bytes]:
        """See ``Store``; a stream that breaks off goes on where it was."""
        given = 0
        stream: Iterator[bytes] | None = None

        def more() -> bytes | None:
            nonlocal stream
            try:
                stream = stream or self._from(key, given)
                return next(stream, None)
            except StoreError:
                stream = None
                raise

        while (chunk := self._patiently(more)) is not None:
            given += len(chunk)
            yield chunk

    def find(self, key: str) -> Entry | None:
        """See ``Store``."""
        return self._patiently(lambda: self.store.find(key))

    def list(self, prefix: str, *, recursive: bool = True) -> Iterator[Entry]:
        """See ``Store``."""
        return iter(self._patiently(lambda: [*self.store.list(prefix, recursive=recursive)]))

    def move(self, key: str, to: str) -> None:
        """See ``Store``."""
        self._patiently(lambda: self.store.move(key, to))

    def delete(self, key: str) -> None:
        """See ``Store``."""
        self._patiently(lambda: self.store.delete(key))

    def _from(self, key: str, start: int) -> Iterator[bytes]:
        """The rest of a stream."""
        chunks = self.store.chunks(key)
        while start > 0 and (chunk := next(chunks, None)) is not None:
            if len(chunk) > start:
                return _with(chunk[start:], chunks)
            start -= len(chunk)
        return chunks

    def _patiently(self, call: Callable[[], T]) -> T:
        until, pause = self.clock() + self.seconds, FIRST_PAUSE
        while True:
            try:
                return call()
            except StoreError as e:
                if _is_final(e) or self.clock() + pause > until:
                    raise
            self.pause(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _is_final(error: StoreError) -> bool:
    return error.code in ("store-denied", "store-unconditional")


def _with(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
