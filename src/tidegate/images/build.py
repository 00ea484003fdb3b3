"""One family's image: base, packages, tidegate, source; pushed or written into a layout."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.author.images import Family as Locked
from tidegate.errors import ConfigError
from tidegate.images import base as bases
from tidegate.images import blobs, container, environment, layer, layout, lock, own, push, sbom, shim, source
from tidegate.images.base import PLATFORMS
from tidegate.images.environment import Interpreter
from tidegate.images.family import Family
from tidegate.images.image import Image, assemble
from tidegate.images.layer import Layer
from tidegate.images.packages import packages
from tidegate.images.reference import below, parse
from tidegate.images.registry import Registry

Note = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """A built image.

    Attributes:
        family: its family.
        digest: its digest.
        image: its name by digest where it was pushed, else empty.
        environment: the digest of its environment.
        code: the code digest of each component inside.
        size: bytes of its layers as they are stored.
        bill: where its bill of materials is.
    """

    family: str
    digest: str
    image: str = ""
    environment: str = ""
    code: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    bill: str = ""


@dataclass(frozen=True)
class _Parts:
    image: Image
    environment: str
    code: Mapping[str, str]
    bill: bytes


def build(family: Family, registry: str, output: Path, note: Note) -> Built:
    """Build a family's image; push it and write it into ``images.lock``, or put it into the layout in ``output``.

    Args:
        family: what to build.
        registry: where to push, ``HOST[:PORT][/PATH]``; empty: nowhere.
        output: the folder of the layout and of the bills of materials.
        note: told what happens, a line at a time.

    Raises:
        TidegateError: whatever is in the way.
    """
    made = (
        _contained(family, registry, output, note) if family.containerfile else _layered(family, registry, output, note)
    )
    if made.image:
        lock.update(family.root, {family.name: Locked(made.image, made.environment, made.code)})
    return made


def _layered(family: Family, registry: str, output: Path, note: Note) -> Built:
    target = below(registry, family.name) if registry else None
    parts = put_together(family, note)
    bill = _beside(output, family.name, parts.bill)
    pushed = ""
    if target:
        pushed = str(push.push(parts.image, target, note))
        push.attach(parts.image.manifest, target, parts.bill, bill.name)
    else:
        layout.write(parts.image, output, family.name)
    return Built(family.name, parts.image.digest, pushed, parts.environment, parts.code, parts.image.size, str(bill))


def put_together(family: Family, note: Note) -> _Parts:
    """Make the image of a family without a Containerfile, its layers in the user's cache folder.

    Raises:
        TidegateError: whatever is in the way.
    """
    base = bases.resolve(_base(family), family.platform, note)
    below = bases.contents(base, family.python)
    python = Interpreter(below.python, family.python, PLATFORMS[family.platform])
    if not family.lock.is_file():
        raise ConfigError(f"{family.lock} is missing", hint="scripts/lock.sh", code="lock-missing")
    installed = packages(family.lock, python, family.folder.parent / "build-constraints.txt", note)
    tidegate, ours = _tidegate(family, python, [d.folder for d in installed.distributions])
    files = source.entries(family.root, family.files)
    code = source.components(family.root, files)
    app = layer.write(files, blobs.folder(), "source of the project")
    image = assemble(base, [installed.layer, tidegate, app], family.env, {"dev.tidegate.family": family.name})
    found = [*installed.distributions, *ours]
    digest = environment.digest([d.folder for d in found], python)
    return _Parts(image, digest, code, sbom.write(f"{family.name}@{image.digest}", found, below.packages))


def _tidegate(family: Family, python: Interpreter, locked: list[str]) -> tuple[Layer, list[sbom.Distribution]]:
    extra = [shim.compiled(python.machine)] if family.shim else []
    with tempfile.TemporaryDirectory(prefix="tidegate-image-") as folder:
        tree = Path(folder)
        (tree / python.site).mkdir(parents=True)
        if not own.inside(locked):
            own.install(tree, python)
        made = layer.write([*environment.files(tree), *extra], blobs.folder(), "tidegate")
        return made, sbom.installed(tree / python.site)


def _base(family: Family) -> str:
    if family.base:
        return family.base
    raise ConfigError(
        f"nothing says which base image {family.name!r} stands on",
        allowed="An image with Python by digest, NAME@sha256:….",
        hint='--base REF, or base = "REF" in [tool.tidegate.images-build].',
        code="base-missing",
    )


def _beside(output: Path, family: str, bill: bytes) -> Path:
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{family}.cdx.json"
    path.write_bytes(bill)
    return path


def _contained(family: Family, registry: str, output: Path, note: Note) -> Built:
    assert family.containerfile
    tool = container.find()
    base = str(bases.resolve(family.base, family.platform, note).reference) if family.base else ""
    code = source.components(family.root, source.entries(family.root, family.files))
    tag = f"localhost/tidegate-{family.name}:build"
    note(f"building {family.containerfile.relative_to(family.root)} with {tool.name}")
    tool.build(family.containerfile, family.root, base, tag)
    inside = tool.look(tag, sorted(code))
    target = below(registry, family.name) if registry else None
    digest = tool.push(tag, parse(f"{target}:build")) if target else ""
    if not target:
        note(f"the image stays with {tool.name} as {tag}")
    found = [sbom.Distribution(f"{n}-{v}", n, v) for n, v in inside["distributions"]]
    content = sbom.write(f"{family.name}@{digest}" if digest else family.name, found, ())
    bill = _beside(output, family.name, content)
    if target:
        pushed = Registry(target.host).manifest(target.repository, digest)
        push.attach(pushed, target, content, bill.name)
    image = str(target.pinned(digest)) if target else ""
    return Built(family.name, digest, image, inside["environment"], inside["code"], 0, str(bill))
