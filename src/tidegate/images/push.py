"""Pushing an image: its blobs first, its manifest last, and its bill of materials as a referrer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tidegate.errors import NotFound
from tidegate.images import blobs
from tidegate.images.image import Image, artifact
from tidegate.images.reference import Reference
from tidegate.images.registry import OCI_INDEX, Manifest, Registry, digest_of
from tidegate.images.sbom import MEDIA_TYPE


def push(image: Image, target: Reference, note: Callable[[str], None]) -> Reference:
    """Store an image under its digest (and a tag of the digest's first digits, which keeps it from being collected).

    Raises:
        Damaged, ServerError: the registry's trouble.
    """
    registry = Registry(target.host)
    for layer in image.base.layers:
        _below(registry, image, target, layer.digest)
    for own in image.layers:
        if not registry.has(target.repository, own.descriptor.digest):
            note(f"pushing {own.why} ({own.descriptor.size / 1e6:.1f} MB)")
            registry.upload(target.repository, own.descriptor.digest, own.file)
    registry.upload(target.repository, digest_of(image.config), image.config)
    registry.push(target.repository, image.digest[7:19], image.manifest)
    return target.pinned(image.digest)


def _below(registry: Registry, image: Image, target: Reference, digest: str) -> None:
    """A layer of the base: taken over within the registry where that is possible, else fetched and pushed."""
    base = image.base.reference
    if registry.has(target.repository, digest):
        return
    if base.host == target.host and registry.mount(target.repository, digest, base.repository):
        return
    file = blobs.fetched(Registry(base.host), base.repository, digest)
    registry.upload(target.repository, digest, file)


def attach(image: Manifest, target: Reference, bill: bytes, name: str) -> str:
    """Store the bill of materials beside the image, where referrers of its digest are looked for; return its digest.

    Raises:
        Damaged, ServerError: the registry's trouble.
    """
    registry = Registry(target.host)
    made = artifact(image, MEDIA_TYPE, bill, name)
    for content in (b"{}", bill):
        registry.upload(target.repository, digest_of(content), content)
    if not registry.push(target.repository, made.digest, made):
        _list(registry, target.repository, image.digest, made)
    return made.digest


def _list(registry: Registry, repository: str, subject: str, made: Manifest) -> None:
    """For a registry that keeps no track of subjects: the specification's index under a tag of the subject's digest."""
    tag = subject.replace(":", "-")
    entry = {"mediaType": made.media_type, "digest": made.digest, "size": len(made.body), "artifactType": MEDIA_TYPE}
    try:
        known: list[dict[str, Any]] = registry.manifest(repository, tag).parsed()["manifests"]
    except (NotFound, ValueError, KeyError):
        known = []
    others = [m for m in known if m.get("digest") != made.digest]
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*others, entry]}
    registry.push(repository, tag, Manifest(json.dumps(body).encode(), OCI_INDEX))
