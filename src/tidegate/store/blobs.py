"""Blobs: bytes known by their digest, hashed again whenever they are read.

A file's digest is the sha256 of its bytes and its key is ``blobs/sha256/<2 hex>/<62 hex>``. A directory's digest is
that of its manifest, sorted lines ``<sha256> <size> <relative path>``, which is a blob like any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tidegate.errors import Damaged, NotFound, StoreError, UsageError
from tidegate.store.base import Store

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LINE = re.compile(r"([0-9a-f]{64}) (\d+) (.+)")
LEASE_AFTER = 6 * 3600.0  # seconds; a quarter of the grace that garbage collection gives what is new
FILE, DIRECTORY = "file", "directory"


@dataclass(frozen=True)
class Content:
    """What bytes are: their digest, ``file`` or ``directory``, and their size in bytes."""

    digest: str
    kind: str
    size: int


@dataclass(frozen=True)
class _Member:
    sha256: str
    size: int
    path: str


def digest_path(path: Path) -> Content:
    """Return the digest of a file or directory without storing it.

    Raises:
        NotFound: nothing is there.
        UsageError: a link, device, socket or name that a manifest cannot hold.
    """
    if not path.is_dir():
        return Content(*_hash_file(path))
    manifest = _manifest(_members(path))
    return Content("sha256:" + hashlib.sha256(manifest).hexdigest(), DIRECTORY, _total(manifest))


def _hash_file(path: Path) -> tuple[str, str, int]:
    try:
        with path.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
            return f"sha256:{digest}", FILE, f.tell()
    except FileNotFoundError:
        raise NotFound(f"there is nothing at {path}") from None


def _members(folder: Path) -> list[_Member]:
    found = []
    for path in _walk(folder):
        digest, _, size = _hash_file(path)
        found.append(_Member(digest[7:], size, path.relative_to(folder).as_posix()))
    return found


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from _walk(Path(entry.path))
        elif stat.S_ISREG(mode) and "\n" not in entry.name:
            yield Path(entry.path)
        else:
            raise UsageError(
                f"{entry.path} is no regular file",
                allowed="An artifact folder holds regular files and folders; links and devices are refused.",
                code="artifact-irregular",
            )


def _manifest(members: list[_Member]) -> bytes:
    lines = sorted(f"{m.sha256} {m.size} {m.path}\n" for m in members)
    return "".join(lines).encode("utf-8", "surrogateescape")


def _total(manifest: bytes) -> int:
    return sum(m.size for m in _parse(manifest, ""))


def _parse(manifest: bytes, digest: str) -> Iterator[_Member]:
    for line in manifest.decode("utf-8", "surrogateescape").split("\n")[:-1]:
        found = _LINE.fullmatch(line)
        path = PurePosixPath(found[3]) if found else PurePosixPath("..")
        if not found or path.is_absolute() or ".." in path.parts:
            raise Damaged(f"{digest} is no directory manifest: {line[:80]!r}")
        yield _Member(found[1], int(found[2]), found[3])


class Blobs:
    """The content-addressed part of a store.

    Args:
        store: where they are.
        run: the run that uses them. What it finds there already, and is old enough to be collected, it leases first
            (see ``gc``).
    """

    def __init__(self, store: Store, run: str = "") -> None:
        self.store, self.run = store, run

    def uri(self, digest: str) -> str:
        """The address of a blob."""
        return f"{self.store.uri.rstrip('/')}/{blob_key(digest)}"

    def add(self, path: Path) -> Content:
        """Store a file or directory, durable when it returns; what is there already is checked, and mended.

        Raises:
            NotFound: nothing is at ``path``.
            UsageError: a directory with links or devices in it.
            StoreError: the store failed; nothing half-written is visible.
        """
        if not path.is_dir():
            content = digest_path(path)
            self._add_file(content.digest, path)
            return content
        members = _members(path)
        for m in members:
            self._add_file(f"sha256:{m.sha256}", path / m.path)
        return Content(self.add_bytes(_manifest(members)), DIRECTORY, sum(m.size for m in members))

    def add_bytes(self, data: bytes) -> str:
        """Store bytes; return their digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self._lease(digest)
        if not self.store.put_new(blob_key(digest), data):
            self._set_aside(digest)
            self.store.put_new(blob_key(digest), data)
        return digest

    def read_bytes(self, digest: str) -> bytes:
        """Return the bytes of a blob.

        Raises:
            NotFound: no such blob.
            Damaged: its bytes are not what they were.
        """
        data = b"".join(self._chunks(digest))
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            raise _damaged(digest)
        return data

    def read_file(self, digest: str, path: str) -> bytes:
        """Return the bytes of one file of a directory.

        Raises:
            NotFound: no such blob, or no such file in it.
            Damaged: bytes are not what they were.
        """
        for member in _parse(self.read_bytes(digest), digest):
            if member.path == path:
                return self.read_bytes(f"sha256:{member.sha256}")
        raise NotFound(f"{digest} has no file {path!r}")

    def fetch(self, digest: str, target: Path, *, kind: str = FILE) -> None:
        """Copy a blob to a new path, checking every byte; the target appears whole or not at all.

        Raises:
            NotFound: the blob, or a file of the directory, is not in the store.
            Damaged: bytes are not what they were.
        """
        temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}")
        try:
            if kind == FILE:
                self._fetch_file(digest, temporary)
            else:
                self._fetch_directory(digest, temporary)
            temporary.rename(target)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)

    def check(self, digest: str, kind: str = FILE) -> None:
        """Read a blob, and every file of a directory, to see that it is whole.

        Raises:
            NotFound: it is not there.
            Damaged: its bytes are not what they were.
        """
        self._lease(digest)
        if kind == FILE:
            return self._pass(digest, lambda _: None)
        for member in _parse(self.read_bytes(digest), digest):
            self._lease(f"sha256:{member.sha256}")
            self._pass(f"sha256:{member.sha256}", lambda _: None)
        return None

    def members(self, digest: str) -> list[str]:
        """Return the digests that a blob lists if it reads like the manifest of a directory, else none."""
        try:
            first = next(self._chunks(digest), b"").split(b"\n", 1)[0].decode("utf-8", "surrogateescape")
            listed = _LINE.fullmatch(first) and list(_parse(b"".join(self._chunks(digest)), digest))
        except (NotFound, Damaged):
            return []
        return [f"sha256:{m.sha256}" for m in listed or ()]

    def _lease(self, digest: str) -> None:
        found = self.store.find(blob_key(digest)) if self.run else None
        if found and time.time() - found.modified > LEASE_AFTER:
            self.store.put(f"leases/{digest[7:]}/{self.run}", b"")

    def _chunks(self, digest: str) -> Iterator[bytes]:
        key = blob_key(digest)
        for place in (key, condemned(key)):
            with contextlib.suppress(NotFound):
                yield from self.store.chunks(place)
                return
        yield from self.store.chunks(key)  # brought back between the two looks

    def _pass(self, digest: str, take: Callable[[bytes], object]) -> None:
        """Hand the bytes of a blob on in pieces; raise ``Damaged`` at the end when they were not its own."""
        found = hashlib.sha256()
        for chunk in self._chunks(digest):
            found.update(chunk)
            take(chunk)
        if found.hexdigest() != digest[7:]:
            raise _damaged(digest)

    def _add_file(self, digest: str, path: Path) -> None:
        self._lease(digest)
        if not self.store.put_file_new(blob_key(digest), path):
            self._set_aside(digest)
            self.store.put_file_new(blob_key(digest), path)

    def _set_aside(self, digest: str) -> None:
        """Move a damaged blob away: its name is its digest, so other bytes under it are damage, unless *ours* changed.

        Raises:
            StoreError: the stored bytes are whole: what was to be added changed while it was read.
        """
        try:
            self._pass(digest, lambda _: None)
        except NotFound:
            return  # another writer mends it
        except Damaged:
            self.store.put(f"damaged/{blob_key(digest)}", self.store.get(blob_key(digest)))
            self.store.delete(blob_key(digest))
        else:
            raise StoreError("a file changed while it was stored", hint="Run it again when nothing writes to it.")

    def _fetch_file(self, digest: str, target: Path) -> None:
        with target.open("xb") as out:
            self._pass(digest, out.write)

    def _fetch_directory(self, digest: str, target: Path) -> None:
        manifest = self.read_bytes(digest)
        target.mkdir()
        for member in _parse(manifest, digest):
            path = target / member.path
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fetch_file(f"sha256:{member.sha256}", path)


def condemned(key: str) -> str:
    """Where a blob waits while garbage collection makes sure that nobody wants it."""
    return f"condemned/{key}"


def blob_key(digest: str) -> str:
    """The key of a blob in its store.

    Raises:
        UsageError: the text is no digest.
    """
    if not _DIGEST.fullmatch(digest):
        raise UsageError(f"{digest[:80]!r} is no digest", allowed="sha256:<64 hex digits>.", code="digest-invalid")
    return f"blobs/sha256/{digest[7:9]}/{digest[9:]}"


def _damaged(digest: str) -> Damaged:
    return Damaged(
        f"the blob {digest} holds other bytes than were written",
        hint="Run the step that made it again (--no-cache); adding the same bytes mends the blob.",
    )
