"""``@tidegate.component``: a kfp Python component whose code comes from the image instead of being inlined.

The result is a real kfp component (same type hints, same ``Input[Dataset]``, accepted by kfp's compiler). Its
command is ``python -m tidegate.author.step --executor_input {{$}} --function_to_execute PKG.MODULE:FUNC
--code_digest sha256:…``.
Under ``_KFP_RUNTIME=true``, where ``kfp.dsl`` has no DSL, the decorator returns the plain function.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, overload

from tidegate.author.closure import closure
from tidegate.author.command import COMMAND, REGISTRAR
from tidegate.author.images import read_lock
from tidegate.errors import DefinitionError
from tidegate.project import find_root

F = TypeVar("F", bound=Callable[..., Any])


@overload
def component(func: F, /) -> Any: ...
@overload
def component(*, image: str = ..., name: str | None = ..., registrar: bool = ...) -> Callable[[F], Any]: ...


def component(func: Any = None, /, *, image: str = "base", name: str | None = None, registrar: bool = False) -> Any:
    """Turn a function into a kfp component that runs from the image family ``image``.

    Args:
        func: a module-level function with kfp's type hints.
        image: an image family of ``images.lock`` (``base``, ``train``, ``serve`` …) or a full image reference.
        name: the component's name; the function's name with dashes by default.
        registrar: it writes the registry: on a cluster it gets credentials that other steps do not have.

    Raises:
        DefinitionError: the function is not at the top level of a module under the project's root, or its
            annotations are strings (``from __future__ import annotations``).
    """
    return _wrap(func, image, name, registrar) if func else lambda f: _wrap(f, image, name, registrar)


def _wrap(func: Callable[..., Any], image: str, name: str | None, registrar: bool) -> Any:
    if os.environ.get("_KFP_RUNTIME") == "true":
        return func
    _check_annotations(func)
    root, module = locate(func)
    made = from_image(func, image, f"{module}:{func.__name__}", root)
    if registrar:
        made.component_spec.implementation.container.env = {REGISTRAR: "true"}
    if name:
        made.component_spec.name = name
    return made


def from_image(func: Callable[..., Any], image: str, function: str, root: Path) -> Any:
    """Make a kfp component with the interface of ``func`` that runs ``function`` from an image.

    Args:
        func: a function with kfp's type hints.
        image: an image family of ``images.lock`` or a full image reference.
        function: ``PKG.MODULE:FUNC`` or ``FOLDER/SCRIPT.py:NAME``, below ``root``.
        root: the project's root.
    """
    from kfp import dsl

    made = dsl.component(func, base_image=read_lock(root).image(image), install_kfp_package=False)
    container = made.component_spec.implementation.container
    container.command = list(COMMAND)
    container.args = [
        *("--executor_input", "{{$}}"),
        *("--function_to_execute", function),
        *("--code_digest", closure(function.partition(":")[0], root).digest),
    ]
    return made


def locate(func: Callable[..., Any]) -> tuple[Path, str]:
    """Return the project's root and the dotted module name, relative to it, that ``func`` is imported from."""
    file = Path(inspect.getsourcefile(func) or "").resolve()
    if func.__qualname__ != func.__name__ or not file.is_file():
        raise DefinitionError(
            f"component {func.__qualname__!r} is not at the top level of a file",
            allowed="A component is imported by name inside its image, so it is a module-level function.",
            hint="Move it out of the function or class around it.",
            code="component-nested",
        )
    root = find_root(file.parent)
    if not (root / "pyproject.toml").is_file():
        # no project file: the folder that the module's dotted name starts from, as it was imported
        depth = func.__module__.count(".") if func.__module__ != "__main__" else 0
        root = file.parents[depth]
    if not file.is_relative_to(root):
        raise DefinitionError(
            f"component {func.__name__!r} in {file} is outside the project {root}",
            allowed="Files under the folder that holds pyproject.toml.",
            code="component-outside",
        )
    return root, ".".join(file.relative_to(root).with_suffix("").parts)


def _check_annotations(func: Callable[..., Any]) -> None:
    if any(isinstance(a, str) for a in func.__annotations__.values()):
        raise DefinitionError(
            f"the annotations of component {func.__name__!r} are strings",
            allowed="kfp reads a component's interface from real annotations, such as Input[Dataset].",
            hint=f"Remove `from __future__ import annotations` from {inspect.getsourcefile(func)}.",
            code="component-string-annotations",
        )
