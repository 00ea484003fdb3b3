"""A store in memory: the whole protocol without a disk, for tests and for runs that should leave nothing behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tidegate.errors import NotFound
from tidegate.store.base import Entry, check_key


class MemoryStore:
    """A dictionary as a ``Store``; safe for threads of one process, gone with it."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._items: dict[str, bytes] = {}
        self._times: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """``memory:NAME``."""
        return f"memory:{self.name}"

    def get(self, key: str) -> bytes:
        """See ``Store``."""
        try:
            return self._items[check_key(key)]
        except KeyError:
            raise NotFound(f"the store has no {key}") from None

    def chunks(self, key: str) -> Iterator[bytes]:
        """See ``Store``."""
        yield self.get(key)

    def put(self, key: str, data: bytes) -> None:
        """See ``Store``."""
        with self._lock:
            self._keep(check_key(key), data)

    def _keep(self, key: str, data: bytes) -> None:
        self._items[key], self._times[key] = bytes(data), time.time()

    def put_new(self, key: str, data: bytes) -> bool:
        """See ``Store``."""
        with self._lock:
            if check_key(key) not in self._items:
                self._keep(key, data)
            return self._items[key] == data

    def put_file_new(self, key: str, path: Path) -> bool:
        """See ``Store``."""
        return self.put_new(key, path.read_bytes())

    def find(self, key: str) -> Entry | None:
        """See ``Store``."""
        with self._lock:
            return self._entry(key) if check_key(key) in self._items else None

    def _entry(self, key: str) -> Entry:
        return Entry(key, len(self._items[key]), self._times[key])

    def move(self, key: str, to: str) -> None:
        """See ``Store``."""
        data = self.get(key)
        with self._lock:
            self._keep(check_key(to), data)
            self._items.pop(key, None)

    def list(self, prefix: str, *, recursive: bool = True) -> Iterator[Entry]:
        """See ``Store``."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        with self._lock:
            found = sorted(self._entry(k) for k in self._items if k.startswith(folder))
        seen = set()
        for entry in found:
            name, slash, _ = entry.key[len(folder) :].partition("/")
            entry = entry if recursive or not slash else Entry(f"{folder}{name}/", 0)  # noqa: PLW2901
            if entry not in seen:
                seen.add(entry)
                yield entry

    def delete(self, key: str) -> None:
        """See ``Store``."""
        with self._lock:
            self._items.pop(check_key(key), None)
