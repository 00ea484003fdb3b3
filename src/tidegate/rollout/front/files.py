"""The files of a front: small JSON, replaced whole, so that a reader sees the old or the new one."""

from __future__ import annotations

import fcntl
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tidegate.errors import Damaged
from tidegate.store.disk import RealDisk

PAUSE = 0.01


def read(file: Path) -> dict[str, Any] | None:
    """Return what stands in a file, None where there is none.

    Raises:
        Damaged: it is no JSON object.
    """
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise _damaged(file) from e
    if not isinstance(found, dict):
        raise _damaged(file)
    return found


def _damaged(file: Path) -> Damaged:
    return Damaged(f"{file} is no JSON object", hint=f"rm {file}", code="front-file")


def write(file: Path, content: Any) -> None:
    """Replace a file, durably; on trouble leave nothing else behind.

    Not by ``LocalStore``, which looks through its folder at the first write: taking traffic back waits for this.
    """
    fd, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(fd, "wb") as out:  # noqa: PTH123 - it is a descriptor
            out.write(json.dumps(content, indent=1).encode() + b"\n")
            out.flush()
            os.fsync(fd)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    RealDisk().fsync_folder(file.parent)


@contextmanager
def locked(file: Path, patience: float = math.inf) -> Iterator[bool]:
    """Hold a lock that the system releases when its holder dies; False where it was not to be had.

    Args:
        file: of the lock.
        patience: seconds to wait for it: a holder that was stopped holds it for ever.
    """
    end = time.monotonic() + patience
    with file.open("a") as lock:
        while not (held := _taken(lock.fileno(), waits=patience == math.inf)) and time.monotonic() < end:
            time.sleep(PAUSE)
        yield held


def _taken(fd: int, *, waits: bool) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
