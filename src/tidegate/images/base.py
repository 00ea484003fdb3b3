"""The base image: pinned by digest, and what an image on it must know of it: its Python and its system packages."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tidegate.errors import ConfigError, DefinitionError
from tidegate.images import blobs
from tidegate.images.reference import Reference, parse
from tidegate.images.registry import DOCKER_MANIFEST, INDEXES, OCI_MANIFEST, Descriptor, Manifest, Registry
from tidegate.project import cache_folder

PLATFORMS = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
_DPKG = "var/lib/dpkg/status"


@dataclass(frozen=True)
class Base:
    """A base image by digest.

    Attributes:
        reference: the image's name with the digest of its index or manifest.
        manifest: the digest of the platform's own manifest.
        config: its configuration.
        layers: its layers, lowest first.
    """

    reference: Reference
    manifest: str
    config: Mapping[str, Any]
    layers: tuple[Descriptor, ...]

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that it sets."""
        said = (self.config.get("config") or {}).get("Env") or []
        return dict(word.partition("=")[::2] for word in said)


@dataclass(frozen=True)
class Contents:
    """What is inside a base image.

    Attributes:
        python: the path of its Python.
        packages: name, version and architecture of each system package (Debian's).
    """

    python: str
    packages: tuple[tuple[str, str, str], ...] = ()


def resolve(text: str, platform: str, note: Callable[[str], None]) -> Base:
    """Look up the base image; a tag is resolved to what it is now, and that is said.

    Raises:
        ConfigError: the name is none.
        NotFound: the registry has no such image, or none for the platform.
        DefinitionError: it is no image of layers (code ``base-unreadable``).
        Damaged, ServerError: the registry's trouble.
    """
    asked = parse(text)
    registry = Registry(asked.host)
    found = registry.manifest(asked.repository, asked.name)
    pinned = asked.pinned(asked.digest or found.digest)
    if not asked.digest:
        note(f'base {asked} is {pinned.digest} now; to keep it: [tool.tidegate.images-build] base = "{pinned}"')
    try:
        if found.media_type in INDEXES:
            found = registry.manifest(asked.repository, _of_platform(found, platform, str(asked)))
        return _read(registry, pinned, found, platform)
    except (KeyError, TypeError, ValueError) as e:
        raise DefinitionError(f"the manifest of {pinned} cannot be read: {e}", code="base-unreadable") from e


def _of_platform(index: Manifest, platform: str, name: str) -> str:
    found = {}
    for m in index.parsed()["manifests"]:
        said = m.get("platform", {})
        found[f"{said.get('os')}/{said.get('architecture')}"] = str(m["digest"])
    if platform not in found:
        raise ConfigError(f"{name} is not made for {platform}", allowed=", ".join(sorted(found)), code="base-platform")
    return found[platform]


def _read(registry: Registry, pinned: Reference, found: Manifest, platform: str) -> Base:
    if found.media_type not in (OCI_MANIFEST, DOCKER_MANIFEST):
        raise ValueError(f"its type is {found.media_type!r}")
    parsed = found.parsed()
    config = json.loads(registry.read(pinned.repository, parsed["config"]["digest"]))
    if (made := f"{config['os']}/{config['architecture']}") != platform:
        raise ConfigError(f"{pinned} is made for {made}", allowed=platform, code="base-platform")
    layers = tuple(Descriptor(_oci_type(d["mediaType"]), d["digest"], d["size"]) for d in parsed["layers"])
    if len(layers) != len(config["rootfs"]["diff_ids"]):
        raise ValueError("its configuration and its manifest differ in the number of layers")
    return Base(pinned, found.digest, config, layers)


def _oci_type(said: str) -> str:
    # the same bytes, in the words of the specification that our manifests follow
    return said.replace(
        "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip"
    )


def contents(base: Base, python: str) -> Contents:
    """Look through the layers of a base image, once per image.

    Args:
        base: the image.
        python: the version that is looked for on its PATH, such as ``3.11``.

    Raises:
        DefinitionError: it has no such Python (code ``base-python``), or a layer cannot be read (``base-unreadable``).
        NotFound, Damaged, ServerError: a layer cannot be fetched.
    """
    kept = cache_folder() / "images" / "bases" / f"{base.manifest.removeprefix('sha256:')}-{python}.json"
    if not kept.exists():
        found = _survey(base, python)
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        part.write_text(json.dumps(asdict(found)))
        part.replace(kept)
    body = json.loads(kept.read_text())
    return Contents(body["python"], tuple((n, v, a) for n, v, a in body["packages"]))


def _survey(base: Base, python: str) -> Contents:
    links: dict[str, str] = {}
    status = b""
    registry = Registry(base.reference.host)
    for layer in base.layers:
        path = blobs.fetched(registry, base.reference.repository, layer.digest)
        try:
            status = _overlay(path, links) or status
        except (tarfile.TarError, OSError, EOFError) as e:
            raise DefinitionError(
                f"layer {layer.digest} of {base.reference} ({layer.media_type}) cannot be read: {e}",
                allowed="Layers in tar or tar+gzip.",
                code="base-unreadable",
            ) from e
    return Contents(_python(base, python, links), tuple(sorted(_packages(status.decode(errors="replace")))))


def _overlay(path: Path, links: dict[str, str]) -> bytes:
    """Lay a layer over what is below it: the target of each link, empty for what is none."""
    status = b""
    added: dict[str, str] = {}
    with tarfile.open(path, "r:*") as tar:
        for member in tar:
            name = posixpath.normpath("/" + member.name).lstrip("/")
            folder, last = posixpath.split(name)
            if last == ".wh..wh..opq":
                _remove(links, folder + "/")
            elif last.startswith(".wh."):
                links.pop(gone := posixpath.join(folder, last[4:]), None)
                _remove(links, gone + "/")
            else:
                added[name] = member.linkname if member.issym() else ""
            if name == _DPKG and (f := tar.extractfile(member)):
                status = f.read()
    links |= added
    return status


def _remove(links: dict[str, str], prefix: str) -> None:
    for name in [n for n in links if n.startswith(prefix)]:
        del links[name]


def _python(base: Base, version: str, links: Mapping[str, str]) -> str:
    folders = base.environment.get("PATH", "/usr/local/bin:/usr/bin").split(":")
    for folder in folders:
        if (found := _followed(f"{folder}/python{version}", links)) is not None:
            return "/" + found
    raise DefinitionError(
        f"{base.reference} has no python{version} on its PATH",
        allowed=f"A base image with Python {version}.",
        hint="--base REF, or base = in [tool.tidegate.images-build].",
        code="base-python",
    )


def _followed(path: str, links: Mapping[str, str]) -> str | None:
    """The name behind every link on the way, None where there is nothing."""
    done, todo = PurePosixPath(), list(PurePosixPath(path.lstrip("/")).parts)
    for _ in range(200):
        if not todo:
            return str(done) if str(done) in links else None
        step = posixpath.normpath("/" + str(done / todo.pop(0))).lstrip("/")
        target = links.get(step, "")
        if not target:
            done = PurePosixPath(step)
            continue
        todo = [*PurePosixPath(target.lstrip("/")).parts, *todo]
        done = PurePosixPath() if target.startswith("/") else PurePosixPath(step).parent
    return None


def _packages(status: str) -> Iterator[tuple[str, str, str]]:
    for paragraph in status.split("\n\n"):
        said = dict(line.partition(": ")[::2] for line in paragraph.splitlines() if line[:1].isalpha())
        if said.get("Status", "").endswith(" installed") and "Version" in said:
            yield said["Package"], said["Version"], said.get("Architecture", "all")
