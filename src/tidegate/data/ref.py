"""A dataset reference: text that names data, which may move, and the pin and digest that it is resolved to.

| reference | pin |
|---|---|
| ``dvc+REPOSITORY@REVISION:PATH`` | ``dvc+REPOSITORY@COMMIT:PATH#md5=…`` |
| ``s3://BUCKET/KEY``, ``gs://…``, ``az://…`` | ``…#inventory=sha256:…``, with ``&version=…`` where the bucket keeps versions |
| ``file:PATH`` | ``file:PATH#digest=sha256:…`` |
| ``https://…``, ``http://…`` | ``…#etag=…``, ``#modified=…&size=…`` or ``#sha256=…`` |
| ``model:NAME@ALIAS``, of a store's registry | ``model:NAME:VERSION#digest=sha256:…`` |
| ``drift:NAME``, what a monitor saw last | ``drift:NAME:NUMBER#digest=sha256:…`` |

A moving reference is resolved once; the pin names those bytes for ever. The *digest*, sha256 over the bytes, is the same
wherever they are; it is learned when they are first brought and checked whenever they are brought again.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from tidegate.data import drift, dvc, folder, objects, web
from tidegate.data.base import Adapter, Pin, arriving
from tidegate.data.digests import Digests
from tidegate.data.model import START, Models
from tidegate.errors import NotFound, UsageError
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs, Content, digest_path

ADAPTERS: dict[str, Adapter] = {
    "dvc+": dvc, "file:": folder, "https://": web, "http://": web,
    **{f"{scheme}://": objects for scheme in ("s3", "gs", "az", "abfs")},
}  # fmt: skip
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")


def parse(reference: str, store: Store | None = None) -> Adapter:
    """Return the adapter of a reference, checked without looking at what it names.

    Args:
        reference: what is to be read.
        store: whose models it may name; the project's by default.

    Raises:
        UsageError: it is none (code ``reference-invalid``), or holds a password (code ``reference-secret``).
    """
    found = next((a for start, a in _adapters(store).items() if reference.startswith(start)), None)
    if not found:
        raise UsageError(
            f"{reference[:200]!r} is no dataset reference",
            allowed="dvc+REPOSITORY@REVISION:PATH, s3://…, gs://…, az://…, file:PATH, https://…, model:NAME@ALIAS, drift:NAME.",
            hint="file:PATH for a file or folder of this machine",
            code="reference-invalid",
        )
    if _PASSWORD.search(reference):
        raise UsageError(
            "the dataset reference holds a password",
            allowed="An address without one: references are written into runs and versions.",
            hint="Leave credentials to git's credential helper, to ~/.netrc or to the environment.",
            code="reference-secret",
        )
    found.check(reference)
    return found


def _adapters(store: Store | None) -> dict[str, Adapter]:
    return {**ADAPTERS, START: Models(store), drift.START: drift.Drift(store)}


def resolve(reference: str, store: Store | None = None) -> Pin:
    """Return what a reference names at this moment; a pin names what it always does, so that nothing is looked at.

    Raises:
        UsageError: it is no reference.
        NotFound: nothing is there.
        Trouble: it cannot be reached.
    """
    adapter = parse(reference, store)
    with suppress(UsageError):
        return adapter.parse_pin(reference)
    return adapter.resolve(reference)


def parse_pin(text: str, store: Store | None = None) -> Pin:
    """Read a pin; raise ``UsageError`` where it is none, or still a moving reference."""
    return parse(text, store).parse_pin(text)


def fetch(pin: str, target: Path, store: Store | None = None) -> Content:
    """Bring pinned bytes to a new path, whole or not at all, checked.

    Args:
        pin: what to bring.
        target: where to.
        store: remembers the digest from the first time on, and has a copy where one was kept.

    Raises:
        NotFound: they are not there any more, and no copy was kept.
        Damaged: they are not what they were.
        Trouble: they cannot be reached.
    """
    parsed, digests = parse_pin(pin, store), Digests(store) if store else None
    known = digests.find(pin) if digests else None
    with arriving(target) as got:
        try:
            content = parsed.fetch(got)
        except NotFound:
            if not (store and known and _kept(store, known, got)):
                raise
            return known
        if digests:
            digests.remember(pin, content)
    return content


def _kept(store: Store, known: Content, got: Path) -> bool:
    shutil.rmtree(got, ignore_errors=True) if got.is_dir() else got.unlink(missing_ok=True)
    with suppress(NotFound):
        Blobs(store).fetch(known.digest, got, kind=known.kind)
        return True
    return False


def keep(pin: str, store: Store) -> Content:
    """Copy pinned bytes into the store, where they stay when their source moves on; raise as ``fetch``."""
    with tempfile.TemporaryDirectory(prefix="tidegate-data-") as scratch:
        fetch(pin, Path(scratch, "data"), store)
        return Blobs(store).add(Path(scratch, "data"))


def learn(pin: str, store: Store) -> Content:
    """Return the digest of pinned bytes, which are read where nobody has yet; raise as ``fetch``."""
    if known := Digests(store).find(pin):
        return known
    with tempfile.TemporaryDirectory(prefix="tidegate-data-") as scratch:
        return fetch(pin, Path(scratch, "data"), store)


def verify(pin: str, path: Path, store: Store) -> Content | None:
    """Compare what is at a path with a pin; return it, None where it is something else; raise as ``fetch``."""
    found = digest_path(path)
    return found if found.digest == learn(pin, store).digest else None
