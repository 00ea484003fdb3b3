"""signature.json: what a model takes and gives, as its folder says it.

::

    {"schema": "tidegate/model/1", "task": "classification",
     "inputs": [{"name": "amount", "datatype": "FP64", "shape": [-1]}, …],      one tensor per raw column
     "outputs": [{"name": "label", …}, {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
     "classes": ["ham", "spam"],
     "tokenizer": {"file": "tokenizer.json", "max_length": 64}}                 only for text

Datatypes are those of the Open Inference Protocol v2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import ModelRefused

SCHEMA = "tidegate/model/1"
# the protocol's datatypes by numpy's names
DATATYPES = {
    "BOOL": "bool", "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "FP32": "float32", "FP64": "float64", "BYTES": "str",
}  # fmt: skip
FILE, MAX_BYTES = "signature.json", 1 << 20


@dataclass(frozen=True)
class Tensor:
    """A named input or output: its datatype and shape, -1 for the number of rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """The tensor as model metadata says it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer file of the model's folder, and the length to cut at, in tokens."""

    file: str
    max_length: int


@dataclass(frozen=True)
class Signature:
    """A checked signature."""

    task: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    classes: tuple[Any, ...]
    tokenizer: Tokenizer | None = None


def read_signature(folder: Path) -> Signature:
    """Read ``signature.json`` of a model's folder.

    Raises:
        ModelRefused: it is missing or says something we do not know (code ``model-invalid``).
    """
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise invalid("signature.json is too large")
        return parse_signature(path.read_bytes())
    except OSError as e:
        raise invalid(f"signature.json cannot be read: {e.strerror}") from e


def parse_signature(text: bytes) -> Signature:
    """Read what a ``signature.json`` holds.

    Raises:
        ModelRefused: it says something we do not know (code ``model-invalid``).
    """
    try:
        return _signature(json.loads(text.decode("utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise invalid(f"signature.json: {type(e).__name__} at {e}") from e


def _signature(body: Mapping[str, Any]) -> Signature:
    if body["schema"] != SCHEMA:
        raise invalid(f"signature.json has the schema {body['schema']!r}, not {SCHEMA!r}")
    tokenizer = body.get("tokenizer")
    made = Signature(
        str(body["task"]),
        tuple(_tensor(t) for t in body["inputs"]),
        tuple(_tensor(t) for t in body["outputs"]),
        tuple(body["classes"]),
        Tokenizer(str(tokenizer["file"]), int(tokenizer["max_length"])) if tokenizer else None,
    )
    if not made.inputs or [t.name for t in made.outputs] != ["label", "probabilities"] or len(made.classes) < 2:
        raise invalid("signature.json needs inputs, the outputs label and probabilities, and two classes or more")
    if tokenizer and ("/" in made.tokenizer.file or made.tokenizer.file.startswith(".")):  # type: ignore[union-attr]
        raise invalid(f"the tokenizer {tokenizer['file']!r} is not a file of the model's folder")
    return made


def _tensor(body: Mapping[str, Any]) -> Tensor:
    if body["datatype"] not in DATATYPES:
        raise invalid(f"the tensor {body['name']!r} has the datatype {body['datatype']!r}")
    return Tensor(str(body["name"]), body["datatype"], tuple(int(n) for n in body["shape"]))


def invalid(found: str) -> ModelRefused:
    """The refusal of a folder that is no model of ours."""
    allowed = "A folder with model.onnx and signature.json, as the train components write it."
    return ModelRefused(f"the model cannot be used: {found}", allowed=allowed, code="model-invalid")
