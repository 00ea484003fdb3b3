"""Open a store by its address."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tidegate.errors import ConfigError
from tidegate.project import read_project
from tidegate.store.base import Store
from tidegate.store.local import LocalStore
from tidegate.store.memory import MemoryStore

OBJECT_SCHEMES = ("s3", "gs", "az", "abfs")
_MEMORY: dict[str, MemoryStore] = {}


def open_store(uri: str | None = None) -> Store:
    """Open a folder, ``file:`` URI, ``s3://``, ``gs://`` or ``az://`` bucket, or ``memory:NAME``.

    Args:
        uri: the address; by default what the project says (``TIDEGATE_STORE``, pyproject.toml, else ``.tidegate``).

    Raises:
        ConfigError: an address of another kind.
        StoreError: it cannot be reached or made.
    """
    uri = uri or read_project().store_uri
    parts = urlsplit(uri)
    if parts.scheme in OBJECT_SCHEMES:
        from tidegate.store.object import ObjectStore

        return ObjectStore(uri)
    if parts.scheme == "memory":
        return _MEMORY.setdefault(parts.path, MemoryStore(parts.path))
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)))
    if parts.scheme:
        raise ConfigError(
            f"the store {uri!r} has the unknown scheme {parts.scheme!r}",
            allowed=f"A folder, file:, memory:, or one of {', '.join(f'{s}://' for s in OBJECT_SCHEMES)}.",
            hint="Set TIDEGATE_STORE or --store.",
        )
    return LocalStore(Path(uri))
