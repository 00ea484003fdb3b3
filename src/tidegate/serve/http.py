"""HTTP/1.1 as a server of small requests needs it, pure: what a head says, where a body ends, how an answer looks.

RFC 9110 and 9112. Strict wherever two readers of the same bytes could differ, so that nothing can be smuggled past a
proxy in front: lines end in CRLF, no folded fields, one Host, one Content-Length of digits only, never both it and
Transfer-Encoding, no coding but ``chunked``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote

MAX_HEAD = 16 << 10
MAX_FIELDS = 100
CHUNKED = -1
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST = re.compile(rb"(%b) ([!-~]{1,8192}) HTTP/1\.([01])" % _TOKEN)
_FIELD = re.compile(rb"(%b):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)" % _TOKEN)
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)([/?].*)?", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_ONCE = {b"host", b"content-length", b"transfer-encoding", b"authorization", b"inference-header-content-length"}


class HttpError(Exception):
    """A request that is answered with an error.

    Args:
        status: the code.
        text: what is wrong, for ``{"error": …}``.
        fields: more fields of the answer, each ``name: value\\r\\n``.
    """

    def __init__(self, status: int, text: str, fields: bytes = b"") -> None:
        super().__init__(text)
        self.status, self.fields = status, fields


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of a request says.

    Attributes:
        method: as it was sent.
        path: without the query, percent-decoded.
        host: of the Host field or the target, with its port; empty where HTTP/1.0 had none.
        fields: by name in lower case; several of one name are joined by commas.
        length: bytes of the body, or ``CHUNKED``.
        keep: whether the connection stays.
        expects: whether the client waits for ``100 Continue``.
    """

    method: str
    path: str
    host: str
    fields: Mapping[bytes, bytes]
    length: int
    keep: bool
    expects: bool


def read_head(data: bytes) -> Head:
    """Read a head.

    Args:
        data: from the request line to the last field, without the empty line.

    Raises:
        HttpError: it breaks a rule (400), is of another HTTP (505), has too many fields (431) or a coding that nobody
            here reads (501).
    """
    first, *lines = data.split(b"\r\n")
    found = _REQUEST.fullmatch(first)
    if not found:
        other = re.fullmatch(rb"[A-Z]+ [!-~]+ HTTP/(?!1\.[01])\d(\.\d)?", first)
        raise HttpError(505, "HTTP/1.1 is spoken here") if other else HttpError(400, "this is no HTTP request")
    method, target, minor = found.groups()
    if len(lines) > MAX_FIELDS:
        raise HttpError(431, f"there are {len(lines)} header fields; {MAX_FIELDS} are read")
    fields = _fields(lines)
    host, path = _target(target, fields, minor)
    length = _length(fields, minor)
    connection = {t.strip() for t in fields.get(b"connection", b"").lower().split(b",")}
    keep = b"close" not in connection and (minor == b"1" or b"keep-alive" in connection)
    expects = minor == b"1" and fields.get(b"expect", b"").lower() == b"100-continue"
    return Head(method.decode(), path, host, fields, length, keep, expects)


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if not found:
            raise HttpError(400, "a header field cannot be read")
        name, value = found[1].lower(), found[2].rstrip(b" \t")
        if name in fields:
            if name in _ONCE:
                raise HttpError(400, f"the header field {name.decode()} stands twice")
            value = fields[name] + b", " + value
        fields[name] = value
    return fields


def _target(target: bytes, fields: Mapping[bytes, bytes], minor: bytes) -> tuple[str, str]:
    host = fields.get(b"host", b"")
    if minor == b"1" and b"host" not in fields:
        raise HttpError(400, "the header field Host is missing")
    if absolute := _ABSOLUTE.fullmatch(target):
        host, target = absolute[1], absolute[2] or b"/"
    if not target.startswith(b"/") and target != b"*":
        raise HttpError(400, "the request's target is no path")
    path = target.partition(b"?")[0].partition(b"#")[0].decode("ascii")
    return host.decode("latin-1"), unquote(path, errors="replace") if "%" in path else path


def _length(fields: Mapping[bytes, bytes], minor: bytes) -> int:
    coding, said = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if coding is not None:
        if said is not None or minor == b"0":
            raise HttpError(400, "a body has either Content-Length or, in HTTP/1.1, Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise HttpError(501, "the only transfer coding that is read here is chunked")
        return CHUNKED
    if said is None:
        return 0
    if not said.isdigit() or len(said) > 18:
        raise HttpError(400, "Content-Length is no number")
    return int(said)


class Chunks:
    """A body in chunks, put together.

    Args:
        limit: the most bytes it may have.
    """

    def __init__(self, limit: int) -> None:
        self.body = bytearray()
        self._limit, self._left, self._trailer = limit, 0, False

    def feed(self, data: bytearray) -> bool:
        """Take what belongs to the body out of ``data``; say whether it is complete.

        Raises:
            HttpError: it is too large (413), or no chunks (400).
        """
        while data:
            if self._left:
                if not self._take(data):
                    return False
                continue
            end = data.find(b"\r\n")
            if end < 0:
                if len(data) > MAX_HEAD:
                    raise HttpError(400, "a chunk cannot be read")
                return False
            line = bytes(data[:end])
            del data[: end + 2]
            if self._trailer:
                if not line:
                    return True
                _fields([line])  # checked, and not used
            else:
                self._begin(line)
        return False

    def _begin(self, line: bytes) -> None:
        found = _CHUNK.fullmatch(line)
        if not found:
            raise HttpError(400, "a chunk cannot be read")
        size = int(found[1], 16)
        if len(self.body) + size > self._limit:
            raise too_large(self._limit)
        self._trailer, self._left = size == 0, size + 2 if size else 0

    def _take(self, data: bytearray) -> bool:
        if len(data) < self._left:  # the bytes of the chunk, not its CRLF, which stays until it is whole
            ready = min(len(data), self._left - 2)
            self.body += data[:ready]
            self._left -= ready
            del data[:ready]
            return False
        size = self._left - 2
        if data[size : size + 2] != b"\r\n":
            raise HttpError(400, "a chunk is longer than it says")
        self.body += data[:size]
        del data[: size + 2]
        self._left = 0
        return True


def too_large(limit: int) -> HttpError:
    """The refusal of a body that is larger than ``limit`` bytes."""
    return HttpError(413, f"the body is larger than {limit} bytes")


_REASONS = {s.value: s.phrase.encode() for s in HTTPStatus}
JSON = b"application/json"


def answer(status: int, body: bytes, *, kind: bytes = JSON, fields: bytes = b"", keep: bool = True) -> bytes:
    """An answer as it is sent."""
    last = b"" if keep else b"connection: close\r\n"
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b" % (
        status,
        _REASONS.get(status, b""),
        kind,
        len(body),
        fields,
        last,
        body,
    )
