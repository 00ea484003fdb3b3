"""Objects in a bucket that is not ours to write: what is at an address, in which version, and a copy of it.

Addresses and credentials come from the environment by their usual names (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID …).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import from_url

from tidegate.errors import NotFound, StoreError

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """One object: its key, size in bytes, and what changes when its bytes do (version, ETag, else its time)."""

    key: str
    size: int
    version: str


@dataclass(frozen=True)
class Objects:
    """The object, or the folder of objects, at ``s3://bucket/key``, ``gs://…`` or ``az://…``."""

    uri: str

    @property
    def _prefix(self) -> str:
        return unquote(urlsplit(self.uri).path).strip("/")

    def _store(self) -> Any:
        parts = urlsplit(self.uri)
        retry = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
        client = {"timeout": "300s", "connect_timeout": "5s", "allow_http": True}
        return self._try(
            lambda: from_url(f"{parts.scheme}://{parts.netloc}", retry_config=retry, client_options=client)  # type: ignore[call-overload]
        )

    def find(self) -> list[Found]:
        """List what is there: the one object of that key, else all below it.

        Raises:
            NotFound: nothing is there.
            StoreError: the bucket cannot be read.
        """
        store = self._store()
        try:
            return [_found(self._try(lambda: obstore.head(store, self._prefix)))]
        except NotFound:
            pages = self._try(lambda: list(obstore.list(store, f"{self._prefix}/" if self._prefix else None)))
        if found := sorted((_found(o) for page in pages for o in page), key=lambda o: o.key):
            return found
        raise NotFound(f"there is nothing at {self.uri}")

    def fetch(self, found: list[Found], folder: Path) -> Path:
        """Copy objects below a new folder; return the file, or the folder that holds them all."""
        store = self._store()
        name = self._prefix.rpartition("/")[2] or "objects"
        for each in found:
            relative = each.key.removeprefix(self._prefix).strip("/")
            target = folder / name / relative
            if not target.resolve().is_relative_to(folder.resolve()):
                raise StoreError(f"the object {each.key!r} would leave its folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            self._copy(store, each.key, target)
        return folder / name

    def _copy(self, store: Any, key: str, target: Path) -> None:
        with target.open("xb") as out:
            stream = self._try(lambda: obstore.get(store, key).stream(8 << 20))
            while (chunk := self._try(lambda: next(stream, None))) is not None:
                out.write(bytes(chunk))

    def _try(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (NotFoundError, FileNotFoundError):
            raise NotFound(f"there is nothing at {self.uri}") from None
        except (BaseError, OSError, ValueError) as e:
            raise StoreError(
                f"{self.uri} cannot be read: {str(e).splitlines()[0][:300]}",
                allowed="An object or folder that the credentials in the environment may list and read.",
                hint="Set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (or GOOGLE_*, AZURE_*).",
            ) from e


def _found(said: Any) -> Found:
    version = said.get("version") or said.get("e_tag") or str(said["last_modified"])
    return Found(said["path"], said["size"], version)
