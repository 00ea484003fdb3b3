"""The folder in which a run's steps work: gone when the run ends, swept by the next run when its run was killed.

A lock inside (flock(2), released by the system when its holder dies) says that the run is still going.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tidegate.errors import Conflict, Trouble

_PREFIX, _LOCK = "tidegate-run-", ".lock"
_YOUNG_SECONDS = 3600


@contextlib.contextmanager
def scratch_folder(run_id: str) -> Iterator[Path]:
    """Make a run's folder, and hold its lock.

    Raises:
        Conflict: another process of this machine runs the same run (code ``run-going``).
        Trouble: it cannot be made (code ``scratch``).
    """
    refuse_going(run_id)
    _sweep()
    folder, lock = _make(run_id)
    try:
        with lock:
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_going(run_id: str) -> None:
    """Refuse to touch a run that a process of this machine is running.

    Raises:
        Conflict: it is going (code ``run-going``).
    """
    for folder in _folders(f"{_PREFIX}{run_id}-*"):
        if _is_going(folder):
            raise Conflict(f"run {run_id} is still going", hint="Wait for it, or end it first.", code="run-going")


def _make(run_id: str) -> tuple[Path, TextIO]:
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{run_id}-"))
        lock = (folder / _LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as e:
        hint = "Free space there, or set TMPDIR to another folder."
        raise Trouble(
            f"no folder can be made in {tempfile.gettempdir()}: {e.strerror}", hint=hint, code="scratch"
        ) from e
    return folder, lock


def _folders(pattern: str) -> Iterator[Path]:
    for folder in Path(tempfile.gettempdir()).glob(pattern):
        with contextlib.suppress(OSError):
            if not folder.is_symlink() and folder.lstat().st_uid == os.getuid():
                yield folder


def _is_going(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return time.time() - folder.lstat().st_mtime < _YOUNG_SECONDS  # perhaps about to be locked
    except BlockingIOError:
        return True
    return False


def _sweep() -> None:
    """Remove what killed runs left behind."""
    for folder in _folders(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if not _is_going(folder):
                shutil.rmtree(folder, ignore_errors=True)
