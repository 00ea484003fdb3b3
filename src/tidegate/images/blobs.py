"""Blobs of images in the user's cache folder: base layers that were fetched, layers that were built."""

from __future__ import annotations

from pathlib import Path

from tidegate.images.registry import Registry, file_digest
from tidegate.project import cache_folder


def folder() -> Path:
    """Where they are kept, each under the hex digits of its digest."""
    made = cache_folder() / "images" / "blobs"
    made.mkdir(parents=True, exist_ok=True)
    return made


def kept(digest: str) -> Path:
    """The file of a digest, whether it is there or not."""
    return folder() / digest.removeprefix("sha256:")


def whole(digest: str) -> bool:
    """Whether a digest's file is there with all its bytes."""
    path = kept(digest)
    return path.is_file() and file_digest(path) == digest


def fetched(registry: Registry, repository: str, digest: str) -> Path:
    """The file of a digest, fetched when it is not there.

    Raises:
        NotFound, Damaged, ServerError: the registry does not give it.
    """
    path = kept(digest)
    if not whole(digest):
        registry.fetch(repository, digest, path)
    return path
