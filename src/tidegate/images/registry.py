"""A registry, asked in the words of the OCI distribution specification.

Every byte that arrives is hashed against the digest that was asked for. What a registry or the network breaks off is
repeated, from the start, a few times; an upload whose answer was lost is looked for before it is repeated. Plain http is
spoken to this machine only, and no login is sent anywhere but to the registry and the token server it names by https.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, Any, TypeVar

from tidegate.errors import Damaged, NotFound, ServerError, TidegateError
from tidegate.images.credentials import basic
from tidegate.images.reference import HUB

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES = (OCI_INDEX, DOCKER_INDEX)
_ACCEPT = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX))
_SMALL = 8 * 2**20  # of what is read into memory: manifests, configs, answers
_PIECE = 2**20
_AGAIN = (0.2, 1.0, 3.0)  # seconds before each repetition
_BUSY = {429, 500, 502, 503, 504}
_LOCAL = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?")
T = TypeVar("T")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Descriptor:
    """One blob or manifest by digest: what a manifest says of its parts."""

    media_type: str
    digest: str
    size: int

    def as_json(self) -> dict[str, Any]:
        """The descriptor as it stands in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Manifest:
    """A manifest's bytes, with their digest."""

    body: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """``sha256:…`` of the bytes."""
        return digest_of(self.body)

    def parsed(self) -> dict[str, Any]:
        """The manifest as data."""
        found = json.loads(self.body)
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
        return found


class _Lost(Exception):
    """The registry is busy or broke off: worth repeating."""


_BROKEN = (_Lost, http.client.HTTPException, ConnectionError, TimeoutError)


