"""What every kind of dataset gives: a pin, which names bytes that never change."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tidegate.errors import NotFound, UsageError
from tidegate.store.blobs import Content

MARKER = "_SUCCESS"  # as Hadoop and Spark write it, last of all


class Pin(Protocol):
    """Bytes that never change; ``str`` of it is what ``ref.parse_pin`` reads back."""

    @property
    def identity(self) -> str:
        """What is the same where the bytes are the same, as far as that is known without reading them."""

    @property
    def source(self) -> str:
        """Where the data is, for people."""

    @property
    def revision(self) -> str:
        """The version there in its own words (a commit, a version's id), empty where there is no such thing."""

    @property
    def complete(self) -> bool:
        """Whether whoever wrote the data has said that it is whole."""

    def absent(self) -> NotFound | None:
        """Why its bytes cannot all be brought yet, told without reading them; None where they can, or nobody knows."""

    def fetch(self, target: Path) -> Content:
        """Bring the bytes to a new path, checked as far as the pin can prove them; return their digest.

        Raises:
            NotFound: they are not there any more (code ``data-moved`` where others are).
            Damaged: they are not what the pin says.
            Trouble: they cannot be reached.
        """


class Adapter(Protocol):
    """One kind of dataset; each is a module."""

    def check(self, reference: str) -> None:
        """Refuse text that is no reference of this kind, without looking at what it names; raise ``UsageError``."""

    def resolve(self, reference: str) -> Pin:
        """Find what a reference names at this moment."""

    def parse_pin(self, text: str) -> Pin:
        """Read a pin; raise ``UsageError``."""


@contextmanager
def arriving(target: Path) -> Iterator[Path]:
    """A private place beside ``target``; what is there when the block ends well becomes ``target``.

    Raises:
        UsageError: something is at ``target`` (code ``target-exists``).
    """
    if target.exists() or target.is_symlink():
        raise UsageError(f"there is something at {target}", allowed="A path where nothing is.", code="target-exists")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tidegate-", dir=target.parent) as private:
        got = Path(private, target.name)
        yield got
        got.rename(target)


def no_reference(text: str, kind: str, allowed: str) -> UsageError:
    """The error for text that is no reference."""
    return UsageError(f"{text!r} is no {kind}", allowed=allowed, code="reference-invalid")


def no_pin(text: str, allowed: str) -> UsageError:
    """The error for text that is no pin."""
    hint = "tidegate data pin REFERENCE makes a pin of a reference."
    return UsageError(f"{text!r} is no pin", allowed=allowed, hint=hint, code="pin-invalid")


def moved(what: str) -> NotFound:
    """The error for data that changed since it was pinned."""
    return NotFound(
        f"what is at {what} is not what was pinned there",
        allowed="Data that is still as it was, or that was kept when it was pinned.",
        hint="tidegate data pin --keep REFERENCE keeps a copy in the store.",
        code="data-moved",
    )
