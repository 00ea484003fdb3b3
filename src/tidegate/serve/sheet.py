"""Counts of one process and one version in shared memory: named rows of numbers, one writer, any number of readers.

The worker that counts writes; the process that answers the admin port reads, also when the worker is busy or dead. A
number is eight bytes and is written at once, so a reader sees each number whole, if not all of them of the same moment.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Layout = Mapping[str, int]  # the name of each row and how many numbers it has
Numbers = dict[str, list[float]]


def new_sheet(layout: Layout) -> int:
    """Make a sheet of zeros; return its descriptor."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("tidegate-counts")
    else:
        with tempfile.TemporaryFile() as f:
            fd = os.dup(f.fileno())
    os.ftruncate(fd, max(8 * sum(layout.values()), 8))
    return fd


class Sheet:
    """A sheet.

    Args:
        fd: its descriptor; closed here.
        layout: its rows.
    """

    def __init__(self, fd: int, layout: Layout) -> None:
        self.layout = dict(layout)
        self._map = mmap.mmap(fd, max(8 * sum(layout.values()), 8))
        os.close(fd)

    def rows(self) -> dict[str, np.ndarray[Any, Any]]:
        """The rows to write into, float64."""
        import numpy as np

        whole = np.frombuffer(self._map, np.float64)
        found, at = {}, 0
        for name, length in self.layout.items():
            found[name] = whole[at : at + length]
            at += length
        return found

    def read(self) -> Numbers:
        """The numbers now."""
        with memoryview(self._map) as raw, raw.cast("d") as whole:
            found: Numbers = {}
            at = 0
            for name, length in self.layout.items():
                found[name] = list(whole[at : at + length])
                at += length
        return found


def total(numbers: Sequence[Numbers]) -> Numbers:
    """The sum of several sheets of one layout."""
    if not numbers:
        return {}
    return {name: [sum(v) for v in zip(*(n[name] for n in numbers), strict=True)] for name in numbers[0]}
