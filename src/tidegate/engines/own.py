"""What every engine asks of a container's command: whether it is one of tidegate's own components, and which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.author.command import COMMAND
from tidegate.ir.placeholder import Template, Text
from tidegate.plan.model import Container


@dataclass(frozen=True)
class OwnStep:
    """A component whose code comes from its image: ``PKG.MODULE:FUNC`` and the digest of its code."""

    function: str
    code_digest: str


def own_step(container: Container) -> OwnStep | None:
    """Return the function of one of tidegate's own components, None for any other command."""
    if tuple(plain(t) for t in container.command) != COMMAND:
        return None
    args = [plain(t) for t in container.args]
    return OwnStep(flag(args, "--function_to_execute"), flag(args, "--code_digest"))


def plain(template: Template) -> str:
    """The text of a template, its placeholders left out."""
    return "".join(p for p in template.parts if isinstance(p, str)) if isinstance(template, Text) else ""


def flag(args: Sequence[str], name: str) -> str:
    """The word behind a flag, empty where there is none."""
    return args[args.index(name) + 1] if name in args[:-1] else ""
