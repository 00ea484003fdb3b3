"""The layer with an image's packages, made once per lock: the slow part of a build."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tidegate.images import blobs, environment, layer, sbom
from tidegate.images.environment import Interpreter
from tidegate.images.layer import Layer
from tidegate.images.registry import Descriptor
from tidegate.project import cache_folder

_FORM = 1  # of what is inside the layer: another number makes every kept layer anew


@dataclass(frozen=True)
class Packages:
    """A layer of packages, and what is installed in it."""

    layer: Layer
    distributions: tuple[sbom.Distribution, ...]


def packages(lock: Path, python: Interpreter, constraints: Path, note: Callable[[str], None]) -> Packages:
    """The layer of a hashed lock: a kept one, else installed now.

    Args:
        lock: requirements with hashes.
        python: the image's Python.
        constraints: versions of what builds packages that come as source; the file need not exist.
        note: told when it takes a while.

    Raises:
        ConfigError, Refused, Trouble: as ``environment.install``.
    """
    said = [_FORM, _sha256(lock), _sha256(constraints), asdict(python), sys.version, zlib.ZLIB_RUNTIME_VERSION]
    kept = cache_folder() / "images" / "packages" / (hashlib.sha256(json.dumps(said).encode()).hexdigest() + ".json")
    if found := _read(kept):
        return found
    note(f"installing {lock.parent.name}/{lock.name}")
    made = _make(lock, python, constraints)
    _keep(kept, made)
    return made


def _make(lock: Path, python: Interpreter, constraints: Path) -> Packages:
    with tempfile.TemporaryDirectory(prefix="tidegate-image-") as folder:
        tree = Path(folder) / "tree"
        options = ["--build-constraints", str(constraints)] if constraints.is_file() else []
        environment.install(lock, tree, python, options)
        found = [*environment.files(tree), *environment.interpreter_files(python)]
        return Packages(
            layer.write(found, blobs.folder(), f"packages of {lock.parent.name}"),
            tuple(sbom.installed(tree / python.site)),
        )


def _read(kept: Path) -> Packages | None:
    try:
        body: dict[str, Any] = json.loads(kept.read_text())
        made = Layer(
            blobs.kept(body["digest"]),
            Descriptor(layer.MEDIA_TYPE, body["digest"], body["size"]),
            body["diff_id"],
            body["why"],
        )
        found = Packages(made, tuple(sbom.Distribution(**d) for d in body["distributions"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if blobs.whole(made.descriptor.digest) else None


def _keep(kept: Path, made: Packages) -> None:
    said = {
        "digest": made.layer.descriptor.digest,
        "size": made.layer.descriptor.size,
        "diff_id": made.layer.diff_id,
        "why": made.layer.why,
        "distributions": [asdict(d) for d in made.distributions],
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(said))
    part.replace(kept)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
