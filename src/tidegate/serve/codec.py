"""Requests for predictions to columns, predictions to answers: JSON, the protocol's binary tensors, and rows.

Made once for each version, from its signature. A request in the signature's own order and datatypes, as metadata shows
it, is checked and read by one decoder in C; whatever it refuses is read again by the patient reader, which takes all that
the protocol allows and says what is wrong.

Binary tensors (the protocol's extension): the field Inference-Header-Content-Length says how long the JSON is, the
tensors follow in the order of the inputs, little-endian; text is a length of four bytes and then UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from tidegate.registry.signature import DATATYPES, Signature, Tensor
from tidegate.serve.http import HttpError
from tidegate.serve.tensors import BINARY, MAX_ROWS, Column, InferRequest, Tail, cast, column, to_binary

_FLOAT32 = 3.4028234663852886e38
_PYTHON: dict[str, Any] = {
    "BYTES": str,
    "BOOL": bool,
    "FP32": Annotated[float, Meta(ge=-_FLOAT32, le=_FLOAT32)],
    "FP64": float,
    "UINT64": Annotated[int, Meta(ge=0, le=2**63 - 1)],  # msgspec's greatest bound; more goes to the patient reader
    "INT64": Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)],
} | {
    f"{sign}INT{bits}": Annotated[int, Meta(ge=least, le=least + 2**bits - 1)]
    for bits in (8, 16, 32)
    for sign, least in (("", -(2 ** (bits - 1))), ("U", 0))
}


_ODD = re.compile(r'["\\\x00-\x1f]')


@dataclass(slots=True)
class Asked:
    """What a request wants scored, and how its answer is written.

    Attributes:
        rows: how many.
        row: the values of one row in the signature's order, when there is one and it was read by the fast decoder.
        columns: otherwise, the columns.
        id: the request's own.
        outputs: name of each output and whether it is binary; None for all of them as JSON.
        objects: whether the answer is a list of objects, one a row (``/predict``).
    """

    rows: int
    row: Sequence[Any] | None = None
    columns: Mapping[str, Column] | None = None
    id: str = ""
    outputs: Sequence[tuple[str, bool]] | None = None
    objects: bool = False


# types that are made while running, which mypy cannot follow
_TUPLE: Any = tuple
_LIST: Any = list


class Codec:
    """The codec of one version.

    Args:
        signature: its inputs and outputs.
        model: its name.
        version: its number.
    """

    def __init__(self, signature: Signature, model: str, version: str) -> None:
        self.signature, self._model, self._version = signature, model, version
        self._plan = [(t.name, object if t.datatype == "BYTES" else DATATYPES[t.datatype]) for t in signature.inputs]
        self._names = [t.name for t in signature.inputs]
        self._outputs = {t.name: t for t in signature.outputs}
        self._one = msgspec.json.Decoder(_request(signature.inputs, _one)).decode
        self._many = msgspec.json.Decoder(_request(signature.inputs, _many)).decode
        self._any = msgspec.json.Decoder(InferRequest).decode
        self._rows = _rows_reader(signature.inputs)
        self._before, self._between = _template(signature, model, version)
        self._labels = {c: msgspec.json.encode(c) for c in signature.classes}
        self._keys = [msgspec.json.encode(str(c)) for c in signature.classes]

    def infer(self, body: bytes, json_length: int | None = None) -> Asked:
        """Read an inference request.

        Args:
            body: its bytes.
            json_length: how many of them are JSON, when tensors follow.

        Raises:
            HttpError: it is none (400).
        """
        if json_length is None:
            try:
                request = self._one(body)
                return Asked(1, [t.data[0] for t in request.inputs], id=request.id)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass  # read again below
            if asked := self._typed(body):
                return asked
        return self._patient(body, json_length)

    def predict(self, body: bytes) -> Asked:
        """Read rows, each an object with the columns' names.

        Raises:
            HttpError: they are none (400).
        """
        try:
            rows = self._rows(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
            why = f"a list of rows is expected, each an object with the keys {self._names[:50]}: {e}"
            raise HttpError(400, why) from e
        if not 0 < len(rows) <= MAX_ROWS:
            raise HttpError(400, f"there are {len(rows)} rows; 1 to {MAX_ROWS} are expected")
        values = [msgspec.structs.astuple(r) for r in rows]
        if len(rows) == 1:
            return Asked(1, values[0], objects=True)
        return Asked(len(rows), columns=self.columns(values), objects=True)

    def columns(self, rows: Iterable[Sequence[Any]]) -> dict[str, Column]:
        """The columns of rows that a decoder has checked."""
        return {name: np.array(c, t) for (name, t), c in zip(self._plan, zip(*rows, strict=True), strict=True)}

    def gather(self, asks: Sequence[Asked]) -> dict[str, Column]:
        """The columns of several requests, one below the other."""
        if all(a.row is not None for a in asks):
            return self.columns([a.row for a in asks])  # type: ignore[misc]
        parts = [a.columns if a.columns is not None else self.columns([a.row or ()]) for a in asks]
        return dict(parts[0]) if len(parts) == 1 else {n: np.concatenate([p[n] for p in parts]) for n in self._names}

    def write(self, asked: Asked, label: list[Any], probabilities: list[list[float]]) -> tuple[bytes, bytes]:
        """The answer's body, and more fields of its head.

        Args:
            asked: the request.
            label: one a row.
            probabilities: of each class, a row each.
        """
        if asked.objects:
            return self._objects(label, probabilities), b""
        if asked.outputs is None and asked.rows == 1 and not asked.id:
            shown = self._labels.get(label[0]) or msgspec.json.encode(label[0])
            return b"%b%b%b%b}]}" % (self._before, shown, self._between, msgspec.json.encode(probabilities[0])), b""
        return self._tensors(asked, label, probabilities)

    def _objects(self, label: list[Any], probabilities: list[list[float]]) -> bytes:
        one = b'{"label":%b,"probabilities":{%b}}'
        said = (
            one
            % (
                msgspec.json.encode(n),
                b",".join(k + b":" + msgspec.json.encode(v) for k, v in zip(self._keys, p, strict=True)),
            )
            for n, p in zip(label, probabilities, strict=True)
        )
        return b"[%b]" % b",".join(said)

    def _tensors(self, asked: Asked, label: list[Any], probabilities: list[list[float]]) -> tuple[bytes, bytes]:
        wanted = asked.outputs if asked.outputs is not None else [(n, False) for n in self._outputs]
        values = {"label": label, "probabilities": [v for row in probabilities for v in row]}
        shapes = {"label": [asked.rows], "probabilities": [asked.rows, len(self.signature.classes)]}
        outputs, tail = [], []
        for name, binary in wanted:
            tensor = self._outputs[name]
            said = {"name": name, "datatype": tensor.datatype, "shape": shapes[name]}
            if binary:
                tail.append(to_binary(tensor.datatype, values[name]))
                outputs.append({**said, "parameters": {"binary_data_size": len(tail[-1])}})
            else:
                outputs.append({**said, "data": values[name]})
        answer = {"model_name": self._model, "model_version": self._version, "outputs": outputs}
        head = msgspec.json.encode({**answer, "id": asked.id} if asked.id else answer)
        if not tail:
            return head, b""
        return head + b"".join(tail), b"%b: %d\r\n" % (BINARY.encode(), len(head))

    def _typed(self, body: bytes) -> Asked | None:
        """Several rows in the signature's own order and datatypes; None when they are not."""
        try:
            request = self._many(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        rows = len(request.inputs[0].data)
        if not 0 < rows <= MAX_ROWS or any(len(t.data) != rows or t.shape != [rows] for t in request.inputs):
            return None
        columns = {n: np.array(t.data, kind) for (n, kind), t in zip(self._plan, request.inputs, strict=True)}
        return Asked(rows, columns=columns, id=request.id)

    def _patient(self, body: bytes, json_length: int | None) -> Asked:
        try:
            request = self._any(body if json_length is None else body[:json_length])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
            raise HttpError(400, f"the body cannot be read: {e}") from e
        tail = Tail(body, len(body) if json_length is None else json_length)
        found = {i.name: column(i, tail) for i in request.inputs}
        if len(found) != len(request.inputs):
            raise HttpError(400, "an input stands twice")
        tail.check_end()
        columns = self._in_order(found)
        rows = len(next(iter(columns.values())))
        return Asked(rows, columns=columns, id=request.id, outputs=self._wanted(request))

    def _in_order(self, found: Mapping[str, Column]) -> dict[str, Column]:
        if odd := sorted(set(found) ^ set(self._names)):
            how = "missing" if odd[0] in self._names else "unknown"
            raise HttpError(400, f"the input {odd[0][:100]!r} is {how}; exactly these are expected: {self._names[:50]}")
        if len({len(c) for c in found.values()}) != 1:
            raise HttpError(400, f"the inputs have {sorted({len(c) for c in found.values()})} rows; each has as many")
        return {t.name: cast(t, found[t.name]) for t in self.signature.inputs}

    def _wanted(self, request: InferRequest) -> list[tuple[str, bool]] | None:
        all_binary = request.parameters.get("binary_data_output") is True
        if not request.outputs:
            return [(n, True) for n in self._outputs] if all_binary else None
        for output in request.outputs:
            if output.name not in self._outputs:
                raise HttpError(400, f"there is no output {output.name[:100]!r}; there are {', '.join(self._outputs)}")
            if "classification" in output.parameters:
                raise HttpError(400, "the extension for classification is not spoken here; ask for the label")
        return [(o.name, bool(o.parameters.get("binary_data", all_binary))) for o in request.outputs]


def _request(inputs: Sequence[Tensor], tensor: Callable[[Tensor], Any]) -> Any:
    made = [tensor(t) for t in inputs]
    fields: list[Any] = [("inputs", _TUPLE[tuple(made)]), ("id", str, "")]
    return msgspec.defstruct("Request", fields, forbid_unknown_fields=True, gc=False)


def _one(tensor: Tensor) -> Any:
    shape = Annotated[tuple[Literal[1], ...], Meta(min_length=1, max_length=2)]
    value = _PYTHON[tensor.datatype]
    return _tensor(tensor, shape, _TUPLE[value])


def _many(tensor: Tensor) -> Any:
    value = _PYTHON[tensor.datatype]
    return _tensor(tensor, list[int], _LIST[value])


def _tensor(tensor: Tensor, shape: Any, data: Any) -> Any:
    fields = [
        ("name", Literal[tensor.name]), ("datatype", Literal[tensor.datatype]), ("shape", shape), ("data", data),
    ]  # fmt: skip
    return msgspec.defstruct("Input", fields, forbid_unknown_fields=True, gc=False)


def _rows_reader(inputs: Sequence[Tensor]) -> Callable[[bytes], list[Any]]:
    """A reader of rows: in C, unless a name has characters that msgspec takes for no field."""
    fields = [(f"c{i}", _PYTHON[t.datatype]) for i, t in enumerate(inputs)]
    names = {f"c{i}": t.name for i, t in enumerate(inputs)}
    if not any(_ODD.search(t.name) for t in inputs):
        row = msgspec.defstruct("Row", fields, rename=names, forbid_unknown_fields=True, gc=False)
        read: Callable[[bytes], list[Any]] = msgspec.json.Decoder(_LIST[row]).decode
        return read
    row, keys = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False), {n: c for c, n in names.items()}
    decode = msgspec.json.Decoder(list[dict[str, Any]]).decode
    return lambda body: msgspec.convert(
        [{keys.get(k, f"{k} "): v for k, v in r.items()} for r in decode(body)], _LIST[row]
    )


def _template(signature: Signature, model: str, version: str) -> tuple[bytes, bytes]:
    """What stands in the answer to one row before the label, and between it and the probabilities."""
    label, probabilities = signature.outputs
    head = msgspec.json.encode({"model_name": model, "model_version": version})[:-1]
    first = msgspec.json.encode({"name": "label", "datatype": label.datatype, "shape": [1]})[:-1]
    second = {"name": "probabilities", "datatype": probabilities.datatype, "shape": [1, len(signature.classes)]}
    before = head + b',"outputs":[' + first + b',"data":['
    return before, b"]}," + msgspec.json.encode(second)[:-1] + b',"data":'
