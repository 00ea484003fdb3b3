"""Drift of a live model as data: ``drift:NAME``, what ``tidegate monitor`` saw last of it.

So a pipeline can run when the model it once made no longer sees what it was evaluated on. The pin is
``drift:NAME:NUMBER#digest=sha256:<64 hex>``; its bytes are the event as JSON.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.data.base import no_pin, no_reference
from tidegate.errors import Damaged, NotFound
from tidegate.registry.policy import NAME
from tidegate.store.base import Store
from tidegate.store.blobs import Content
from tidegate.store.drift import Drifts
from tidegate.store.open import open_store

START = "drift:"
_REFERENCE = re.compile(rf"drift:{NAME.pattern}")
_PIN = re.compile(
    rf"drift:(?P<name>{NAME.pattern}):(?P<number>[1-9]\d{{0,7}})#digest=(?P<digest>sha256:[0-9a-f]{{64}})"
)


@dataclass(frozen=True)
class DriftPin:
    """One event of drift, whole since it was written."""

    name: str
    number: int
    digest: str
    store: Store | None = field(default=None, compare=False, repr=False)
    complete: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        """The pin as text."""
        return f"{self.source}:{self.number}#digest={self.digest}"

    @property
    def identity(self) -> str:
        """The digest of the event, which says when it was."""
        return self.digest

    @property
    def source(self) -> str:
        """The model."""
        return f"{START}{self.name}"

    @property
    def revision(self) -> str:
        """The number of the event."""
        return str(self.number)

    def absent(self) -> None:
        """See ``Pin``: what was found is there."""

    def fetch(self, target: Path) -> Content:
        """See ``Pin``."""
        event = Drifts(self.store or open_store()).read(self.name, self.number)
        if _digest(event) != self.digest:
            raise Damaged(f"event {self.number} of drift of {self.name} is not what was pinned")
        target.write_bytes(event)
        return Content(self.digest, "file", len(event))


@dataclass(frozen=True)
class Drift:
    """The events of drift of a store, the project's own by default; an ``Adapter``."""

    store: Store | None = None

    def check(self, reference: str) -> None:
        """See ``Adapter``."""
        if not (_REFERENCE.fullmatch(reference) or _PIN.fullmatch(reference)):
            raise no_reference(reference, "model", "drift:NAME, the model's name alone.")

    def resolve(self, reference: str) -> DriftPin:
        """See ``Adapter``."""
        name, store = reference.removeprefix(START), self.store or open_store()
        number = Drifts(store).last(name)
        if not number:
            raise NotFound(
                f"no drift of {name!r} was seen yet",
                allowed="A model of which `tidegate monitor` has seen some; a watcher waits for it.",
                hint=f"tidegate monitor {name}",
            )
        return DriftPin(name, number, _digest(Drifts(store).read(name, number)), self.store)

    def parse_pin(self, text: str) -> DriftPin:
        """See ``Adapter``."""
        found = _PIN.fullmatch(text)
        if not found:
            raise no_pin(text, "drift:NAME:NUMBER#digest=sha256:DIGEST.")
        return DriftPin(found["name"], int(found["number"]), found["digest"], self.store)


def _digest(event: bytes) -> str:
    return "sha256:" + hashlib.sha256(event).hexdigest()
