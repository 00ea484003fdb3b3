"""``flow_component``: a Metaflow flow as a kfp component that runs from an image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidegate.author.command import LOADER
from tidegate.author.component import from_image
from tidegate.contrib.metaflow import step
from tidegate.contrib.metaflow.flow import read
from tidegate.contrib.metaflow.interface import VARIABLE, Interface, adjusted, as_function, checked
from tidegate.errors import DefinitionError
from tidegate.project import PROJECT_FILE, find_root


def flow_component(
    flow: str | Path,
    *,
    artifacts: Mapping[str, type] | None = None,
    metrics: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    image: str = "metaflow",
    name: str | None = None,
) -> Any:
    """Turn a flow, as it is, into a kfp component; its parameters become the component's inputs.

    Args:
        flow: the flow's file; a relative path stands in the project.
        artifacts: which of the end step's artifacts come out, and as what: a class of kfp (``Model``, ``Dataset``,
            ``Artifact``, ``HTML``, ``Markdown``, ``Metrics``), or a type (``float``) for an output parameter.
        metrics: numbers among its artifacts that come out together as the artifact ``metrics``.
        parameters: of the flow's parameters, by name: another default; a type where the file does not show it; a class
            of kfp for an input artifact, of which the flow gets the path.
        image: an image family of ``images.lock`` with Metaflow in it, or a full image reference.
        name: the component's name; the flow's by default, ``wine-flow`` for ``WineFlow``.

    Raises:
        DefinitionError: the file starts no flow, it is in no project, or kfp cannot have its interface.
    """
    if os.environ.get("_KFP_RUNTIME") == "true":  # another component of the module that says this runs
        return flow
    file = (find_root(Path.cwd()) / flow).resolve()
    root = _root(file)
    found = read(file)
    function = f"{file.relative_to(root).as_posix()}:{found.name}"
    kinds = {n: getattr(t, "__name__", repr(t)) for n, t in (artifacts or {}).items()}
    interface = checked(Interface(function, adjusted(found, parameters or {}), kinds, tuple(metrics)))
    made = from_image(as_function(interface, step.perform, found.doc), image, function, root)
    made.component_spec.implementation.container.env = {LOADER: step.__name__, VARIABLE: interface.text()}
    if name:
        made.component_spec.name = name
    return made


def _root(file: Path) -> Path:
    root = find_root(file.parent).resolve()
    if (root / PROJECT_FILE).is_file() and file.is_relative_to(root):
        return root
    raise DefinitionError(
        f"the flow {file} is in no project",
        allowed=f"Files under the folder that holds {PROJECT_FILE}.",
        hint=f"touch {file.parent / PROJECT_FILE}",
        code="component-outside",
    )
