"""A store in a folder: the only module that writes inside it.

A write goes to a temporary file in ``tmp/``, all of it (short writes are looped), then fsync, then ``link`` (create if
absent) or ``rename`` (replace) to its name, then fsync of the folder, and of every parent that was made on the way.
What was acknowledged survives a power cut; what was not leaves no visible name. Links inside the store are never
followed, by readers or by writers.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tidegate.errors import Damaged, NotFound, StoreError
from tidegate.store.base import Entry, check_key
from tidegate.store.disk import Disk, RealDisk

CHUNK = 1 << 20
STALE_SECONDS = 86_400
_TEMPORARY, _IGNORE = "tmp", ".gitignore"


class LocalStore:
    """A folder as a ``Store``.

    Args:
        root: the folder; made by the first write, for a mistyped one is only read.
        disk: the seam to the operating system.
    """

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.root, self._disk = Path(os.path.abspath(root)), disk or RealDisk()  # noqa: PTH100 - resolve follows links
        self._durable: set[Path] = set()  # folders whose own name this process knows to be durable
        self._is_made = False

    @property
    def uri(self) -> str:
        """The folder's path."""
        return str(self.root)

    def get(self, key: str) -> bytes:
        """See ``Store``."""
        with self._open(key) as fd, os.fdopen(os.dup(fd), "rb") as f:
            return f.read()

    def chunks(self, key: str) -> Iterator[bytes]:
        """See ``Store``."""
        with self._open(key) as fd, os.fdopen(os.dup(fd), "rb") as f:
            while chunk := f.read(CHUNK):
                yield chunk

    def put(self, key: str, data: bytes) -> None:
        """See ``Store``."""
        target = self._path(key)
        try:
            self._make()
            temporary = self._write([data])
            try:
                self._make_parents(target.parent)
                self._disk.rename(temporary, target)
                self._disk.fsync_folder(target.parent)
            except OSError:
                self._discard(temporary)
                raise
        except OSError as e:
            raise self._trouble(f"write {key}", e) from e

    def put_new(self, key: str, data: bytes) -> bool:
        """See ``Store``."""
        while True:
            if self._create(key, [data]):
                return True
            with contextlib.suppress(NotFound):  # deleted since: nobody's, so try again
                return self.get(key) == data

    def put_file_new(self, key: str, path: Path) -> bool:
        """See ``Store``."""
        while True:
            with path.open("rb") as f:
                if self._create(key, iter(lambda: f.read(CHUNK), b"")):
                    return True
            with contextlib.suppress(NotFound):
                return self._same(key, path)

    def find(self, key: str) -> Entry | None:
        """See ``Store``."""
        try:
            found = self._path(key).lstat()
            return Entry(key, found.st_size, found.st_mtime) if stat.S_ISREG(found.st_mode) else None
        except FileNotFoundError:
            return None
        except NotADirectoryError as e:
            self._check_root(e)
            return None
        except OSError as e:
            raise self._trouble(f"look for {key}", e) from e

    def list(self, prefix: str, *, recursive: bool = True) -> Iterator[Entry]:
        """See ``Store``."""
        folder = self._path(prefix.rstrip("/")) if prefix else self.root
        try:
            found = sorted(os.scandir(folder), key=lambda e: e.name + "/" * e.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return
        except NotADirectoryError as e:
            return self._check_root(e)
        for entry in found:
            key = f"{prefix.rstrip('/')}/{entry.name}".lstrip("/")
            if key == _IGNORE:
                continue
            if entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    found_now = entry.stat(follow_symlinks=False)
                    yield Entry(key, found_now.st_size, found_now.st_mtime)
            elif entry.is_dir(follow_symlinks=False) and key != _TEMPORARY:
                yield from self.list(key) if recursive else [Entry(f"{key}/", 0)]

    def move(self, key: str, to: str) -> None:
        """See ``Store``."""
        source, target = self._path(key), self._path(to)
        temporary = self._temporary()
        try:
            self._make()
            self._make_parents(target.parent)
            self._disk.link(source, temporary)  # a second name first: a rename may lose both in a power cut
            try:
                self._disk.rename(temporary, target)
                self._disk.fsync_folder(target.parent)
                self._disk.unlink(source)
            finally:
                self._discard(temporary)
            self._disk.fsync_folder(source.parent)
        except FileNotFoundError:
            raise NotFound(f"the store has no {key}") from None
        except OSError as e:
            raise self._trouble(f"move {key}", e) from e

    def delete(self, key: str) -> None:
        """See ``Store``."""
        path = self._path(key)
        try:
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(path)
            # ours or another's: the name is durably gone before anybody builds on it
            self._disk.fsync_folder(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            pass  # there is no such folder, and folders stay
        except OSError as e:
            raise self._trouble(f"delete {key}", e) from e

    def _path(self, key: str) -> Path:
        path = self.root / check_key(key)
        for folder in path.relative_to(self.root).parents:
            if (self.root / folder).is_symlink() and folder != Path():
                raise Damaged(f"{folder} in the store is a link", hint=f"Remove {self.root / folder}.")
        return path

    @contextlib.contextmanager
    def _open(self, key: str) -> Iterator[int]:
        """Open a key's file by walking down from the root, so that no link on the way leads out of it."""
        parts = check_key(key).split("/")
        fds = []
        try:
            fds.append(os.open(self.root, os.O_RDONLY | os.O_DIRECTORY))
            for part in parts[:-1]:
                fds.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fds[-1]))
            fds.append(os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fds[-1]))
            if not stat.S_ISREG(os.fstat(fds[-1]).st_mode):
                raise NotFound(f"the store has no {key}")
            yield fds[-1]
        except FileNotFoundError:
            raise NotFound(f"the store has no {key}") from None
        except NotADirectoryError as e:
            self._check_root(e)
            raise NotFound(f"the store has no {key}") from None
        except OSError as e:
            if e.errno == 40:  # ELOOP: a link where a file of ours should be
                raise Damaged(f"{key} in the store is a link", hint=f"Remove {self.root / key}.") from e
            raise self._trouble(f"read {key}", e) from e
        finally:
            for fd in reversed(fds):
                os.close(fd)

    def _check_root(self, error: OSError) -> None:
        """A file is no store without keys."""
        if not self.root.is_dir():
            raise self._trouble("open the store", error) from error

    def _make(self) -> None:
        """Make what every store has, once."""
        if self._is_made:
            return
        if not (self.root / _TEMPORARY).is_dir():
            self._make_parents(self.root / _TEMPORARY)
        self._durable.add(self.root)  # it has a durable name, for something was made in it
        if not (self.root / _IGNORE).exists():
            self._link_new(self.root / _IGNORE, [b"*\n"])  # nothing of a store belongs into git
        self._sweep()
        self._is_made = True

    def _create(self, key: str, chunks: Iterable[bytes]) -> bool:
        target = self._path(key)
        try:
            self._make()
            created = not self.find(key) and self._link_new(target, chunks)
            # ours or the winner's: the name is durable before anybody builds on it
            self._make_parents(target.parent)
            self._disk.fsync_folder(target.parent)
        except OSError as e:
            raise self._trouble(f"write {key}", e) from e
        return created

    def _link_new(self, target: Path, chunks: Iterable[bytes]) -> bool:
        temporary = self._write(chunks)
        try:
            self._make_parents(target.parent)
            self._disk.fsync_folder(target.parent)  # what the writer may have read there stays, if this one does
            self._disk.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            self._discard(temporary)
        return True

    def _temporary(self) -> Path:
        return self.root / _TEMPORARY / f"{os.getpid()}-{secrets.token_hex(8)}"

    def _write(self, chunks: Iterable[bytes]) -> Path:
        """Write a durable temporary file; on trouble leave none."""
        temporary = self._temporary()
        fd = self._disk.create(temporary)
        try:
            self._fill(fd, chunks)
        except BaseException:
            self._discard(temporary)
            raise
        return temporary

    def _fill(self, fd: int, chunks: Iterable[bytes]) -> None:
        try:
            for chunk in chunks:
                left = memoryview(chunk)
                while left:
                    left = left[self._disk.write(fd, left) :]
            self._disk.fsync(fd)
        finally:
            self._disk.close(fd)

    def _discard(self, temporary: Path) -> None:
        with contextlib.suppress(OSError):
            self._disk.unlink(temporary)

    def _make_parents(self, folder: Path) -> None:
        """Make a folder and those above it; a name is durable before anything is made in what it names.

        So of a folder that another writer made, who may have been killed, only its own name can be in doubt.
        """
        if folder in self._durable and folder.is_dir():
            return
        there = folder.is_dir()
        if not there:
            self._make_parents(folder.parent)
            with contextlib.suppress(FileExistsError):
                self._disk.mkdir(folder)
        with contextlib.suppress(*[PermissionError] * there):  # a folder that holds the store need not let us read it
            self._disk.fsync_folder(folder.parent)
        self._durable.add(folder)

    def _same(self, key: str, path: Path) -> bool:
        with self._open(key) as fd, os.fdopen(os.dup(fd), "rb") as a, path.open("rb") as b:
            while True:
                one, two = a.read(CHUNK), b.read(CHUNK)
                if one != two:
                    return False
                if not one:
                    return True

    def _sweep(self) -> None:
        """Remove what writers that were killed long ago left behind."""
        for entry in list(os.scandir(self.root / _TEMPORARY)):
            with contextlib.suppress(FileNotFoundError):  # another writer's, gone meanwhile
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                    self._discard(Path(entry.path))

    def _trouble(self, what: str, error: OSError) -> StoreError:
        return StoreError(
            f"cannot {what} in {self.root}: {error.strerror or error}",
            hint="Free space, mend the permissions, or use another store (--store URI).",
        )