@dataclass
class Registry:
    """A client of one registry.

    Attributes:
        host: its name and port.
        wait: sleeps between repetitions.
    """

    host: str
    wait: Callable[[float], None] = time.sleep
    _auth: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where its interface stands; plain http on this machine only."""
        host = f"registry-1.{HUB}" if self.host == HUB else self.host
        return f"{'http' if _LOCAL.fullmatch(host) else 'https'}://{host}/v2/"

    def manifest(self, repository: str, name: str) -> Manifest:
        """Read a manifest by tag or digest.

        Raises:
            NotFound: there is none of that name.
            Damaged: its bytes do not have the digest.
            ServerError: the registry refuses, is unreachable, or answers what it should not.
        """
        headers, body = self._again(lambda: self._get(repository, f"manifests/{name}"))
        made = Manifest(body, (headers.get("Content-Type") or "").partition(";")[0])
        if name.startswith("sha256:"):
            _check(f"{self.host}/{repository}@{name}", made.digest, name)
        return made

    def read(self, repository: str, digest: str) -> bytes:
        """Read a small blob.

        Raises:
            NotFound, Damaged, ServerError: as ``manifest``.
        """
        _, body = self._again(lambda: self._get(repository, f"blobs/{digest}"))
        _check(f"{self.host}/{repository}@{digest}", digest_of(body), digest)
        return body

    def _get(self, repository: str, path: str) -> tuple[Message, bytes]:
        with self._ask("GET", repository, path, {"Accept": _ACCEPT}) as answer:
            body = answer.read(_SMALL)
            if answer.length:  # read() does not tell of a connection that ended early
                raise http.client.IncompleteRead(body, answer.length)
            return answer.headers, body

    def fetch(self, repository: str, digest: str, target: Path) -> None:
        """Write a blob into a file that has only whole, checked content under its name.

        Raises:
            NotFound, Damaged, ServerError: as ``manifest``.
        """
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as folder:
            part = Path(folder) / "blob"
            self._again(lambda: self._fetch(repository, digest, part), Damaged)
            part.replace(target)

    def _fetch(self, repository: str, digest: str, part: Path) -> None:
        with self._ask("GET", repository, f"blobs/{digest}") as answer, part.open("wb") as out:
            shutil.copyfileobj(answer, out, _PIECE)
        _check(f"{self.host}/{repository}@{digest}", file_digest(part), digest)

    def has(self, repository: str, digest: str) -> bool:
        """Whether the repository holds the blob."""
        return self._again(lambda: self._has(repository, digest))

    def _has(self, repository: str, digest: str) -> bool:
        try:
            with self._ask("HEAD", repository, f"blobs/{digest}", push=True):
                return True
        except NotFound:
            return False

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Take a blob over from another repository of this registry; False where the registry does not."""
        query = urllib.parse.urlencode({"mount": digest, "from": source})
        try:
            with self._ask("POST", repository, f"blobs/uploads/?{query}", {"Content-Length": "0"}, push=True) as answer:
                return bool(answer.status == 201)
        except (TidegateError, *_BROKEN):
            return False

    def upload(self, repository: str, digest: str, content: Path | bytes) -> None:
        """Store a blob, unless it is there.

        Raises:
            Damaged: the registry received other bytes.
            ServerError: it refuses or stays unreachable.
        """
        self._again(lambda: self._upload(repository, digest, content))

    def _upload(self, repository: str, digest: str, content: Path | bytes) -> None:
        if self._has(repository, digest):
            return
        with self._ask("POST", repository, "blobs/uploads/", {"Content-Length": "0"}, push=True) as answer:
            place = urllib.parse.urljoin(self.address, answer.headers.get("Location") or "")
        place += ("&" if "?" in place else "?") + urllib.parse.urlencode({"digest": digest})
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        try:
            with _opened(content) as data, self._once("PUT", place, headers, data, _scope(repository, push=True)):
                return
        except NotFound as e:
            raise _Lost(f"it forgot the upload that it had begun: {e}") from e

    def push(self, repository: str, name: str, made: Manifest) -> bool:
        """Store a manifest under a tag or its digest; say whether the registry keeps track of its ``subject``.

        Raises:
            Damaged: the registry stored it under another digest.
            ServerError: it refuses or stays unreachable.
        """
        return self._again(lambda: self._push(repository, name, made))

    def _push(self, repository: str, name: str, made: Manifest) -> bool:
        headers = {"Content-Type": made.media_type, "Content-Length": str(len(made.body))}
        with self._ask("PUT", repository, f"manifests/{name}", headers, made.body, push=True) as answer:
            if said := answer.headers.get("Docker-Content-Digest"):
                _check(f"{self.host}/{repository}:{name}", said, made.digest)
            return "OCI-Subject" in answer.headers

    def _again(self, act: Callable[[], T], *also: type[Exception]) -> T:
        """Do something, and again when the registry or the network breaks it off."""
        for pause in _AGAIN:
            try:
                return act()
            except (*_BROKEN, *also):  # type: ignore[misc]  # a tuple of exceptions
                self.wait(pause)
        try:
            return act()
        except _BROKEN as e:
            raise ServerError(
                f"registry {self.host} cannot be used: {e}",
                allowed=f"It was asked {len(_AGAIN) + 1} times.",
                hint="Look whether it is up, and reached from here.",
                code="registry-unreachable",
            ) from e

    @contextmanager
    def _ask(
        self,
        method: str,
        repository: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        *,
        push: bool = False,
    ) -> Iterator[http.client.HTTPResponse]:
        url, scope = f"{self.address}{repository}/{path}", _scope(repository, push)
        with self._once(method, url, headers or {}, data, scope) as answer:
            yield answer

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], data: Any, scope: str
    ) -> http.client.HTTPResponse:
        """Ask once; a challenge is answered, and what was asked is asked again with the answer."""
        for attempt in (0, 1):
            try:
                return self._send(method, url, headers, data, self._auth.get(scope, ""))
            except urllib.error.HTTPError as e:
                with e:
                    if e.code != 401 or attempt or not self._answer(e.headers.get_all("WWW-Authenticate") or [], scope):
                        raise _refusal(self.host, method, e) from e
                if hasattr(data, "seek"):
                    data.seek(0)
            except (OSError, http.client.HTTPException) as e:
                raise _Lost(str(e) or type(e).__name__) from e
        raise AssertionError("unreachable")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], data: Any, auth: str
    ) -> http.client.HTTPResponse:
        self._check_address(url)
        request = urllib.request.Request(url, data=data, headers=dict(headers), method=method)
        # a registry that keeps its blobs elsewhere redirects there: the login stays behind
        if auth and urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(self.address).netloc:
            request.add_unredirected_header("Authorization", auth)
        answer: http.client.HTTPResponse = _opener(url).open(request, timeout=120)
        return answer

    def _check_address(self, url: str) -> None:
        """Go only where the registry itself may stand: nowhere in plain text but on this machine, and into no file."""
        allowed = ("https", "http") if self.address.startswith("http://") else ("https",)
        if urllib.parse.urlsplit(url).scheme not in allowed:
            raise ServerError(
                f"registry {self.host} sends us to {url[:200]!r}", allowed="https.", code="registry-refused"
            )

    def _answer(self, challenges: list[str], scope: str) -> bool:
        for said in challenges:
            kind, parts = said.partition(" ")[0].lower(), dict(_CHALLENGE.findall(said))
            if kind == "bearer" and "realm" in parts:
                self._auth[scope] = "Bearer " + self._token(parts, parts.get("scope") or scope)
                return True
            if kind == "basic" and (login := basic(self.host)):
                self._auth[scope] = login
                return True
        return False

    def _token(self, challenge: Mapping[str, str], scope: str) -> str:
        realm = challenge["realm"]
        self._check_address(realm)
        query = {"scope": scope} | ({"service": challenge["service"]} if "service" in challenge else {})
        request = urllib.request.Request(f"{realm}{'&' if '?' in realm else '?'}{urllib.parse.urlencode(query)}")
        if login := basic(self.host):
            request.add_unredirected_header("Authorization", login)
        try:
            with _opener(realm).open(request, timeout=60) as answer:
                body = json.loads(answer.read(_SMALL))
            return str(body.get("token") or body["access_token"])
        except urllib.error.HTTPError as e:
            with e:
                raise _refusal(self.host, "GET", e) from e
        except (ValueError, KeyError, AttributeError) as e:
            raise ServerError(f"the token server of {self.host} gives no token", code="registry-denied") from e


