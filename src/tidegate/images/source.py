"""The project's source as it goes into an image: its files, and the components found in them without running any."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tidegate.author.closure import closure
from tidegate.errors import ConfigError, Refused
from tidegate.images.layer import Entry
from tidegate.images.own import PACKAGE

ROOT = "app"
FILES = ("components", "pipelines", "src", "pyproject.toml")
_CACHES = {"__pycache__", "node_modules", "venv", "mlruns"}


def entries(root: Path, names: Sequence[str]) -> list[Entry]:
    """The files below ``root`` that go into the image, under ``/app``.

    What git ignores, hidden files and caches stay out; so does tidegate's own source, which the environment holds.

    Args:
        root: the project's root.
        names: files and folders of the project.

    Raises:
        ConfigError: a name or a link leads out of the project (code ``image-outside``).
    """
    found = [_entry(root, path) for path in _chosen(root, names)]
    return sorted(found, key=lambda e: e.path)


def _chosen(root: Path, names: Sequence[str]) -> Iterator[Path]:
    listed = _of_git(root)
    for name in names:
        top = root / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not top.resolve().is_relative_to(root.resolve()):
            raise ConfigError(f"{name!r} is not below {root}", allowed="Names in the project.", code="image-outside")
        for path in [top] if not top.is_dir() else top.rglob("*"):
            if _wanted(path, root) and (listed is None or str(path.relative_to(root)) in listed):
                yield path


def _wanted(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts
    if any(p.startswith(".") or p in _CACHES for p in parts) or path.suffix == ".pyc":
        return False
    return (path.is_symlink() or path.is_file()) and not path.resolve().is_relative_to(PACKAGE)


def _of_git(root: Path) -> frozenset[str] | None:
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    names = frozenset(os.fsdecode(n) for n in done.stdout.split(b"\0") if n)
    # none at all: the project stands in a folder that a repository around it ignores
    return names if done.returncode == 0 and names else None


def _entry(root: Path, path: Path) -> Entry:
    name = f"{ROOT}/{path.relative_to(root).as_posix()}"
    if not path.is_symlink():
        return Entry(name, path, executable=bool(path.stat().st_mode & stat.S_IXUSR))
    target = str(path.readlink())
    if Path(target).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(
            f"the link {path} leads to {target}", allowed="Relative links within the project.", code="image-outside"
        )
    return Entry(name, link=target)


def components(root: Path, found: Sequence[Entry]) -> dict[str, str]:
    """The code digest of each component in the files that go into the image, by ``PKG.MODULE:FUNC``.

    A flow of Metaflow, which any pipeline may make a component of, is one too, by ``FOLDER/FILE.py:CLASS``.

    Raises:
        Refused: a component needs a file that is not among them (code ``image-incomplete``).
    """
    paths = {e.path.removeprefix(f"{ROOT}/") for e in found}
    digests: dict[str, str] = {}
    for path in sorted(p for p in paths if p.endswith(".py")):
        for component in _components(root / path, path):
            code = closure(component.partition(":")[0], root)
            if missing := sorted(set(code.files) - paths):
                raise Refused(
                    f"component {component} needs {missing[0]}, which does not go into the image",
                    allowed="Files that git does not ignore, below files = […] of [tool.tidegate.images-build].",
                    code="image-incomplete",
                )
            digests[component] = code.digest
    return digests


def _components(file: Path, path: str) -> Iterator[str]:
    """The functions of a file that are decorated as components of ours, and its flows."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    names = _names(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(_decorates(d, names) for d in node.decorator_list):
            yield f"{'.'.join(Path(path).with_suffix('').parts)}:{node.name}"
        elif isinstance(node, ast.ClassDef) and any(_is_flow(base) for base in node.bases):
            yield f"{path}:{node.name}"


def _is_flow(base: ast.expr) -> bool:
    return (base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")) == "FlowSpec"


def _names(tree: ast.Module) -> Mapping[str, str]:
    """What the module calls tidegate and its decorator: name -> what it stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                (a.asname or a.name.partition(".")[0]): a.name for a in node.names if a.name.startswith("tidegate")
            }
        elif isinstance(node, ast.ImportFrom) and node.module in ("tidegate", "tidegate.author.component"):
            names |= {(a.asname or a.name): "component" for a in node.names if a.name == "component"}
    return names


def _decorates(decorator: ast.expr, names: Mapping[str, str]) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(called, ast.Name):
        return names.get(called.id) == "component"
    return isinstance(called, ast.Attribute) and called.attr == "component" and _top(called) in names


def _top(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
