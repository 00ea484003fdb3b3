"""Compiled files that Python would take for those of a source although the source has changed.

Python knows a source by the second of its last change and its size. One that is saved twice within a second, and is as
long as before, is run as it was the first time, while its digest says what it is now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from importlib.util import cache_from_source
from pathlib import Path

_RESOLUTION = 1_000_000_000  # nanoseconds: of what Python keeps of a source's time


def forget(sources: Iterable[Path]) -> None:
    """Remove each source's compiled file, where the source may have changed within a second of its making."""
    for source in sources:
        if source.suffix == ".py":
            with contextlib.suppress(OSError, NotImplementedError):  # none there, none made, or not ours to remove
                compiled = Path(cache_from_source(str(source)))
                if compiled.stat().st_mtime_ns < source.stat().st_mtime_ns + _RESOLUTION:
                    compiled.unlink()
