"""Files and folders of this machine: ``file:PATH``, pinned by the digest of all that is there.

A relative path starts at the project's root. The pin is ``file:/absolute/path#digest=sha256:<64 hex>``.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from tidegate.data.base import MARKER, moved, no_pin, no_reference
from tidegate.project import find_root
from tidegate.store.blobs import Content, digest_path

_REFERENCE = re.compile(r"file:(?://(?=/))?(?P<path>[^#\0]+)(?:#digest=(?P<digest>sha256:[0-9a-f]{64}))?")
_ALLOWED = "file:PATH, with '#' in PATH written %23."


@dataclass(frozen=True)
class FolderPin:
    """A file or folder with the digest of what is there."""

    path: Path
    digest: str
    complete: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        """The pin as text."""
        return f"file:{quote(str(self.path))}#digest={self.digest}"

    @property
    def identity(self) -> str:
        """The digest."""
        return self.digest

    @property
    def source(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def revision(self) -> str:
        """None: a folder has no past."""
        return ""

    def absent(self) -> None:
        """See ``Pin``: what was found is there."""

    def fetch(self, target: Path) -> Content:
        """See ``Pin``."""
        digest_path(self.path)  # refuses links, which a copy would follow
        shutil.copytree(self.path, target) if self.path.is_dir() else shutil.copyfile(self.path, target)
        content = digest_path(target)
        if content.digest != self.digest:
            raise moved(str(self.path))
        return content


def check(reference: str) -> None:
    """See ``Adapter``."""
    _path(reference)


def resolve(reference: str) -> FolderPin:
    """See ``Adapter``."""
    path = _path(reference)
    return FolderPin(path, digest_path(path).digest, _is_complete(path))


def parse_pin(text: str) -> FolderPin:
    """See ``Adapter``."""
    found = _REFERENCE.fullmatch(text)
    if not found or not found["digest"]:
        raise no_pin(text, "file:PATH#digest=sha256:DIGEST.")
    return FolderPin(_path(text), found["digest"])


def _path(reference: str) -> Path:
    found = _REFERENCE.fullmatch(reference)
    if not found:
        raise no_reference(reference, "file or folder", _ALLOWED)
    return (find_root(Path.cwd()) / unquote(found["path"])).resolve()


def _is_complete(path: Path) -> bool:
    """Whether a marker stands in a folder, and nothing there is younger: data that grows again is not whole."""
    marker = path / MARKER
    if not marker.is_file():
        return False
    at = marker.stat().st_mtime_ns
    return all(p.stat().st_mtime_ns <= at for p in path.rglob("*") if p.is_file())
