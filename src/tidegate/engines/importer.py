"""Artifacts that are already somewhere: files, folders and objects, taken into the store by content."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tidegate.engines.graph import Ready
from tidegate.engines.resolve import Resolver
from tidegate.engines.values import Values
from tidegate.errors import NotFound, StepFailed, StoreError
from tidegate.ir.placeholder import as_text, substitute
from tidegate.plan.model import Importer
from tidegate.plan.value import Artifact
from tidegate.store.blobs import Blobs, Content
from tidegate.store.cache import Cache, Miss
from tidegate.store.open import OBJECT_SCHEMES

if TYPE_CHECKING:
    from tidegate.data.objects import Found


def bring(uri: str, type_: str, metadata: Mapping[str, Any], blobs: Blobs, cache: Cache | None, root: Path) -> Artifact:
    """Take what is at an address into the store.

    Args:
        uri: a path (relative ones stand below ``root``), ``file://``, ``s3://``, ``gs://``, ``az://``; any other address
            is kept as it is, without bytes.
        type_: the artifact's type.
        metadata: its metadata.
        blobs: where the bytes go.
        cache: knows which objects were taken before, by their version; None takes them again (``reimport=True``).
        root: the project's folder.

    Raises:
        StepFailed: nothing is there (code ``import-missing``), or it cannot be reached (``import-unreachable``).
    """
    parts = urlsplit(uri)
    if parts.scheme in OBJECT_SCHEMES:
        content = _object(uri, blobs, cache)
    elif parts.scheme in ("", "file"):
        path = root / unquote(parts.path) if parts.scheme else root / uri
        if not path.exists():
            raise _missing(uri)
        content = blobs.add(path)
    else:
        return Artifact(_name(uri), uri, type_, metadata=metadata)
    return Artifact(_name(uri), uri, type_, content.digest, content.kind, content.size, metadata)


def imported(
    ready: Ready, importer: Importer, resolver: Resolver, blobs: Blobs, cache: Cache | None, root: Path
) -> Values:
    """Perform an importer's step: take what is at its address into the store; see ``bring``."""
    uri = as_text(ready.inputs.parameters[importer.parameter]) if importer.parameter else ""
    uri = resolver.text(importer.uri) if importer.uri else uri
    known = None if importer.reimport else cache
    return Values(
        {}, {"artifact": [bring(uri, importer.type, substitute(importer.metadata, resolver), blobs, known, root)]}
    )


def _name(uri: str) -> str:
    return PurePosixPath(unquote(urlsplit(uri).path.rstrip("/"))).name or "artifact"


def _missing(uri: str) -> StepFailed:
    return StepFailed(
        f"there is nothing to import at {uri}", allowed="A file, folder or object that exists.", code="import-missing"
    )


def _object(uri: str, blobs: Blobs, cache: Cache | None) -> Content:
    from tidegate.data.objects import Objects

    try:
        found = Objects(uri).find()
        key = _key(uri, found)
        known = cache.lookup(key, blobs) if cache else Miss()
        if not isinstance(known, Miss):
            return Content(**known.outputs["artifacts"][0])
        with tempfile.TemporaryDirectory(prefix="tidegate-import-") as folder:
            content = blobs.add(Objects(uri).fetch(found, Path(folder)))
    except StoreError as e:
        raise StepFailed(e.found, allowed=e.allowed, hint=e.hint, code="import-unreachable") from e
    except NotFound as e:
        raise _missing(uri) from e
    if cache:
        cache.put(key, {"artifacts": [content.__dict__]}, run="", step=f"import {uri}")
    return content


def _key(uri: str, found: list[Found]) -> str:
    versions = [[o.key, o.size, o.version] for o in found]
    return hashlib.sha256(json.dumps(["import", uri, versions]).encode()).hexdigest()
