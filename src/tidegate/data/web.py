"""One file behind an address of the web: ``https://…`` or ``http://…``.

A pin is what the server says of the file's version, ``#etag=…``, else ``#modified=…&size=…``; where it says neither the
file is read: ``#sha256=…``. A server has no older versions, so a pin lasts as long as the file does: keep a copy.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from tidegate.data.base import moved, no_pin, no_reference
from tidegate.errors import NotFound, Trouble
from tidegate.store.blobs import FILE, Content

SECONDS = 30.0
_PIECE = 1 << 20
_REFERENCE = re.compile(r"https?://[^\s/#]+[^\s#]*")
_PIN = re.compile(
    rf"(?P<url>{_REFERENCE.pattern})#(?P<version>etag=[^\s&]+|modified=[^\s&]+&size=\d*|sha256=[0-9a-f]{{64}})"
)
_NO_HEAD = (400, 403, 405, 501)


@dataclass(frozen=True)
class WebPin:
    """An address with what its server said of the version there."""

    url: str
    version: str
    complete: bool = False

    def __str__(self) -> str:
        """The pin as text."""
        return f"{self.url}#{self.version}"

    @property
    def identity(self) -> str:
        """The pin: a server's word means something at its address only."""
        return str(self)

    @property
    def source(self) -> str:
        """The address."""
        return self.url

    @property
    def revision(self) -> str:
        """None: a server has no past."""
        return ""

    def absent(self) -> None:
        """See ``Pin``: what was found is there."""

    def fetch(self, target: Path) -> Content:
        """See ``Pin``."""
        with target.open("xb") as out, _ask(self.url, "GET") as answer:
            said = _said(answer.headers)
            content = _read(answer, out.write)
        if self.version not in (said, f"sha256={content.digest[7:]}"):
            raise moved(self.url)
        return content


def check(reference: str) -> None:
    """See ``Adapter``."""
    if not _REFERENCE.fullmatch(reference.partition("#")[0]):
        raise no_reference(reference, "address of the web", "https://HOST/PATH, without spaces.")


def resolve(reference: str) -> WebPin:
    """See ``Adapter``."""
    url = reference.partition("#")[0]
    with _look(url) as answer:
        if said := _said(answer.headers):
            return WebPin(url, said)
    with _ask(url, "GET") as answer:
        return WebPin(url, f"sha256={_read(answer, lambda _: None).digest[7:]}")


def parse_pin(text: str) -> WebPin:
    """See ``Adapter``."""
    found = _PIN.fullmatch(text)
    if not found:
        raise no_pin(text, "URL#etag=…, URL#modified=…&size=… or URL#sha256=….")
    return WebPin(found["url"], found["version"])


def _said(headers: Mapping[str, str]) -> str:
    """What a server says of a version, empty where it says nothing."""
    if etag := headers.get("ETag"):
        return f"etag={quote(etag, safe='')}"
    at = headers.get("Last-Modified")
    return f"modified={quote(at, safe='')}&size={headers.get('Content-Length') or ''}" if at else ""


@contextmanager
def _look(url: str) -> Iterator[Any]:
    """Ask for the headers only, or, of a server that does not answer that, for the file, which is not read."""
    try:
        with _ask(url, "HEAD") as answer:
            yield answer
            return
    except Trouble as e:
        if not isinstance(e.__cause__, urllib.error.HTTPError) or e.__cause__.code not in _NO_HEAD:
            raise
    with _ask(url, "GET") as answer:
        yield answer


@contextmanager
def _ask(url: str, method: str) -> Iterator[Any]:
    plain = {"Accept-Encoding": "identity", "User-Agent": "tidegate"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method, headers=plain), timeout=SECONDS) as a:
            yield a
    except urllib.error.HTTPError as e:
        if e.code in (404, 410):
            raise NotFound(f"there is nothing at {url}") from e
        raise _unreachable(url, f"the server answers {e.code} {e.reason}") from e
    except (urllib.error.URLError, http.client.HTTPException, OSError) as e:
        raise _unreachable(url, str(getattr(e, "reason", "") or e)) from e


def _unreachable(url: str, why: str) -> Trouble:
    return Trouble(f"{url} cannot be read: {why}", allowed="An address that answers.", code="data-unreachable")


def _read(answer: IO[bytes], take: Callable[[bytes], object]) -> Content:
    found, size = hashlib.sha256(), 0
    while piece := answer.read(_PIECE):
        found.update(piece)
        size += len(piece)
        take(piece)
    if left := getattr(answer, "length", 0):  # read() does not tell of a connection that ended early
        raise http.client.IncompleteRead(b"", left)
    return Content(f"sha256:{found.hexdigest()}", FILE, size)
