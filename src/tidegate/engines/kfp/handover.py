"""What a step of ours leaves for KFP: its outputs where KFP's launcher looks for them, and, for the next step of ours, what
KFP does not carry (digests, types, exact metadata) in the store, by the artifact's address.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidegate.engines.values import Values
from tidegate.errors import Damaged, NotFound, StepFailed
from tidegate.ir.condition import MAX_EXACT
from tidegate.plan.value import Artifact, artifact_from_json
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs

MAX_PARAMETER = 100 * 1024  # bytes; KFP passes parameters on a command line, which Linux limits to 128 KiB a word
DIGEST = "tidegate_digest"
_FOLDERS = {"gs": "gcs", "s3": "s3", "minio": "minio", "oci": "oci"}


def local(uri: str, root: Path = Path("/")) -> Path:
    """Where KFP's launcher has the bytes of an artifact: ``s3://b/k`` is ``/s3/b/k``."""
    scheme, found, rest = uri.partition("://")
    return root / (f"{_FOLDERS.get(scheme, scheme)}/{rest}" if found else uri.lstrip("/"))


def remember(store: Store, run_id: str, uri: str, artifact: Artifact) -> None:
    """Keep what an artifact at an address is."""
    store.put(_key(run_id, uri), json.dumps(artifact.as_json()).encode())


def recall(store: Store, run_id: str, uri: str) -> Artifact | None:
    """Return what an artifact at an address is, None where no step of ours left one there.

    Raises:
        Damaged: what was kept cannot be read.
    """
    try:
        return artifact_from_json(json.loads(store.get(_key(run_id, uri))))
    except NotFound:
        return None
    except (ValueError, TypeError) as e:
        raise Damaged(f"what is known of {uri} cannot be read: {e}") from e


def _key(run_id: str, uri: str) -> str:
    return f"runs/{run_id}/artifacts/{hashlib.sha256(uri.encode()).hexdigest()[:32]}.json"


def hand_over(outputs: Values, given: Mapping[str, Any], blobs: Blobs, run_id: str, root: Path = Path("/")) -> None:
    """Leave the outputs of a step where KFP's launcher looks for them.

    Args:
        outputs: what the step made.
        given: kfp's executor input, which says where to leave it.
        blobs: where the bytes are.
        run_id: the run.
        root: the folder that stands for ``/``.

    Raises:
        StepFailed: an output that KFP cannot carry.
    """
    places = given["outputs"]
    for name, value in outputs.parameters.items():
        check_parameter(value, f"the output {name!r}")
    artifacts = {
        name: {"artifacts": [_left(a, p, blobs, run_id, root) for a, p in _pairs(name, found, places)]}
        for name, found in outputs.artifacts.items()
    }
    file = root / str(places["outputFile"]).lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"parameterValues": dict(outputs.parameters), "artifacts": artifacts}, allow_nan=False))


def _pairs(name: str, found: Sequence[Artifact], places: Mapping[str, Any]) -> list[tuple[Artifact, Mapping[str, Any]]]:
    there = places.get("artifacts", {}).get(name, {}).get("artifacts", [])
    return list(zip(found, there, strict=False))


def _left(artifact: Artifact, place: Mapping[str, Any], blobs: Blobs, run_id: str, root: Path) -> dict[str, Any]:
    uri, metadata = str(place["uri"]), plain(artifact.metadata)
    if artifact.digest:
        path = local(uri, root)
        path.parent.mkdir(parents=True, exist_ok=True)
        blobs.fetch(artifact.digest, path, kind=artifact.kind)
        metadata[DIGEST] = artifact.digest
    elif artifact.uri:
        uri = artifact.uri  # somewhere else, where the step's own code put it
    remember(blobs.store, run_id, uri, artifact)
    return {"name": place.get("name", ""), "uri": uri, "metadata": metadata}


def check_parameter(value: Any, what: str) -> None:
    """Refuse a value that does not come out of KFP as it goes in.

    Raises:
        StepFailed: it is too large (code ``kfp-too-large``), or holds a number that KFP changes (``kfp-number``).
    """
    for number in _numbers(value):
        if not math.isfinite(number) or (abs(number) > MAX_EXACT and isinstance(number, int)):
            raise StepFailed(
                f"{what} holds the number {number}",
                allowed="Finite numbers, and integers up to 2^53: KFP carries every number as a double.",
                hint="Return it as text, or in an artifact.",
                code="kfp-number",
            )
    if (size := len(json.dumps(value))) > MAX_PARAMETER:
        raise StepFailed(
            f"{what} takes {size} bytes",
            allowed=f"Up to {MAX_PARAMETER}: KFP passes parameters on a command line.",
            hint="Pass it as an artifact.",
            code="kfp-too-large",
        )


def _numbers(value: Any) -> list[int | float]:
    if isinstance(value, Mapping):
        return [n for v in value.values() for n in _numbers(v)]
    if isinstance(value, list):
        return [n for v in value for n in _numbers(v)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata without numbers that JSON has no word for; the exact ones are in the store."""
    return {k: _plain(v) for k, v in metadata.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
