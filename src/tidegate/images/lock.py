"""Writing ``images.lock``: what was pushed, whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tidegate.author.images import Family, read_lock


def update(root: Path, families: Mapping[str, Family]) -> None:
    """Put families into the project's ``images.lock``; those of other builds stay, also of one at the same time.

    Raises:
        ConfigError: the file that is there cannot be read.
    """
    with _alone(root):
        text = render({**read_lock(root).families, **families})
        with tempfile.NamedTemporaryFile("w", dir=root, prefix=".images.lock-", delete=False) as out:
            part = Path(out.name)
            try:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
                part.chmod(0o644)
                part.replace(root / "images.lock")
            finally:
                part.unlink(missing_ok=True)


def render(families: Mapping[str, Family]) -> str:
    """The text of an ``images.lock``."""
    lines = ["# Written by `tidegate images build --push`.", "version = 1"]
    for name, family in sorted(families.items()):
        lines += [
            "",
            f"[family.{name}]",
            f"image = {_text(family.image)}",
            f"environment = {_text(family.environment)}",
        ]
        lines += ["", f"[family.{name}.code]", *(f"{_text(f)} = {_text(d)}" for f, d in sorted(family.code.items()))]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