def digest_of(data: bytes) -> str:
    """``sha256:…`` of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """``sha256:…`` of a file."""
    with path.open("rb") as f:
        return "sha256:" + hashlib.file_digest(f, "sha256").hexdigest()


def _scope(repository: str, push: bool) -> str:
    return f"repository:{repository}:{'pull,push' if push else 'pull'}"


@contextmanager
def _opened(content: Path | bytes) -> Iterator[IO[bytes] | bytes]:
    if isinstance(content, bytes):
        yield content
    else:
        with content.open("rb") as f:
            yield f


def _opener(url: str) -> urllib.request.OpenerDirector:
    # this machine is reached directly, whatever proxy the rest goes through
    direct = [urllib.request.ProxyHandler({})] if url.startswith("http://") else []
    return urllib.request.build_opener(*direct)


def _check(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise Damaged(
            f"{what} has the digest {found[:80]}", allowed=f"The bytes of {expected}.", code="digest-mismatch"
        )


def _refusal(host: str, method: str, error: urllib.error.HTTPError) -> Exception:
    words = _words(error)
    where = urllib.parse.urlsplit(error.url or "").path
    if error.code in _BUSY:
        return _Lost(f"{error.code} {words}")
    if error.code == 404:
        return NotFound(f"{host} has no {where.removeprefix('/v2/')}", hint="Look at the name.", code="image-missing")
    if error.code in (401, 403):
        return ServerError(
            f"registry {host} denies {method} {where}: {words}", hint=f"docker login {host}", code="registry-denied"
        )
    if "DIGEST_INVALID" in words:
        return Damaged(f"registry {host} received other bytes than were sent: {words}", code="digest-mismatch")
    return ServerError(f"registry {host} answers {error.code} to {method} {where}: {words}", code="registry-refused")


def _words(error: urllib.error.HTTPError) -> str:
    try:
        said = json.loads(error.read(_SMALL))["errors"][0]
        return f"{said['code']}: {said.get('message', '')}"[:300]
    except (ValueError, KeyError, IndexError, TypeError, OSError, http.client.HTTPException):
        return str(error.reason)[:300]
