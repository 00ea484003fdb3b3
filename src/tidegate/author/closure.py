"""The import closure of a component: every first-party file its code needs, found without running any of it.

A module is first-party when its file lies under the project's root, or under ``src/`` there, and not in an environment
(``site-packages``, ``.venv``). Third-party packages and tidegate itself belong to the *environment* digest instead.
Imports inside functions count; names built at run time do not. A data file counts when the code names it: a string
literal of a closure module that is the path of an existing file beside that module.

A script is named by its path, ``jobs/report.py``. It finds modules beside it first, as Python does for what it runs.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import SOURCE_SUFFIXES
from pathlib import Path

_ENVIRONMENTS = {"site-packages", "dist-packages", ".venv", "venv", "node_modules"}


@dataclass(frozen=True)
class Closure:
    """What a component's code consists of.

    Attributes:
        files: first-party files, relative to the project's root, sorted.
        digest: ``sha256:`` over the lines ``<sha256> <file>``; says nothing of where the root stands.
        third_party: top-level names of everything else that is imported.
    """

    files: tuple[str, ...]
    digest: str
    third_party: frozenset[str]


def closure(module: str, root: Path) -> Closure:
    """Follow the imports of the dotted ``module``, or of a script, through the first-party files under ``root``.

    A module that cannot be parsed counts with its bytes; what it would import is not followed.
    """
    folders = [*([(root / module).parent] if is_script(module) else []), root, root / "src"]
    files: set[str] = set()
    third_party: set[str] = set()
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        found = _script(module, root) if name == module and is_script(module) else _found(name, folders)
        if not found:
            third_party.add(name.partition(".")[0])
            continue
        files.update(str(f.relative_to(root)) for f in found)
        scan = _scan(found[-1], found[-1].stat().st_mtime_ns)
        files.update(str(f.relative_to(root)) for f in _named_files(scan.literals, found[-1].parent, root))
        todo += [_absolute(level, target, name, found[-1]) for level, target in scan.imports]
    names = frozenset(third_party - set(sys.stdlib_module_names) - {"tidegate", ""})
    return Closure(tuple(sorted(files)), _digest(sorted(files), root), _without_submodule_guesses(names, root))


def is_script(module: str) -> bool:
    """Whether a name is that of a script, not of a module."""
    return module.endswith(SOURCE_SUFFIXES[0])


def _script(path: str, root: Path) -> tuple[Path, ...]:
    file = root / path
    return (file,) if file.is_file() and file.resolve().is_relative_to(root.resolve()) else ()


def _found(name: str, folders: list[Path]) -> tuple[Path, ...]:
    return next((found for folder in folders if (found := _first_party(name, folder))), ())


def _digest(files: list[str], root: Path) -> str:
    lines = (f"{_file_sha256(root / f)} {f}\n" for f in files)
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _without_submodule_guesses(names: frozenset[str], root: Path) -> frozenset[str]:
    # ``from pkg import name`` also asks for pkg.name as a module; a first-party top folder is not third-party
    return frozenset(n for n in names if not (root / n).is_dir() and not (root / f"{n}.py").is_file())


@dataclass(frozen=True)
class _Scan:
    imports: tuple[tuple[int, str], ...]
    literals: frozenset[str]


@lru_cache(maxsize=4096)
def _scan(path: Path, _mtime: int) -> _Scan:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return _Scan((), frozenset())
    imports: list[tuple[int, str]] = []
    literals: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, a.name) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            imports += [(node.level, base)] if base else []
            imports += [(node.level, f"{base}.{a.name}" if base else a.name) for a in node.names if a.name != "*"]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 200:
            literals.add(node.value)
    return _Scan(tuple(imports), frozenset(literals))


def _absolute(level: int, target: str, module: str, file: Path) -> str:
    if not level:
        return target
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*package[: len(package) - level + 1], target])


def _first_party(module: str, root: Path) -> tuple[Path, ...]:
    """The files that importing ``module`` runs: each package's ``__init__.py`` on the way, then the module itself."""
    if module.partition(".")[0] == "tidegate":
        return ()
    files: list[Path] = []
    folder = root
    parts = module.split(".")
    for i, part in enumerate(parts):
        package, plain = folder / part / "__init__.py", folder / f"{part}{SOURCE_SUFFIXES[0]}"
        if package.is_file():
            files.append(package)
        elif i == len(parts) - 1 and plain.is_file():
            files.append(plain)
            return tuple(files)
        elif not (folder / part).is_dir() or part in _ENVIRONMENTS:
            return ()
        folder = folder / part
    return tuple(files) if files and files[-1].parent == folder else ()


def _named_files(literals: frozenset[str], folder: Path, root: Path) -> Iterator[Path]:
    for text in literals:
        if "\0" in text or "\n" in text or text.startswith("/") or text.endswith(".py"):
            continue
        path = (folder / text).resolve()
        if path.is_file() and path.is_relative_to(root) and not _ENVIRONMENTS & set(path.parts):
            yield path


def _file_sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
