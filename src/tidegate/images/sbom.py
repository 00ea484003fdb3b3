"""A bill of materials: CycloneDX 1.5 of everything that is installed in an image, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tidegate.images.environment import metadata

MEDIA_TYPE = "application/vnd.cyclonedx+json"


@dataclass(frozen=True)
class Distribution:
    """An installed distribution.

    Attributes:
        folder: its metadata's folder without ``.dist-info``, which names it in an environment's digest.
        name: its name.
        version: its version.
        record: sha256 of its RECORD, which holds the hash of each of its files.
    """

    folder: str
    name: str
    version: str
    record: str = ""


def installed(site: Path) -> list[Distribution]:
    """What is installed in a folder of packages."""
    return [
        Distribution(folder.removesuffix(".dist-info"), name, version, _sha256(site / folder / "RECORD"))
        for folder, (name, version) in metadata(site).items()
    ]


def write(image: str, found: Sequence[Distribution], system: Sequence[tuple[str, str, str]]) -> bytes:
    """The bill of an image.

    Args:
        image: its name and digest.
        found: the distributions in its environment.
        system: name, version and architecture of its system packages.
    """
    body = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "tidegate"}]},
            "component": {
                "type": "container",
                "name": image.partition("@")[0],
                "version": image.partition("@")[2],
                "bom-ref": image,
            },
        },
        "components": [*map(_python, sorted(found, key=lambda d: d.folder)), *map(_debian, sorted(system))],
    }
    return (json.dumps(body, indent=1, ensure_ascii=False) + "\n").encode()


def _python(found: Distribution) -> dict[str, Any]:
    normal = re.sub(r"[-_.]+", "-", found.name).lower()
    purl = f"pkg:pypi/{normal}@{quote(found.version)}"
    body: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": found.name,
        "version": found.version,
        "purl": purl,
    }
    if found.record:
        hashes = [{"alg": "SHA-256", "content": found.record}]
        body["components"] = [{"type": "file", "name": f"{found.folder}.dist-info/RECORD", "hashes": hashes}]
    return body


def _debian(package: tuple[str, str, str]) -> dict[str, Any]:
    name, version, machine = package
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={machine}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
