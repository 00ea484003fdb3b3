"""The protocol's tensors, read with patience: any order, any datatype that fits, nested columns, bytes behind the JSON."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from tidegate.registry.signature import DATATYPES, Tensor
from tidegate.serve.http import HttpError

MAX_ROWS = 65_536
BINARY = "inference-header-content-length"
Column = np.ndarray[Any, Any]


class InferInput(msgspec.Struct):
    """One tensor of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class InferOutput(msgspec.Struct):
    """One output that a request asks for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """An inference request."""

    inputs: list[InferInput]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[InferOutput] = []


def to_binary(datatype: str, values: list[Any]) -> bytes:
    """A tensor as the binary extension sends it."""
    if datatype != "BYTES":
        return np.array(values, np.dtype(DATATYPES[datatype]).newbyteorder("<")).tobytes()
    texts = [str(v).encode() for v in values]
    return b"".join(struct.pack("<I", len(t)) + t for t in texts)


def from_binary(datatype: str, data: bytes, count: int) -> Column:
    """Read a tensor as the binary extension sends it.

    Raises:
        ValueError: it is not ``count`` values of the datatype.
    """
    if datatype != "BYTES":
        kind = np.dtype(DATATYPES[datatype]).newbyteorder("<")
        if len(data) != count * kind.itemsize:
            raise ValueError(f"{len(data)} bytes are not {count} values")
        if datatype == "BOOL" and max(data, default=0) > 1:
            raise ValueError("a truth value is 0 or 1")
        return np.frombuffer(data, kind).astype(DATATYPES[datatype])
    texts: list[str] = []
    at = 0
    while at + 4 <= len(data) and len(texts) < count:
        (size,) = struct.unpack_from("<I", data, at)
        if at + 4 + size > len(data):
            break
        texts.append(data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    if at != len(data) or len(texts) != count:
        raise ValueError(f"{len(data)} bytes are not {count} texts")
    return np.array(texts, object)


class Tail:
    """The tensors behind the JSON."""

    def __init__(self, body: bytes, at: int) -> None:
        self._body, self._at = body, at
        if at > len(body):
            raise HttpError(400, f"{BINARY} is {at} and the body has {len(body)} bytes")

    def take(self, size: Any) -> bytes:
        """The next ``size`` bytes."""
        if type(size) is not int or not 0 <= size <= len(self._body) - self._at:
            raise HttpError(400, f"binary_data_size is {str(size)[:20]}; {len(self._body) - self._at} bytes are left")
        self._at += size
        return self._body[self._at - size : self._at]

    def check_end(self) -> None:
        """Refuse bytes that belong to no tensor."""
        if self._at != len(self._body):
            raise HttpError(400, f"{len(self._body) - self._at} bytes stand behind the last tensor")


def column(tensor: InferInput, tail: Tail) -> Column:
    """Read a tensor as a column of its own datatype.

    Raises:
        HttpError: it is none (400).
    """
    name, datatype = tensor.name[:100], tensor.datatype
    if datatype not in DATATYPES:
        raise HttpError(400, f"the input {name!r} has the unknown datatype {datatype[:20]!r}")
    rows = _rows(tensor)
    if any(p.startswith("shared_memory") for p in tensor.parameters):
        raise HttpError(400, "shared memory is not spoken here")
    if "binary_data_size" in tensor.parameters:
        if tensor.data is not None:
            raise HttpError(400, f"the input {name!r} has both data and binary_data_size")
        try:
            return from_binary(datatype, tail.take(tensor.parameters["binary_data_size"]), rows)
        except (ValueError, UnicodeDecodeError) as e:
            raise HttpError(400, f"the input {name!r} is no {datatype}: {e}") from e
    data = [v[0] if isinstance(v, list) and len(v) == 1 else v for v in tensor.data or ()]
    if len(data) != rows:
        raise HttpError(400, f"the input {name!r} has {len(data)} values for the shape {tensor.shape[:5]}")
    fits = _FITS.get(datatype, _is_integer)
    if not all(map(fits, data)):
        raise HttpError(400, f"the input {name!r} holds a value that is no {datatype}")
    try:
        with np.errstate(over="raise"):
            return np.array(data, object if datatype == "BYTES" else DATATYPES[datatype])
    except (OverflowError, FloatingPointError) as e:
        raise HttpError(400, f"the input {name!r} holds a value out of range for {datatype}") from e


def _rows(tensor: InferInput) -> int:
    name, shape = tensor.name[:100], tensor.shape
    if len(shape) not in (1, 2) or not 0 < shape[0] <= MAX_ROWS or (len(shape) == 2 and shape[1] != 1):
        raise HttpError(
            400, f"the input {name!r} has the shape {shape[:5]}; [n] or [n, 1] is expected, n from 1 to {MAX_ROWS}"
        )
    return shape[0]


def _is_integer(value: Any) -> bool:
    return type(value) is int


_FITS: dict[str, Callable[[Any], bool]] = {
    "BOOL": lambda v: isinstance(v, bool),
    "BYTES": lambda v: isinstance(v, str),
    "FP32": lambda v: type(v) in (int, float),
    "FP64": lambda v: type(v) in (int, float),
}


def cast(wanted: Tensor, values: Column) -> Column:
    """A column of another datatype, where nothing is lost but the precision of a fraction.

    Raises:
        HttpError: something would be (400).
    """
    if wanted.datatype == "BYTES" or values.dtype == object:
        if (wanted.datatype == "BYTES") != (values.dtype == object):
            raise HttpError(400, f"the input {wanted.name!r} is no {wanted.datatype}")
        return values
    kind = np.dtype(DATATYPES[wanted.datatype])
    if values.dtype == kind:
        return values
    if (values.dtype.kind == "b") != (kind.kind == "b"):
        raise HttpError(400, f"the input {wanted.name!r} is no {wanted.datatype}")
    if values.dtype.kind == "f" and kind.kind != "f":
        raise HttpError(400, f"the input {wanted.name!r} holds fractions and is {wanted.datatype}")
    with np.errstate(over="ignore", invalid="ignore"):
        made = values.astype(kind)
    whole = values.dtype.kind in "iu" and kind.kind in "iu"
    fits = np.array_equal(made, values) if whole else bool((np.isfinite(made) | ~np.isfinite(values)).all())
    if not fits:
        raise HttpError(400, f"the input {wanted.name!r} holds a value out of range for {wanted.datatype}")
    return made
