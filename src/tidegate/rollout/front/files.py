"""The files of a front: small JSON, replaced whole, so that a reader sees the old or the new one."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tidegate.errors import Damaged


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
    """Replace a file, durably."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as out:
        out.write(json.dumps(content, indent=1).encode() + b"\n")
        out.flush()
        os.fsync(out.fileno())
    Path(out.name).replace(file)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock that the system releases when its holder dies."""
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
