"""A registered model as data: ``model:NAME``, ``model:NAME@ALIAS`` or ``model:NAME:VERSION`` of a store's registry.

So a pipeline can run on what another one registered: a promotion moves the alias, and the alias is the reference. The pin
is ``model:NAME:VERSION#digest=sha256:<64 hex>``. Only a version that may be served is resolved and brought.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.data.base import no_pin, no_reference
from tidegate.errors import Damaged
from tidegate.registry.model import Registry, Version, may_serve, split_reference
from tidegate.registry.policy import NAME
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs, Content
from tidegate.store.open import open_store

START = "model:"
_REFERENCE = re.compile(rf"model:{NAME.pattern}(?:@{NAME.pattern}|:[1-9][0-9]{{0,8}})?")
_PIN = re.compile(
    rf"model:(?P<name>{NAME.pattern}):(?P<version>[1-9][0-9]{{0,8}})#digest=(?P<digest>sha256:[0-9a-f]{{64}})"
)


@dataclass(frozen=True)
class ModelPin:
    """One version of a model, whole since it was registered; its bytes are in the store that has its registry."""

    name: str
    version: int
    digest: str
    store: Store | None = field(default=None, compare=False, repr=False)
    complete: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        """The pin as text."""
        return f"{self.source}:{self.version}#digest={self.digest}"

    @property
    def identity(self) -> str:
        """The digest: the same bytes registered again are the same data."""
        return self.digest

    @property
    def source(self) -> str:
        """The model."""
        return f"{START}{self.name}"

    @property
    def revision(self) -> str:
        """The number of the version."""
        return str(self.version)

    def absent(self) -> None:
        """See ``Pin``: what was found is there."""

    def fetch(self, target: Path) -> Content:
        """See ``Pin``; raise ``ModelRefused`` where the version may not be served any more."""
        store = self.store or open_store()
        version = _version(store, self.name, self.version)
        if version.digest != self.digest:
            raise Damaged(f"{self.name} version {self.version} is {version.digest}, and {self.digest} was pinned")
        Blobs(store).fetch(version.digest, target, kind=version.kind)
        return Content(version.digest, version.kind, version.size)


@dataclass(frozen=True)
class Models:
    """The models of a store, the project's own by default; an ``Adapter``."""

    store: Store | None = None

    def check(self, reference: str) -> None:
        """See ``Adapter``."""
        if not _REFERENCE.fullmatch(reference.partition("#")[0]):
            raise no_reference(reference, "model", "model:NAME@ALIAS, or model:NAME for its champion.")

    def resolve(self, reference: str) -> ModelPin:
        """See ``Adapter``."""
        name, wanted = split_reference(reference.removeprefix(START).partition("#")[0])
        version = _version(self.store or open_store(), name, wanted)
        return ModelPin(name, version.version, version.digest, self.store)

    def parse_pin(self, text: str) -> ModelPin:
        """See ``Adapter``."""
        found = _PIN.fullmatch(text)
        if not found:
            raise no_pin(text, "model:NAME:VERSION#digest=sha256:DIGEST.")
        return ModelPin(found["name"], int(found["version"]), found["digest"], self.store)


def _version(store: Store, name: str, wanted: str | int) -> Version:
    state, version = Registry(store).version(name, wanted)
    may_serve(state, version)
    return version
