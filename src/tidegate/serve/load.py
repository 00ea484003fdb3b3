"""Load a registered version: ask the registry, copy the bytes by digest, load exactly those."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import Damaged, ModelRefused, NotFound
from tidegate.registry.model import Version
from tidegate.serve.find import find_version
from tidegate.serve.onnx import Scorer
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs


@dataclass(frozen=True)
class Loaded:
    """A version in memory."""

    version: Version
    scorer: Scorer

    @property
    def name(self) -> str:
        """The model's name."""
        return self.version.model


def load_version(store: Store, reference: str) -> Loaded:
    """Load ``NAME``, ``NAME@ALIAS`` or ``NAME:VERSION``.

    Raises:
        NotFound: no such model, alias or version.
        ModelRefused: it may not be served, or its bytes are not the registered ones (``model-digest-mismatch``).
    """
    version = find_version(store, reference)
    with _copied(store, version) as folder:
        return Loaded(version, Scorer.load(folder))


@contextmanager
def _copied(store: Store, version: Version) -> Iterator[Path]:
    """The version's bytes, checked, in a private folder: what is loaded is what was checked."""
    private = Path(tempfile.mkdtemp(prefix="tidegate-serve-"))
    try:
        Blobs(store).fetch(version.digest, private / "model", kind=version.kind)
        yield private / "model"
    except (Damaged, NotFound) as e:
        raise ModelRefused(
            f"{version.model} version {version.version} is not what was registered: {e.found}",
            allowed=f"The bytes with the digest {version.digest}.",
            hint="Run its pipeline again, or serve another version.",
            code="model-digest-mismatch",
        ) from e
    finally:
        shutil.rmtree(private, ignore_errors=True)
