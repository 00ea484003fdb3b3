"""An OCI image layout: images in a folder, for tools that read one (skopeo, buildah, podman, crane)."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tidegate.images import blobs
from tidegate.images.image import Image
from tidegate.images.registry import OCI_INDEX, OCI_MANIFEST, Registry, digest_of

_REF = "org.opencontainers.image.ref.name"


def write(image: Image, folder: Path, name: str) -> None:
    """Put an image into the layout in ``folder`` under ``name``; other images in it stay.

    Raises:
        NotFound, Damaged, ServerError: a layer of the base cannot be fetched.
    """
    store = folder / "blobs" / "sha256"
    store.mkdir(parents=True, exist_ok=True)
    base = image.base.reference
    for layer in image.base.layers:
        _put(blobs.fetched(Registry(base.host), base.repository, layer.digest), store)
    for own in image.layers:
        _put(own.file, store)
    for content in (image.config, image.manifest.body):
        _replace(store / digest_of(content)[7:], content)
    _replace(folder / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    _replace(folder / "index.json", _index(folder / "index.json", image, name))


def _index(path: Path, image: Image, name: str) -> bytes:
    known: list[dict[str, Any]] = json.loads(path.read_text())["manifests"] if path.is_file() else []
    entry = {
        "mediaType": OCI_MANIFEST,
        "digest": image.digest,
        "size": len(image.manifest.body),
        "annotations": {_REF: name},
    }
    others = [m for m in known if m.get("annotations", {}).get(_REF) != name]
    manifests = sorted([*others, entry], key=lambda m: str(m.get("annotations", {}).get(_REF)))
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}, indent=1).encode()


def _put(source: Path, store: Path) -> None:
    target = store / source.name
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # another file system
        part = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, part)
        part.replace(target)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
