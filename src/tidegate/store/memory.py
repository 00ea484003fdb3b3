"""A store in memory: the whole protocol without a disk, for tests and for runs that should leave nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from tidegate.errors import NotFound
from tidegate.store.base import Entry, check_key


class MemoryStore:
    """A dictionary as a ``Store``; safe for threads of one process, gone with it."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._items: dict[str, bytes] = {}
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
            self._items[check_key(key)] = bytes(data)

    def put_new(self, key: str, data: bytes) -> bool:
        """See ``Store``."""
        with self._lock:
            return self._items.setdefault(check_key(key), bytes(data)) == data

    def put_file_new(self, key: str, path: Path) -> bool:
        """See ``Store``."""
        return self.put_new(key, path.read_bytes())

    def exists(self, key: str) -> bool:
        """See ``Store``."""
        return check_key(key) in self._items

    def list(self, prefix: str, *, recursive: bool = True) -> Iterator[Entry]:
        """See ``Store``."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        with self._lock:
            found = sorted((k, len(v)) for k, v in self._items.items() if k.startswith(folder))
        seen = set()
        for key, size in found:
            name, slash, _ = key[len(folder) :].partition("/")
            entry = Entry(key, size) if recursive or not slash else Entry(f"{folder}{name}/", 0)
            if entry not in seen:
                seen.add(entry)
                yield entry

    def delete(self, key: str) -> None:
        """See ``Store``."""
        with self._lock:
            self._items.pop(check_key(key), None)
