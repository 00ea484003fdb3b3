"""What the credentials of a store Secret may do in the bucket, tried out without leaving anything behind."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tidegate.errors import StoreError
from tidegate.store.object import ObjectStore


@dataclass(frozen=True)
class Tried:
    """One thing tried: whether it was allowed (None: it could not be tried), and what was seen."""

    allowed: bool | None
    found: str


class Access(Protocol):
    """Tries with one Secret's credentials. Each raises ``StoreError`` when the store does not answer."""

    def works(self) -> Tried:
        """Create (once only), read and delete below ``probe/``."""

    def intrudes(self) -> Tried:
        """Create a record of ours in the ledger, which steps must not be able to; it is removed where they are."""

    def appends(self) -> Tried:
        """Create a record of the ledger that is there already, which changes nothing."""

    def deletes(self) -> Tried:
        """Delete a record of the ledger that was never there."""


class StoreAccess:
    """``Access`` to a bucket.

    Args:
        values: the Secret's: ``TIDEGATE_STORE`` and ``AWS_*`` (or ``GOOGLE_*``, ``AZURE_*``).
        endpoint: where the store answers from here, when that is not where it answers in the cluster.

    Raises:
        ConfigError: no store can be made of them.
    """

    def __init__(self, values: Mapping[str, str], endpoint: str = "") -> None:
        options: dict[str, Any] = {
            k.lower(): v for k, v in values.items() if k.startswith(("AWS_", "GOOGLE_", "AZURE_"))
        }
        if endpoint:
            options["aws_endpoint_url"] = endpoint
        self._store = ObjectStore(values["TIDEGATE_STORE"], **options)

    def works(self) -> Tried:
        """See ``Access``."""
        key = f"probe/{_ours()}"

        def go() -> str:
            self._store.put_new(key, b"tidegate doctor")
            self._store.get(key)
            self._store.delete(key)
            return "creates once, reads, deletes"

        return _tried(go)

    def intrudes(self) -> Tried:
        """See ``Access``."""
        key = f"ledger/{_ours()}"

        def go() -> str:
            self._store.put_new(key, b"tidegate doctor")
            left = _tried(lambda: self._store.delete(key)).allowed is False
            return f"created {key}" + (", which cannot be removed again" if left else "")

        return _tried(go)

    def appends(self) -> Tried:
        """See ``Access``."""

        def go() -> str:
            there = next(self._store.list("ledger"), None)
            if there is None:
                return ""
            self._store.put_new(there.key, b"tidegate doctor")
            return f"asked to create {there.key}, and was told that it is there"

        tried = _tried(go)
        return tried if tried.found != "done" else Tried(None, "the ledger is empty: its first record will tell")

    def deletes(self) -> Tried:
        """See ``Access``."""
        return _tried(lambda: self._store.delete(f"ledger/{_ours()}"))


def _ours() -> str:
    return f"_doctor-{secrets.token_hex(8)}"


def _tried(go: Callable[[], str | None]) -> Tried:
    try:
        return Tried(True, go() or "done")
    except StoreError as e:
        if e.code != "store-denied":
            raise
        return Tried(False, e.found)
