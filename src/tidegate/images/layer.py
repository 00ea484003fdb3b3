"""Layers that are the same bytes every time: sorted names, no times, owner root, a fixed gzip header."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from tidegate.images.registry import Descriptor

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_LEVEL = 6


@dataclass(frozen=True)
class Entry:
    """One file or link of a layer.

    Attributes:
        path: where it stands, relative to the image's root.
        content: a file's bytes, or the file they are read from.
        link: what a symbolic link points to, empty for a file.
        executable: whether a file is a program.
    """

    path: str
    content: Path | bytes = b""
    link: str = ""
    executable: bool = False


@dataclass(frozen=True)
class Layer:
    """A layer in a file: what a manifest says of it, and the digest of its tar."""

    file: Path
    descriptor: Descriptor
    diff_id: str
    why: str


def entries(tree: Path, prefix: str) -> Iterator[Entry]:
    """Every file and link below a folder, as entries below ``prefix``."""
    for path in sorted(tree.rglob("*")):
        name = str(PurePosixPath(prefix) / path.relative_to(tree).as_posix())
        if path.is_symlink():
            yield Entry(name, link=str(path.readlink()))
        elif path.is_file():
            yield Entry(name, path, executable=bool(path.stat().st_mode & stat.S_IXUSR))


def write(found: Iterable[Entry], folder: Path, why: str) -> Layer:
    """Write a layer into ``folder``, as a file named by its digest.

    Args:
        found: what it holds, in any order, each path once.
        folder: where blobs are kept.
        why: what the layer is, for the image's history.
    """
    folder.mkdir(parents=True, exist_ok=True)
    by_path = {e.path: e for e in found}
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".layer-", delete=False) as out:
        try:
            packed = _Hashed(cast(BinaryIO, out))
            with gzip.GzipFile(
                filename="", mode="wb", compresslevel=_LEVEL, fileobj=cast(BinaryIO, packed), mtime=0
            ) as zipped:
                tar = _Hashed(cast(BinaryIO, zipped))
                _fill(cast(BinaryIO, tar), by_path)
            out.flush()
            file = folder / packed.hex
            Path(out.name).replace(file)
        except BaseException:
            Path(out.name).unlink(missing_ok=True)
            raise
    return Layer(file, Descriptor(MEDIA_TYPE, f"sha256:{packed.hex}", packed.size), f"sha256:{tar.hex}", why)


def _fill(out: BinaryIO, by_path: dict[str, Entry]) -> None:
    folders = {str(p) for path in by_path for p in PurePosixPath(path).parents if str(p) != "."}
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folders | by_path.keys()):
            _add(tar, path, by_path.get(path))


def _add(tar: tarfile.TarFile, path: str, entry: Entry | None) -> None:
    info = tarfile.TarInfo(path)
    info.mode = 0o755 if entry is None or entry.executable else 0o644
    if entry is None:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif entry.link:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
        tar.addfile(info)
    elif isinstance(entry.content, bytes):
        info.size = len(entry.content)
        tar.addfile(info, io.BytesIO(entry.content))
    else:
        with entry.content.open("rb") as f:
            info.size = os.fstat(f.fileno()).st_size
            tar.addfile(info, f)


class _Hashed:
    """A stream that hashes and counts what it passes on."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._hash, self.size = out, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()

    @property
    def hex(self) -> str:
        return self._hash.hexdigest()
