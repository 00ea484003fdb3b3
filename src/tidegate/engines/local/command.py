"""What a container's command asks for, seen from a machine without containers.

tidegate's own components and kfp's lightweight components are Python functions: they run in the interpreter that runs
tidegate. kfp writes a pip line in front of a lightweight component; it is recognised, and not run when this
environment already satisfies it. Any other command needs its image.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from tidegate.author.closure import closure
from tidegate.author.component import COMMAND
from tidegate.errors import DefinitionError
from tidegate.ir.placeholder import Template, Text
from tidegate.plan.model import Container, Plan

_EXECUTOR_MAIN = "kfp.dsl.executor_main"
_REQUIREMENT = re.compile(r"'([A-Za-z0-9][^']*)'")


@dataclass(frozen=True)
class PythonStep:
    """A Python function to run: ``PKG.MODULE:FUNC`` with its code digest, or a name inside inlined source."""

    function: str
    code_digest: str = ""
    source: str = ""

    def imports(self, root: Path) -> frozenset[str]:
        """Third-party top-level modules that the code may import."""
        if self.source:
            return _imports(self.source)
        return closure(self.function.partition(":")[0], root).third_party


def check_commands(plan: Plan) -> None:
    """Refuse, before anything starts, a plan with a command that cannot run here.

    Raises:
        DefinitionError: see ``python_step``.
    """
    for executor in plan.executors.values():
        if isinstance(executor, Container):
            python_step(executor)


def own_step(container: Container) -> PythonStep | None:
    """Return the function of one of tidegate's own components, None for any other command."""
    if tuple(_plain(t) for t in container.command) != COMMAND:
        return None
    args = [_plain(t) for t in container.args]
    return PythonStep(_flag(args, "--function_to_execute"), _flag(args, "--code_digest"))


def python_step(container: Container) -> PythonStep:
    """Return the Python function that a container's command runs.

    Raises:
        DefinitionError: the command is no Python component (code ``container-refused``), or the packages it wants
            installed are not here (code ``packages-missing``).
    """
    if own := own_step(container):
        return own
    command, args = [_plain(t) for t in container.command], [_plain(t) for t in container.args]
    for text, source in zip(command, [*command[1:], ""], strict=True):
        if _EXECUTOR_MAIN in text and source:
            _check_packages(command[: command.index(text)])
            return PythonStep(_flag(args, "--function_to_execute"), source=source)
    image = _plain(container.image)
    raise DefinitionError(
        f"the image {image!r} runs the command {' '.join(command)[:80]!r}, which needs a container",
        allowed="The local engine runs Python components: @tidegate.component and @dsl.component.",
        code="container-refused",
    )


def _plain(template: Template) -> str:
    """The text of a template without placeholders; one with any is no part of a Python component's command."""
    return "".join(p for p in template.parts if isinstance(p, str)) if isinstance(template, Text) else ""


def _flag(args: Sequence[str], name: str) -> str:
    return args[args.index(name) + 1] if name in args[:-1] else ""


def _imports(source: str) -> frozenset[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return frozenset()
    found = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    found += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    return frozenset(name.partition(".")[0] for name in found) - sys.stdlib_module_names - {"tidegate", ""}


def _check_packages(pip_lines: Sequence[str]) -> None:
    wanted = [r for line in pip_lines if "pip install" in line for r in _REQUIREMENT.findall(line)]
    missing = [r for r in wanted if not r.startswith("kfp==") and not _satisfied(r)]
    if missing:
        raise DefinitionError(
            f"a component wants {', '.join(missing)} installed, which this environment does not have",
            allowed="packages_to_install that the environment running tidegate already satisfies.",
            hint="pip install " + " ".join(f"'{r}'" for r in missing),
            code="packages-missing",
        )


def _satisfied(requirement: str) -> bool:
    try:
        wanted = Requirement(requirement)
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except (InvalidRequirement, metadata.PackageNotFoundError):
        return False
