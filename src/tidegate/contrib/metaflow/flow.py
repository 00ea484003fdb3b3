"""A flow as its file says it, read without running it: its name and the parameters it takes.

So a pipeline with a flow in it compiles where neither Metaflow nor the flow's own libraries are installed. A default that
is no literal (a deploy-time function) is not known here; the flow fills it in when it runs.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import DefinitionError

TYPES: Mapping[str, type] = {t.__name__: t for t in (int, float, bool, str, dict, list)}
FILE = "file"  # what an IncludeFile takes
_ORDER = {
    "Parameter": ("name", "default", "type", "help", "required"),
    "IncludeFile": ("name", "required", "is_text", "encoding", "help"),
}
_UNKNOWN = object()


@dataclass(frozen=True)
class Parameter:
    """One parameter of a flow.

    Attributes:
        name: its name on Metaflow's command line, ``learning-rate``.
        type: a name of ``TYPES``, ``file``, or an artifact class of kfp where the pipeline says so.
        default: None where it has none, or one that only the flow knows.
        required: the flow does not start without it.
        help: what it is.
    """

    name: str
    type: str = "str"
    default: Any = None
    required: bool = False
    help: str = ""

    @property
    def input(self) -> str:
        """Its name as an input of a component."""
        return self.name.replace("-", "_")

    @property
    def is_artifact(self) -> bool:
        """Whether it is an input artifact, of which the flow gets what is in it or where it is."""
        return self.type not in TYPES


@dataclass(frozen=True)
class Flow:
    """The flow that a file starts."""

    name: str
    parameters: tuple[Parameter, ...]
    doc: str = ""


def read(file: Path) -> Flow:
    """Read the flow that ``python FILE run`` runs.

    Raises:
        DefinitionError: the file cannot be read, or starts no flow, or several (code ``flow-unreadable``).
    """
    try:
        module = ast.parse(file.read_bytes(), str(file))
    except (OSError, SyntaxError, ValueError) as e:
        raise _unreadable(f"the flow {file} cannot be read: {e}") from e
    classes = {n.name: n for n in module.body if isinstance(n, ast.ClassDef)}
    started = [name for name in classes if name in _started(module)]
    if len(started) != 1:
        raise _unreadable(
            f"{file} starts {', '.join(started) or 'none'} of its classes {', '.join(classes) or '(none)'}"
        )
    names = _Names.of(module)
    found = {p.name: p for body in _lineage(started[0], classes) for p in _parameters(body, names)}
    return Flow(started[0], tuple(found.values()), ast.get_docstring(classes[started[0]]) or "")


def _unreadable(found: str) -> DefinitionError:
    return DefinitionError(
        found,
        allowed="A Python file with one FlowSpec that it starts.",
        hint='Its end is: if __name__ == "__main__": MyFlow()',
        code="flow-unreadable",
    )


def _started(module: ast.Module) -> set[str]:
    """What the file calls by name when it is run."""
    outer = [n for n in module.body if not isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
    calls = [c for n in outer for c in ast.walk(n) if isinstance(c, ast.Call)]
    return {c.func.id for c in calls if isinstance(c.func, ast.Name)}


def _lineage(name: str, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """The bodies that make up a class, as far as they stand in its file: bases first."""
    for base in classes[name].bases:
        if isinstance(base, ast.Name) and base.id in classes and classes[base.id].lineno < classes[name].lineno:
            yield from _lineage(base.id, classes)
    yield classes[name]


@dataclass(frozen=True)
class _Names:
    """What names stand for in a file: what it imported under another name, and its constants."""

    imported: Mapping[str, str]
    constants: Mapping[str, Any]

    @classmethod
    def of(cls, module: ast.Module) -> _Names:
        imports = [a for n in module.body if isinstance(n, ast.ImportFrom) for a in n.names]
        constants = {
            target.id: value
            for node in module.body
            if isinstance(node, ast.Assign) and (value := _literal(node.value)) is not _UNKNOWN
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        return cls({a.asname or a.name: a.name for a in imports}, constants)

    def name(self, node: ast.expr | None) -> str:
        """The name that something was imported by, or is a member under: ``JSONType`` of ``metaflow.JSONType``."""
        if isinstance(node, ast.Attribute):
            return node.attr
        return self.imported.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    def value(self, node: ast.expr | None) -> Any:
        if isinstance(node, ast.Name):
            return self.constants.get(node.id, _UNKNOWN)
        return _UNKNOWN if node is None else _literal(node)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _UNKNOWN


def _parameters(body: ast.ClassDef, names: _Names) -> Iterator[Parameter]:
    for node in body.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Call) and (kind := names.name(value.func)) in _ORDER:
            said = dict(zip(_ORDER[kind], value.args, strict=False)) | {k.arg: k.value for k in value.keywords if k.arg}
            name = names.value(said.get("name"))
            if isinstance(name, str):
                yield _parameter(name, kind, said, names)


def _parameter(name: str, kind: str, said: Mapping[str, ast.expr], names: _Names) -> Parameter:
    text = names.value(said.get("help"))
    default, required = names.value(said.get("default")), names.value(said.get("required")) is True
    made = Parameter(name, required=required and "default" not in said, help=text if isinstance(text, str) else "")
    if kind == "IncludeFile":  # its own default is a path beside the flow, which stays the flow's business
        return Parameter(name, FILE, required=required, help=made.help)
    type_ = names.name(said.get("type"))
    if type_ == "JSONType":
        default = _json(default)
        type_ = "list" if isinstance(default, list) else "dict"
    elif type_ not in TYPES:
        type_ = type(default).__name__ if type(default).__name__ in TYPES else "str"
    return Parameter(name, type_, _as(type_, default), made.required, made.help)


def _json(default: Any) -> Any:
    try:
        return json.loads(default) if isinstance(default, str) else default
    except ValueError:
        return _UNKNOWN


def _as(type_: str, default: Any) -> Any:
    """A default as kfp writes it; None where it is none of its type."""
    if type_ == "float" and type(default) is int:
        return float(default)
    return default if isinstance(default, TYPES[type_]) else None
