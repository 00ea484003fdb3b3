"""By what a version is counted live: the bins of its profile, where it has one."""

from __future__ import annotations

from collections.abc import Callable

from tidegate.data.profile import Number, Profile, Text, parse
from tidegate.errors import Damaged, NotFound, UsageError
from tidegate.registry.signature import Tensor
from tidegate.serve.load import Loaded
from tidegate.serve.ruler import NUMBER, TEXT, Measured, Ruler, plain_ruler
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs


def ruler(store: Store, loaded: Loaded, say: Callable[..., None]) -> Ruler:
    """Return by what a version is counted; by equal bins where its profile is missing, damaged or of something else.

    A version is served without its profile: whoever compares counts sees that they are by other bins, and the log says
    why (``say``).

    Raises:
        StoreError: the store cannot be asked now. By other bins its counts would be compared with nothing for as long
            as it is served, so it is loaded again later.
    """
    digest = str(loaded.version.lineage.get("profile") or "")
    if not digest:
        return plain_ruler(loaded.scorer.signature)
    try:
        profile = parse(Blobs(store).read_bytes(digest))
    except (NotFound, Damaged, UsageError) as e:
        say("profile-unused", version=loaded.version.version, error=e.as_json())
        return plain_ruler(loaded.scorer.signature)
    return _by(profile, digest, loaded)


def _by(profile: Profile, digest: str, loaded: Loaded) -> Ruler:
    signature = loaded.scorer.signature
    plain = plain_ruler(signature)
    if profile.of != plain.of or (plain.of == "label" and profile.prediction.edges != plain.edges):
        return plain
    inputs = tuple(_measured(t, profile) for t in signature.inputs)
    return Ruler(profile.prediction.edges, plain.of, plain.classes, inputs, digest)


def _measured(tensor: Tensor, profile: Profile) -> Measured:
    match profile.columns.get(tensor.name):
        case Number(bins=bins) if tensor.datatype != "BYTES":
            return Measured(tensor.name, NUMBER, bins.edges)
        case Text(frequent=frequent, lengths=lengths) if tensor.datatype == "BYTES":
            return Measured(tensor.name, TEXT, lengths.edges, tuple(frequent))
    return Measured(tensor.name, TEXT if tensor.datatype == "BYTES" else NUMBER)
