"""``images.lock``: which image a family's name stands for, and what code and environment are inside it.

::

    version = 1

    [family.train]
    image = "registry.example/team/train@sha256:…"
    environment = "sha256:…"

    [family.train.code]
    "components.train_sklearn.component:train_sklearn" = "sha256:…"

A family without an image compiles to ``tidegate.invalid/<family>``, which no registry serves.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.errors import CodeMismatch, ConfigError, DefinitionError

UNRESOLVED = "tidegate.invalid"
_FILES = "[tool.tidegate.images-build]"
REBUILD = "tidegate images build --push REGISTRY"
_FAMILY = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PINNED = re.compile(r".+@sha256:[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Family:
    """One image family: its image by digest, its environment's digest, the code digest of each component inside."""

    image: str = ""
    environment: str = ""
    code: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImagesLock:
    """The parsed ``images.lock``."""

    families: Mapping[str, Family] = field(default_factory=dict)

    def image(self, name: str) -> str:
        """Return the reference that a component of the family (or full reference) ``name`` compiles to."""
        if not _FAMILY.fullmatch(name):
            return name
        family = self.families.get(name)
        return family.image if family and family.image else f"{UNRESOLVED}/{name}"


def read_lock(root: Path) -> ImagesLock:
    """Read ``images.lock`` in the project's root; an absent one knows no family.

    Raises:
        ConfigError: the file cannot be parsed, or an image in it has no digest.
    """
    path = root / "images.lock"
    try:
        parsed = tomllib.loads(path.read_text())  # opened though it may be absent: kept definitions note that it is
        families = {name: _family(name, body) for name, body in parsed.get("family", {}).items()}
    except FileNotFoundError:
        return ImagesLock()
    except (OSError, ValueError, AttributeError, TypeError) as e:
        raise ConfigError(
            f"{path} cannot be read: {e}",
            hint=REBUILD,
            code="images-lock",
        ) from e
    if parsed.get("version") != 1:
        raise ConfigError(f"{path} has version {parsed.get('version')!r}", allowed="version = 1", code="images-lock")
    return ImagesLock(families)


def _family(name: str, body: Mapping[str, Any]) -> Family:
    image, environment, code = body.get("image", ""), body.get("environment", ""), dict(body.get("code", {}))
    if image and not _PINNED.fullmatch(image):
        raise ConfigError(
            f"images.lock: family {name!r} has the image {image!r}",
            allowed="An image by digest, NAME@sha256:…: a tag can change under a running pipeline.",
            hint=REBUILD,
            code="image-mutable",
        )
    if bad := [d for d in (environment, *code.values()) if d and not _DIGEST.fullmatch(d)]:
        raise ConfigError(f"images.lock: family {name!r} has the digest {bad[0]!r}", allowed="sha256:<64 hex digits>")
    return Family(image, environment, code)


def family_of(image: str) -> str:
    """The family whose image is not known that an image stands for; empty for every other image."""
    return image.removeprefix(f"{UNRESOLVED}/") if image.startswith(f"{UNRESOLVED}/") else ""


def check_families(missing: Iterable[str], root: Path, launcher: str = "") -> None:
    """Refuse families without an image, all at once, saying how to get them.

    Args:
        missing: those that components name.
        root: the project's root.
        launcher: the one whose image brings inputs to steps in images of others, where the engine has none.

    Raises:
        DefinitionError: there is one (code ``family-missing``).
    """
    names = sorted({launcher, *missing} - {""})
    if not names:
        return
    build = f"tidegate images build {' '.join(names)} --push REGISTRY"
    absent = [f"cp -r TIDEGATE/images/base images/{n}" for n in names if not (root / "images" / n).is_dir()]
    copy = f"mkdir -p images; {'; '.join(absent)} (TIDEGATE: its repository, see docs/images.md there); then {build}"
    setting = f" {launcher} holds the launcher: image = … in [tool.tidegate.argo] does too." if launcher else ""
    raise DefinitionError(
        f"images.lock names no image of {'these families' if len(names) > 1 else 'the family'}: {', '.join(names)}",
        allowed=f"A cluster runs images that were pushed, by digest.{setting}",
        hint=copy if absent else build,
        code="family-missing",
    )


def check_pinned(image: str) -> None:
    """Refuse an image that could change between compiling and running.

    Raises:
        DefinitionError: the reference has no digest (code ``image-mutable``).
    """
    if not _PINNED.fullmatch(image):
        raise DefinitionError(
            f"the image {image!r} has no digest",
            allowed="A cluster runs images by digest, NAME@sha256:….",
            hint="Name it NAME@sha256:…, or let it change: --allow-tags",
            code="image-mutable",
        )


def check_code(lock: ImagesLock, image: str, function: str, digest: str) -> None:
    """Refuse a component whose code differs from what the lock says is inside its image.

    Args:
        lock: the parsed lock.
        image: the image by digest that the component compiled to.
        function: ``PKG.MODULE:FUNC``.
        digest: the component's code digest in the working tree.

    Raises:
        CodeMismatch: the image holds other code, or none of that name.
    """
    for name, family in lock.families.items():
        if family.image == image and (held := family.code.get(function)) != digest:
            left_out = (
                f"; before, where it is missing there, {function.partition('.')[0]!r} goes into files of {_FILES}"
            )
            raise CodeMismatch(
                f"component {function} has the code {digest[:19]}… here, "
                f"the image of family {name!r} holds {(held or 'none')[:19]}",
                allowed="The code in the image and the code in the working tree are the same.",
                hint=f"tidegate images build {name} --push REGISTRY{'' if held else left_out}",
            )
