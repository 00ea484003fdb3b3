"""An image as data: the manifest and configuration that put our layers on a base."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.images.base import Base
from tidegate.images.environment import ROOT
from tidegate.images.layer import Layer
from tidegate.images.registry import OCI_MANIFEST, Descriptor, Manifest, digest_of

CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
USER = "65532:65532"  # nobody's name; runs under runAsNonRoot
APP = "/app"
_NEVER = "1970-01-01T00:00:00Z"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """An image: its manifest, its configuration's bytes, our layers on the base's."""

    manifest: Manifest
    config: bytes
    base: Base
    layers: tuple[Layer, ...]

    @property
    def digest(self) -> str:
        """``sha256:…``, by which the image is named everywhere."""
        return self.manifest.digest

    @property
    def size(self) -> int:
        """Bytes of all layers, as they are stored and fetched."""
        return sum(d.size for d in self.base.layers) + sum(la.descriptor.size for la in self.layers)


def assemble(base: Base, layers: Sequence[Layer], env: Mapping[str, str], labels: Mapping[str, str]) -> Image:
    """Put layers on a base.

    Args:
        base: the base image.
        layers: lowest first.
        env: environment variables that the family sets.
        labels: labels of the configuration.
    """
    config = _encode(_config(base, layers, env, labels))
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(CONFIG, digest_of(config), len(config)).as_json(),
        "layers": [d.as_json() for d in (*base.layers, *(la.descriptor for la in layers))],
        "annotations": {
            "org.opencontainers.image.base.digest": base.manifest,
            "org.opencontainers.image.base.name": str(base.reference),
        },
    }
    return Image(Manifest(_encode(body), OCI_MANIFEST), config, base, tuple(layers))


def _config(base: Base, layers: Sequence[Layer], env: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, Any]:
    below = base.config.get("config") or {}
    made = [{"created": _NEVER, "created_by": f"tidegate images build: {la.why}"} for la in layers]
    return {
        "created": _NEVER,
        "architecture": base.config["architecture"],
        "os": base.config["os"],
        "config": {
            "Env": [f"{k}={v}" for k, v in _environment(base, env).items()],
            "User": USER,
            "WorkingDir": APP,
            "Cmd": ["python", "-m", "tidegate"],
            "Labels": dict(sorted({**(below.get("Labels") or {}), **labels}.items())),
        },
        "rootfs": {"type": "layers", "diff_ids": [*base.config["rootfs"]["diff_ids"], *(la.diff_id for la in layers)]},
        "history": [*(base.config.get("history") or []), *made],
    }


def _environment(base: Base, env: Mapping[str, str]) -> dict[str, str]:
    below = {k: v for k, v in base.environment.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    ours = {
        "PATH": f"/{ROOT}/bin:{below.get('PATH', _DEFAULT_PATH)}",
        "TIDEGATE_PROJECT": APP,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HOME": "/tmp",
    }
    return below | ours | dict(env)


def artifact(subject: Manifest, media_type: str, content: bytes, name: str) -> Manifest:
    """The manifest of something that belongs to an image, such as its bill of materials."""
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": media_type,
        "config": Descriptor(EMPTY, digest_of(b"{}"), 2).as_json(),
        "layers": [
            Descriptor(media_type, digest_of(content), len(content)).as_json()
            | {"annotations": {"org.opencontainers.image.title": name}}
        ],
        "subject": Descriptor(subject.media_type, subject.digest, len(subject.body)).as_json(),
    }
    return Manifest(_encode(body), OCI_MANIFEST)


def _encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
