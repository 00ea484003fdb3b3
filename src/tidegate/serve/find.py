"""Which version to serve: the registry is asked, and says whether it may be. Nothing heavy is imported."""

from __future__ import annotations

from tidegate.registry.model import Registry, Version, may_serve, split_reference
from tidegate.store.base import Store


def find_version(store: Store, reference: str) -> Version:
    """Return the version that ``NAME``, ``NAME@ALIAS`` or ``NAME:VERSION`` names, if it may be served.

    Raises:
        NotFound: no such model, alias or version.
        ModelRefused: it may not be served.
    """
    name, ref = split_reference(reference)
    state, version = Registry(store).version(name, ref)
    may_serve(state, version)
    return version
