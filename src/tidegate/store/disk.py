"""The disk seam: the few calls that durable writing is made of; a simulated disk can stand in for the real one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """Calls as in ``os``; every one may raise ``OSError``."""

    def create(self, path: Path) -> int:
        """Open a new file for writing; fail if the name is taken."""

    def write(self, fd: int, data: memoryview) -> int:
        """Write some of the data; return how much."""

    def fsync(self, fd: int) -> None:
        """Make a file's bytes durable."""

    def close(self, fd: int) -> None:
        """Close a file."""

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; fail if that name is taken."""

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, replacing what had it."""

    def unlink(self, path: Path) -> None:
        """Take a name away."""

    def mkdir(self, path: Path) -> None:
        """Make one folder; fail if it is there."""

    def fsync_folder(self, path: Path) -> None:
        """Make a folder's entries durable."""


class RealDisk:
    """The operating system's own calls."""

    def create(self, path: Path) -> int:
        """See ``Disk``."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)

    def write(self, fd: int, data: memoryview) -> int:
        """See ``Disk``."""
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        """See ``Disk``."""
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """See ``Disk``."""
        os.close(fd)

    def link(self, source: Path, target: Path) -> None:
        """See ``Disk``."""
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        """See ``Disk``."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """See ``Disk``."""
        path.unlink()

    def mkdir(self, path: Path) -> None:
        """See ``Disk``."""
        path.mkdir()

    def fsync_folder(self, path: Path) -> None:
        """See ``Disk``."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
