"""A store in a bucket: S3 (and MinIO), GCS or Azure, through obstore.

``put_new`` is a conditional put. The bucket may answer "already exists" to *our own* put that landed while its answer
was lost, so after "exists", a conflict or an unknown outcome the key is read back: equal bytes are ours, other bytes
are not, nothing means that the put is tried again, and an unreachable bucket is an error that says the outcome is
unknown. Before the first such put a bucket is made to prove that it honours the condition.

Addresses and credentials come from the environment by their usual names (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION …).
"""

from __future__ import annotations

import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from tidegate.errors import ConfigError, NotFound, StoreError
from tidegate.store.base import Entry, check_key

TRIES = 6
FIRST_PAUSE = 0.1
CHUNK = 8 << 20
_NO_BUCKET = re.compile("<Code>(NoSuchBucket|ContainerNotFound)</Code>")  # S3, MinIO and GCS; Azure
_MAKE = {"gs": "gcloud storage buckets create gs://{}", "s3": "aws s3 mb s3://{}"}
_MAKE_AZURE = "az storage container create --name {}"
T = TypeVar("T")


class ObjectStore:
    """A bucket, or a prefix in one, as a ``Store``.

    Args:
        uri: ``s3://bucket/prefix``, ``gs://…`` or ``az://…``.
        options: settings of obstore's store, over those of the environment.
        pause: waits between tries, in seconds; the seam for tests.

    Raises:
        ConfigError: obstore cannot make a client of the address and settings; from every verb: the bucket is not there
            (code ``store-no-bucket``).
    """

    def __init__(self, uri: str, *, pause: Callable[[float], None] = time.sleep, **options: Any) -> None:
        self._uri, self._pause, self._proved = uri.rstrip("/"), pause, False
        retry = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
        client = {"timeout": "300s", "connect_timeout": "5s", "allow_http": True}
        try:
            self._store = from_url(self._uri, retry_config=retry, client_options=client, **options)  # type: ignore[call-overload]
        except (BaseError, ValueError) as e:
            raise ConfigError(
                f"the store {uri!r} cannot be opened: {_first_line(e)}", hint="Set AWS_* (or GOOGLE_*, AZURE_*)."
            ) from e

    @property
    def uri(self) -> str:
        """The bucket's address."""
        return self._uri

    def get(self, key: str) -> bytes:
        """See ``Store``."""
        return self._try(f"read {key}", lambda: bytes(obstore.get(self._store, check_key(key)).bytes()))

    def chunks(self, key: str) -> Iterator[bytes]:
        """See ``Store``."""
        found = self._try(f"read {key}", lambda: obstore.get(self._store, check_key(key)).stream(CHUNK))
        while (chunk := self._try(f"read {key}", lambda: next(found, None))) is not None:
            yield bytes(chunk)

    def put(self, key: str, data: bytes) -> None:
        """See ``Store``."""
        self._try(f"write {key}", lambda: obstore.put(self._store, check_key(key), data))

    def put_new(self, key: str, data: bytes) -> bool:
        """See ``Store``."""
        self._prove_conditional_puts()
        return self._put_new(key, lambda: data, lambda: self.get(key) == data)

    def put_file_new(self, key: str, path: Path) -> bool:
        """See ``Store``; the file goes up in one conditional request."""
        self._prove_conditional_puts()
        return self._put_new(key, path.read_bytes, lambda: self.get(key) == path.read_bytes())

    def find(self, key: str) -> Entry | None:
        """See ``Store``."""
        try:
            return _entry(self._try(f"look for {key}", lambda: obstore.head(self._store, check_key(key))))
        except NotFound:
            return None

    def move(self, key: str, to: str) -> None:
        """See ``Store``; a copy, then a deletion."""
        self._try(f"move {key}", lambda: obstore.copy(self._store, check_key(key), check_key(to)))
        self.delete(key)

    def list(self, prefix: str, *, recursive: bool = True) -> Iterator[Entry]:
        """See ``Store``."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        if recursive:
            pages = self._try(f"list {folder}", lambda: list(obstore.list(self._store, folder or None)))
            yield from sorted(_entry(o) for page in pages for o in page)
        else:
            found = self._try(f"list {folder}", lambda: obstore.list_with_delimiter(self._store, folder or None))
            files = [_entry(o) for o in found["objects"]]
            yield from sorted([*files, *(Entry(p.rstrip("/") + "/", 0) for p in found["common_prefixes"])])

    def delete(self, key: str) -> None:
        """See ``Store``."""
        try:
            self._try(f"delete {key}", lambda: obstore.delete(self._store, check_key(key)))
        except NotFound:
            return

    def _prove_conditional_puts(self) -> None:
        """Prove, once a bucket, that a second creation of the same key is refused."""
        marker = "probe/conditional-put"
        if self._proved or self.find(marker):
            self._proved = True
            return
        key = f"probe/{secrets.token_hex(12)}"
        first = self._put_new(key, lambda: b"one", lambda: self.get(key) == b"one")
        second = self._put_new(key, lambda: b"two", lambda: self.get(key) == b"two")
        self.delete(key)
        if not first or second:
            raise StoreError(
                f"{self._uri} says 'created' for a key that is already there",
                allowed="A store that honours If-None-Match on put (S3, MinIO, GCS, Azure).",
                code="store-unconditional",
            )
        self.put(marker, b"conditional puts are honoured\n")
        self._proved = True

    def _put_new(self, key: str, data: Callable[[], bytes], is_ours: Callable[[], bool]) -> bool:
        last: Exception | None = None
        for attempt in range(TRIES):
            if attempt:
                self._pause(FIRST_PAUSE * 2**attempt * (0.5 + random.random()))
            try:
                obstore.put(self._store, check_key(key), data(), mode="create")
            except (PermissionDeniedError, UnauthenticatedError) as e:
                raise self._refused(f"write {key}", e) from e
            except (AlreadyExistsError, PreconditionError, BaseError, OSError) as e:
                self._check_bucket(e)
                last = e
                try:
                    return is_ours()
                except NotFound:
                    continue
                except StoreError:
                    raise self._unknown(key, e) from e
            return True
        raise self._unknown(key, last)

    def _try(self, what: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except (NotFoundError, FileNotFoundError) as e:
            self._check_bucket(e)
            raise NotFound(f"the store has no {what.partition(' ')[2]}") from None
        except (PermissionDeniedError, UnauthenticatedError) as e:
            raise self._refused(what, e) from e
        except (BaseError, OSError) as e:
            if "AccessDenied" in str(e):  # how a bulk deletion says so
                raise self._refused(what, e) from e
            self._check_bucket(e)
            raise StoreError(
                f"cannot {what} in {self._uri}: {_first_line(e)}",
                hint="Look at the endpoint and the network: tidegate doctor --store " + self._uri,
            ) from e

    def _check_bucket(self, error: Exception) -> None:
        """Raise ``ConfigError`` where the bucket itself is not there: no waiting makes it."""
        if _NO_BUCKET.search(str(error)):
            parts = urlsplit(self._uri)
            raise ConfigError(
                f"there is no bucket {parts.netloc!r} where the store {self._uri} was looked for",
                allowed="A bucket that is there: tidegate makes none.",
                hint=f"{_MAKE.get(parts.scheme, _MAKE_AZURE).format(parts.netloc)}, or compare AWS_ENDPOINT_URL",
                code="store-no-bucket",
            ) from error

    def _refused(self, what: str, error: Exception) -> StoreError:
        return StoreError(
            f"{self._uri} refuses to {what}: {_first_line(error)}",
            allowed="Credentials that may read, create, list and delete there.",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or GOOGLE_*, AZURE_*).",
            code="store-denied",
        )

    def _unknown(self, key: str, error: Exception | None) -> StoreError:
        return StoreError(
            f"writing {key} in {self._uri} has an unknown outcome: {_first_line(error)}",
            allowed="It may be there or not; nothing was acknowledged.",
            hint="Run the same command again when the store answers: it finds out.",
            code="store-outcome-unknown",
        )


def _entry(said: Any) -> Entry:
    return Entry(said["path"], said["size"], said["last_modified"].timestamp())


def _first_line(error: Exception | None) -> str:
    return str(error).splitlines()[0][:300] if str(error or "") else type(error).__name__
