"""What a container's command asks for, and what can do it on this machine.

tidegate's own components and kfp's lightweight components are Python functions: they run in the interpreter that runs
tidegate, or in an environment with the packages they want. Any other command needs its image: the project's image map
(see ``host``) says what stands for it, else podman or docker runs it where one answers, else the plan is refused before
it starts. The images with which kfp makes and deletes volume claims stand for folders.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tidegate.author.closure import closure
from tidegate.engines.local.host import Host, container_runtime
from tidegate.engines.local.packages import Packages, wanted
from tidegate.engines.own import flag, own_step, plain
from tidegate.errors import DefinitionError
from tidegate.ir.placeholder import Template, placeholders
from tidegate.plan.model import Container, Plan

_EXECUTOR_MAIN = re.compile(r"\bkfp\.(dsl|components|v2\.components)\.executor_main\b")  # its places in kfp 2.x
_CLAIMS = {"argostub/createpvc": "create", "argostub/deletepvc": "delete"}


@dataclass(frozen=True)
class PythonStep:
    """A Python function to run: ``PKG.MODULE:FUNC`` with its code digest, or a name inside inlined source."""

    function: str
    code_digest: str = ""
    source: Template | None = None
    packages: Packages = field(default_factory=Packages)

    def imports(self, root: Path) -> frozenset[str]:
        """Third-party top-level modules that the code may import."""
        if self.source:
            return _imports(plain(self.source))
        return closure(self.function.partition(":")[0], root).third_party


@dataclass(frozen=True)
class Shell:
    """A command to run as it is: by a container runtime in its image, or on this machine behind some words."""

    image: str
    runtime: str = ""
    prefix: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A volume claim to make or delete."""

    action: str


Asked = PythonStep | Shell | Claim


def check_commands(plan: Plan, host: Host) -> None:
    """Refuse, before anything starts, a plan with a command that cannot run here.

    Raises:
        DefinitionError: see ``asked``.
    """
    for executor in plan.executors.values():
        if isinstance(executor, Container) and not (placeholders(executor.image) and host.images):
            asked(executor, host, plain(executor.image))


def asked(container: Container, host: Host, image: str) -> Asked:
    """Return what a container's command asks for; ``image`` is its image with placeholders resolved.

    Raises:
        DefinitionError: the command needs an image that nothing here can run (code ``container-refused``).
    """
    if own := own_step(container):
        return PythonStep(own.function, own.code_digest)
    if python := _lightweight(container):
        return python
    if image in _CLAIMS:
        return Claim(_CLAIMS[image])
    prefix = host.prefix(image)
    if prefix is not None and (container.command or prefix):
        return Shell(image, prefix=prefix)
    if runtime := container_runtime():
        return Shell(image, runtime)
    command = " ".join(plain(t) for t in container.command)[:80]
    raise DefinitionError(
        f"the image {image!r} runs {command!r} in a container"
        if command
        else f"{image!r} runs what it was built to run",
        allowed="Containers run where podman or docker answers, or as [tool.tidegate.images] in pyproject.toml says"
        + (", which cannot be: only the image knows its command." if prefix == () else "."),
        hint=f'Install podman, or map the image to this machine: "{image}" = "host"' if command else "Install podman.",
        code="container-refused",
    )


def _lightweight(container: Container) -> PythonStep | None:
    """kfp's own: pip lines, a script with kfp's executor in it, the source, and the function's name as an argument."""
    command = [plain(t) for t in container.command]
    at = next((i for i, text in enumerate(command[:-1]) if _EXECUTOR_MAIN.search(text) and "$0" in text), None)
    if at is None:
        return None
    function = flag([plain(t) for t in container.args], "--function_to_execute")
    return PythonStep(function, source=container.command[at + 1], packages=wanted(command[:at]))


@lru_cache(maxsize=4096)
def _imports(source: str) -> frozenset[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return frozenset()
    found = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    found += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    return frozenset(name.partition(".")[0] for name in found) - sys.stdlib_module_names - {"tidegate", ""}
