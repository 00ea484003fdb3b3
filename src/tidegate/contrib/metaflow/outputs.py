"""A flow's artifacts as files: in forms that others read without Python's pickle.

| the artifact | the file |
|---|---|
| bytes | as they are |
| a ``pathlib.Path`` | what is there, a file or a folder |
| a dictionary of bytes by file name | a folder with these files |
| a table with ``write_parquet`` or ``to_parquet`` | a folder with ``part-0.parquet`` |
| text for ``HTML`` or ``Markdown`` | as it is |
| numbers by name for ``Metrics`` | the artifact's metadata |
| what JSON can say; arrays as lists | JSON |
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate.contrib.metaflow.flow import TYPES
from tidegate.errors import StepFailed

_TEXTS = ("HTML", "Markdown")


def write(name: str, value: Any, kind: str, path: Path) -> dict[str, Any]:
    """Write an artifact; return what belongs into its metadata.

    Args:
        name: what the flow calls it.
        value: what it is.
        kind: the kfp class that it comes out as.
        path: where to.

    Raises:
        StepFailed: it has no form but a pickle (code ``flow-artifact``).
    """
    if kind == "Metrics":
        numbers = value if isinstance(value, Mapping) else {name: value}
        return {str(n): number(f"{name}[{n!r}]", v) for n, v in numbers.items()}
    if kind in _TEXTS and isinstance(value, str):
        path.write_text(value)
    elif isinstance(value, bytes | bytearray):
        path.write_bytes(value)
    elif isinstance(value, Path):
        _copy(name, value, path)
    elif isinstance(value, Mapping) and any(isinstance(v, bytes) for v in value.values()):
        _folder(name, value, path)
    elif hasattr(value, "write_parquet") or hasattr(value, "to_parquet"):
        _table(value, path)
    else:
        path.write_text(_json(name, value))
    return {}


def number(name: str, value: Any) -> float | int:
    """Return a finite number.

    Raises:
        StepFailed: it is none.
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not math.isfinite(plain):
        raise _refused(name, f"is {plain!r}"[:80], "A metric is a finite number.")
    return plain


def parameter(name: str, value: Any, kind: str) -> Any:
    """Return an artifact as an output parameter of a type.

    Raises:
        StepFailed: it is of another one.
    """
    plain = _plain(value)
    accepted = (int, float) if kind == "float" else TYPES[kind]
    if not isinstance(plain, accepted) or (isinstance(plain, bool) and kind != "bool"):
        raise _refused(name, f"is a {type(value).__name__}", f"The component says it is a {kind}.")
    if isinstance(plain, dict | list):
        return json.loads(_json(name, plain))
    return plain


def _plain(value: Any) -> Any:
    """A number or an array of numpy or the like as Python's own."""
    convert = getattr(value, "tolist", None)
    return convert() if callable(convert) else value


def _copy(name: str, source: Path, path: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, path)
    elif source.is_file():
        shutil.copyfile(source, path)
    else:
        raise _refused(name, f"names {source}, where nothing is", "A file or folder that is still there at the end.")


def _folder(name: str, files: Mapping[Any, Any], path: Path) -> None:
    for file, content in files.items():
        target = path / str(file)
        if not isinstance(content, bytes) or not target.resolve().is_relative_to(path.resolve()) or target == path:
            raise _refused(
                name, f"has {file!r} in it, a {type(content).__name__}", "Bytes by names of files in a folder."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _table(value: Any, path: Path) -> None:
    path.mkdir(parents=True)
    file = path / "part-0.parquet"
    if hasattr(value, "write_parquet"):
        value.write_parquet(file, statistics=False)
    else:
        value.to_parquet(file)


def _json(name: str, value: Any) -> str:
    try:
        return json.dumps(_plain(value), default=_said, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as e:
        allowed = "Bytes, a pathlib.Path, bytes by file name, a table, or what JSON can say."
        hint = "Let the flow keep it in such a form: a model as ONNX or skops, never a pickle."
        raise _refused(name, f"is a {type(value).__name__} that is no JSON: {e}", allowed, hint) from e


def _said(value: Any) -> Any:
    plain = _plain(value)
    if plain is value:
        raise TypeError(f"a {type(value).__name__}")
    return plain


def _refused(name: str, found: str, allowed: str, hint: str = "") -> StepFailed:
    return StepFailed(f"the flow's artifact {name!r} {found}", allowed=allowed, hint=hint, code="flow-artifact")
