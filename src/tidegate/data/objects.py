"""Objects in a bucket that is not ours to write: what is at an address, in which version, and a copy of it.

A pin is ``s3://bucket/key#inventory=sha256:<64 hex>`` (``gs://``, ``az://``), the hash of the keys, sizes and ETags there;
with ``&version=ID`` where it is one object of a bucket that keeps versions, which is found when others have followed.

Addresses and credentials come from the environment by their usual names (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID …).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError, PreconditionError
from obstore.store import from_url

from tidegate.data.base import MARKER, moved, no_pin, no_reference
from tidegate.errors import NotFound, StoreError
from tidegate.store.blobs import Content, digest_path

T = TypeVar("T")
_REFERENCE = re.compile(r"(?:s3|gs|az|abfs)://[^\s/#?]+(?:/[^\s#?]*)?")
_PIN = re.compile(
    rf"(?P<uri>{_REFERENCE.pattern})#inventory=(?P<inventory>sha256:[0-9a-f]{{64}})(?:&version=(?P<id>\S+))?"
)


@dataclass(frozen=True)
class Found:
    """One object.

    Attributes:
        key: its key.
        size: in bytes.
        version: what changes when its bytes do (version, ETag, else its time).
        etag: its ETag, empty where the bucket gives none.
        id: of its version, empty where the bucket keeps none or does not say.
        modified: when it was written, in seconds since the epoch of the bucket's clock.
    """

    key: str
    size: int
    version: str
    etag: str = ""
    id: str = ""
    modified: float = 0.0


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
        alone = self._head(store, self._prefix) if self._prefix else None  # a bucket answers to "" as an object does
        if found := [alone] if alone else self._below(store):
            return found
        raise NotFound(f"there is nothing at {self.uri}")

    def _head(self, store: Any, key: str) -> Found | None:
        try:
            return _found(self._try(lambda: obstore.head(store, key)))
        except NotFound:
            return None

    def _below(self, store: Any) -> list[Found]:
        pages = self._try(lambda: list(obstore.list(store, f"{self._prefix}/" if self._prefix else None)))
        found = sorted((_found(o) for page in pages for o in page), key=lambda o: o.key)
        return [o for o in found if o.size or self._head(store, o.key)]  # consoles mark folders by empty KEY/ objects

    def find_version(self, version: str) -> list[Found]:
        """Find the object in an older version; its bytes are not read.

        Raises:
            NotFound: that version is not there.
            StoreError: the bucket cannot be read.
        """
        store = self._store()
        got = self._try(lambda: obstore.get(store, self._prefix, options={"version": version}))
        return [replace(_found(got.meta), id=version)]

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
            self._copy(store, each, target)
        return folder / name

    def _copy(self, store: Any, each: Found, target: Path) -> None:
        """Copy one object in the version that was found; another is never taken for it."""
        wanted: Any = {"version": each.id} if each.id else {"if_match": each.etag} if each.etag else {}
        with target.open("xb") as out:
            stream = self._try(lambda: obstore.get(store, each.key, options=wanted).stream(8 << 20))
            while (chunk := self._try(lambda: next(stream, None))) is not None:
                out.write(bytes(chunk))

    def _try(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (NotFoundError, FileNotFoundError):
            raise NotFound(f"there is nothing at {self.uri}") from None
        except PreconditionError:
            raise moved(self.uri) from None
        except (BaseError, OSError, ValueError) as e:
            raise StoreError(
                f"{self.uri} cannot be read: {str(e).splitlines()[0][:300]}",
                allowed="An object or folder that the credentials in the environment may list and read.",
                hint="Set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (or GOOGLE_*, AZURE_*).",
            ) from e


def _found(said: Any) -> Found:
    etag, version_id, at = said.get("e_tag") or "", said.get("version") or "", said["last_modified"]
    return Found(said["path"], said["size"], version_id or etag or str(at), etag, version_id, at.timestamp())


@dataclass(frozen=True)
class ObjectsPin:
    """An address in a bucket, with the hash of what was listed there."""

    uri: str
    inventory: str
    revision: str = ""
    complete: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        """The pin as text."""
        return self.identity + (f"&version={quote(self.revision, safe='')}" if self.revision else "")

    @property
    def source(self) -> str:
        """The address."""
        return self.uri

    @property
    def identity(self) -> str:
        """Address and inventory: the same bytes put again with the same ETags are the same data."""
        return f"{self.uri}#inventory={self.inventory}"

    def absent(self) -> None:
        """See ``Pin``: what was found is there."""

    def fetch(self, target: Path) -> Content:
        """See ``Pin``."""
        objects = Objects(self.uri)
        found = objects.find_version(self.revision) if self.revision else objects.find()
        if _inventory(found) != self.inventory:
            raise moved(self.uri)
        objects.fetch(found, target.parent).rename(target)
        return digest_path(target)


def check(reference: str) -> None:
    """See ``Adapter``."""
    if not _REFERENCE.fullmatch(reference.partition("#")[0]):
        raise no_reference(reference, "object or prefix", "s3://BUCKET/KEY, gs://… or az://….")


def resolve(reference: str) -> ObjectsPin:
    """See ``Adapter``."""
    uri = reference.partition("#")[0]
    found = Objects(uri).find()
    alone = found[0].id if len(found) == 1 else ""
    return ObjectsPin(uri, _inventory(found), alone, _is_complete(found))


def parse_pin(text: str) -> ObjectsPin:
    """See ``Adapter``."""
    found = _PIN.fullmatch(text)
    if not found:
        raise no_pin(text, "s3://BUCKET/KEY#inventory=sha256:DIGEST, with &version=ID where it is one version.")
    return ObjectsPin(found["uri"], found["inventory"], unquote(found["id"] or ""))


def _inventory(found: list[Found]) -> str:
    lines = [[o.key, o.size, o.etag or o.version] for o in found]
    return f"sha256:{hashlib.sha256(json.dumps(lines).encode()).hexdigest()}"


def _is_complete(found: list[Found]) -> bool:
    """Whether a marker stands among objects of which none is younger: data that grows again is not whole."""
    at = max((o.modified for o in found if o.key.rpartition("/")[2] == MARKER), default=-1.0)
    return at >= max(o.modified for o in found)
