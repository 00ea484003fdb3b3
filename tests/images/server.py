"""A registry in this process: the part of the distribution specification that we use, and every way it can go wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PATH = re.compile(r"/v2/(?P<repo>.+?)/(?P<kind>manifests|blobs/uploads|blobs|elsewhere)/(?P<name>[^/]*)")
LOGIN = "Basic " + base64.b64encode(b"user:secret").decode()
TOKEN = "Bearer token-for-"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class FakeRegistry:
    """What it holds and how it behaves.

    Attributes:
        faults: (method, part of the path, what): a status, "cut" (the connection), "lost" (done, but no answer),
            "flip" (other bytes), "short" (half of them); each happens once, in order.
        auth: "", "basic" or "bearer".
        subjects: whether it keeps track of referrers.
    """

    host: str = ""
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    faults: list[tuple[str, str, Any]] = field(default_factory=list)
    auth: str = ""
    subjects: bool = False
    mounts: bool = True
    redirect: str = ""
    location: str = ""
    asked: list[str] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)

    def put(self, repo: str, name: str, media_type: str, body: bytes) -> str:
        digest = sha256(body)
        for known in {name, digest}:
            self.manifests[repo, known] = (media_type, body)
        return digest

    def add(self, repo: str, data: bytes) -> str:
        self.blobs[repo, sha256(data)] = data
        return sha256(data)


@contextmanager
def serving(registry: FakeRegistry) -> Iterator[FakeRegistry]:
    class Handler(_Handler):
        state = registry

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: FakeRegistry
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def _any(self) -> None:
        self.lost = self.flip = self.short = False
        path = urlsplit(self.path).path
        self.state.asked.append(f"{self.command} {path}")
        self.state.seen.append((path, self.headers.get("Authorization") or ""))
        if path == "/token":
            return self._token()
        fault = next((f for f in self.state.faults if f[0] == self.command and f[1] in path), None)
        if fault:
            self.state.faults.remove(fault)
            if isinstance(fault[2], int):
                self._drain()
                return self._send(fault[2], b'{"errors":[{"code":"UNAVAILABLE","message":"not now"}]}')
            if fault[2] == "cut":
                self.rfile.read(min(10, int(self.headers.get("Content-Length") or 0)))
                return self._cut()
            self.lost, self.flip, self.short = (fault[2] == word for word in ("lost", "flip", "short"))
        if not self._allowed(path):
            return self._challenge()
        found = PATH.fullmatch(path)
        if not found:
            self._drain()
            return self._send(404, b"")
        kind = found["kind"].replace("/", "_")
        getattr(self, f"_{kind}")(found["repo"], found["name"])
        return None

    do_GET = do_HEAD = do_PUT = do_POST = _any  # noqa: N815

    def _allowed(self, path: str) -> bool:
        said = self.headers.get("Authorization") or ""
        if self.state.auth == "basic":
            return said == LOGIN
        return self.state.auth != "bearer" or said.startswith(TOKEN) or "elsewhere" in path

    def _challenge(self) -> None:
        self._drain()
        kind = (
            'Basic realm="it"'
            if self.state.auth == "basic"
            else f'Bearer realm="http://{self.state.host}/token",service="it",scope="repository:x:pull"'
        )
        self._send(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}', **{"WWW-Authenticate": kind})

    def _token(self) -> None:
        if self.headers.get("Authorization") != LOGIN:
            return self._send(401, b"{}")
        scope = parse_qs(urlsplit(self.path).query)["scope"][0]
        self._send(200, json.dumps({"token": TOKEN.removeprefix("Bearer ") + scope}).encode())
        return None

    def _manifests(self, repo: str, name: str) -> None:
        if self.command == "PUT":
            body = self._body()
            media_type = self.headers["Content-Type"]
            digest = self.state.put(repo, name, media_type, body)
            headers = {"Docker-Content-Digest": sha256(b"other") if self.flip else digest}
            if self.state.subjects and (subject := json.loads(body).get("subject")):
                headers["OCI-Subject"] = subject["digest"]
            return self._send(201, b"", **headers)
        if (repo, name) not in self.state.manifests:
            return self._send(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        media_type, body = self.state.manifests[repo, name]
        self._send(200, body, **{"Content-Type": media_type})
        return None

    def _blobs(self, repo: str, name: str) -> None:
        if (repo, name) not in self.state.blobs:
            return self._send(404, b"")
        if self.state.redirect and self.command == "GET":
            return self._send(307, b"", Location=f"{self.state.redirect}/v2/{repo}/elsewhere/{name}")
        self._send(200, self.state.blobs[repo, name])
        return None

    def _elsewhere(self, repo: str, name: str) -> None:
        self._send(200, self.state.blobs[repo, name])

    def _blobs_uploads(self, repo: str, name: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if self.command == "PUT":
            data = self._body()
            if sha256(data) != query["digest"][0]:
                return self._send(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
            self.state.blobs[repo, sha256(data)] = data
            return self._send(201, b"")
        if (
            "mount" in query
            and self.state.mounts
            and (data := self.state.blobs.get((query["from"][0], query["mount"][0])))
        ):
            self.state.blobs[repo, query["mount"][0]] = data
            return self._send(201, b"")
        self._send(202, b"", Location=self.state.location or f"/v2/{repo}/blobs/uploads/{uuid.uuid4()}?state=x")
        return None

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _drain(self) -> None:
        self._body()

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        if self.lost:
            return self._cut()
        if self.flip and self.command == "GET":
            body = b"x" + body[1:]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.short:
            self.wfile.write(body[: len(body) // 2])
            return self._cut()
        if self.command != "HEAD":
            self.wfile.write(body)
        return None
