"""The Open Inference Protocol v2 over REST, as a pure function of request and model. No sockets here.

``GET /v2``, ``/v2/health/live``, ``/v2/health/ready``, ``/v2/models/M[/versions/V][/ready]``,
``POST /v2/models/M[/versions/V]/infer``, and ``POST /predict``: rows as objects in, label and probabilities out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np

from tidegate.errors import TidegateError
from tidegate.registry.signature import DATATYPES, Tensor
from tidegate.serve.load import Loaded

VERSION = version("tidegate")
MAX_BODY = 8 << 20
MAX_ROWS = 65_536
_JSON = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True)
class Response:
    """A status code and a JSON body."""

    status: int
    body: bytes


class InferInput(msgspec.Struct):
    """One tensor of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
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


class BadRequest(Exception):
    """A request that cannot be answered, with its status code."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


_INFER = msgspec.json.Decoder(InferRequest)
_ROWS = msgspec.json.Decoder(list[dict[str, Any]])


def handle(loaded: Loaded, method: str, path: str, body: bytes) -> Response:
    """Answer one request; every error is ``{"error": "…"}`` with a 4xx code, or 500 for a bug of ours."""
    try:
        route = _route(loaded, path)
        if method not in route:
            raise BadRequest(405, f"{method} is not allowed here; {' or '.join(sorted(route))} is")
        return Response(200, msgspec.json.encode(route[method](body)))
    except BadRequest as e:
        return _error(e.status, str(e))
    except TidegateError as e:
        return _error(400, " ".join(filter(None, [e.found + ".", e.allowed])))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
        return _error(400, f"the body cannot be read: {e}")
    except Exception as e:  # what onnxruntime raises on a row that its graph refuses has no common base
        return _error(500, f"{type(e).__name__} while scoring")


def _error(status: int, text: str) -> Response:
    return Response(status, msgspec.json.encode({"error": text}))


Route = Mapping[str, Callable[[bytes], Any]]


def _route(loaded: Loaded, path: str) -> Route:
    parts = [p for p in path.partition("?")[0].split("/") if p]
    match parts:
        case []:
            return _get(_welcome(loaded))
        case ["v2"]:
            return _get({"name": "tidegate", "version": VERSION, "extensions": []})
        case ["v2", "health", "live"]:
            return _get({"live": True})
        case ["v2", "health", "ready"]:
            return _get({"ready": True})
        case ["predict"]:
            return {"POST": lambda body: _predict(loaded, body)}
        case ["v2", "models", name, *rest]:
            return _model_route(loaded, name, rest)
    raise BadRequest(404, f"there is nothing at /{'/'.join(parts)[:100]}")


def _welcome(loaded: Loaded) -> dict[str, Any]:
    row = {t.name: t.datatype for t in loaded.scorer.signature.inputs}
    rows = {"POST": "/predict", "body": [row]}
    return {
        "server": "tidegate",
        "model": loaded.name,
        "version": loaded.version.version,
        "protocol": "/v2",
        "rows": rows,
    }


def _get(answer: Any) -> Route:
    return {"GET": lambda _: answer}


def _model_route(loaded: Loaded, name: str, rest: list[str]) -> Route:
    if name != loaded.name:
        raise BadRequest(404, f"there is no model {name[:100]!r}; this server has {loaded.name!r}")
    version = str(loaded.version.version)
    if rest[:1] == ["versions"] and len(rest) > 1:
        if rest[1] != version:
            raise BadRequest(404, f"there is no version {rest[1][:100]!r}; this server has {version}")
        rest = rest[2:]
    match rest:
        case []:
            return _get(metadata(loaded))
        case ["ready"]:
            return _get({"name": name, "ready": True})
        case ["infer"]:
            return {"POST": lambda body: _infer(loaded, body)}
    raise BadRequest(404, f"a model has no {'/'.join(rest)[:100]!r}")


def metadata(loaded: Loaded) -> dict[str, Any]:
    """A model's metadata as the protocol says it, with our digest and classes as parameters."""
    signature = loaded.scorer.signature
    return {
        "name": loaded.name,
        "versions": [str(loaded.version.version)],
        "platform": "onnx_onnxv1",
        "inputs": [t.as_json() for t in signature.inputs],
        "outputs": [t.as_json() for t in signature.outputs],
        "parameters": {"digest": loaded.version.digest, "classes": list(signature.classes)},
    }


def _infer(loaded: Loaded, body: bytes) -> dict[str, Any]:
    request = _INFER.decode(body)
    columns = {i.name: _column(i) for i in request.inputs}
    if len(columns) != len(request.inputs):
        raise BadRequest(400, "an input stands twice")
    known = {t.name: t for t in loaded.scorer.signature.outputs}
    wanted = [o.name for o in request.outputs] or list(known)
    if unknown := [o for o in wanted if o not in known]:
        raise BadRequest(400, f"there is no output {unknown[0][:100]!r}; there are {', '.join(known)}")
    scored = loaded.scorer.predict(columns)
    answer = {
        "model_name": loaded.name,
        "model_version": str(loaded.version.version),
        "outputs": [_output(known[o], scored[o]) for o in wanted],
    }
    return {**answer, "id": request.id} if request.id else answer


def _column(tensor: InferInput) -> Any:
    if tensor.datatype not in DATATYPES:
        raise BadRequest(400, f"the input {tensor.name[:100]!r} has the unknown datatype {tensor.datatype[:20]!r}")
    data = _flat(tensor.data)
    rows = tensor.shape[0] if tensor.shape else 0
    if any(n < 0 for n in tensor.shape) or rows > MAX_ROWS or len(tensor.shape) not in (1, 2):
        raise BadRequest(
            400, f"the input {tensor.name[:100]!r} has the shape {tensor.shape[:5]}; [n] or [n, 1] is expected"
        )
    if len(tensor.shape) == 2 and tensor.shape[1] != 1:
        raise BadRequest(400, f"the input {tensor.name[:100]!r} has {tensor.shape[1]} columns; one is expected")
    if len(data) != rows:
        raise BadRequest(400, f"the input {tensor.name[:100]!r} has {len(data)} values for the shape {tensor.shape}")
    if tensor.datatype == "BYTES":
        return np.array(data, object)
    if any(not _fits(v, tensor.datatype) for v in data):
        raise BadRequest(400, f"the input {tensor.name[:100]!r} holds a value that is no {tensor.datatype}")
    try:
        return np.array(data, DATATYPES[tensor.datatype])
    except OverflowError as e:
        raise BadRequest(
            400, f"the input {tensor.name[:100]!r} holds a value out of range for {tensor.datatype}"
        ) from e


def _fits(value: Any, datatype: str) -> bool:
    return (
        isinstance(value, bool)
        if datatype == "BOOL"
        else isinstance(value, int | float) and not isinstance(value, bool)
    )


def _flat(data: list[Any]) -> list[Any]:
    return [v[0] if isinstance(v, list) and len(v) == 1 else v for v in data]


def _output(tensor: Tensor, values: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(values.shape),
        "data": values.reshape(-1).tolist(),
    }


def _predict(loaded: Loaded, body: bytes) -> list[dict[str, Any]]:
    names = [t.name for t in loaded.scorer.signature.inputs]
    try:
        rows = _ROWS.decode(body)
    except msgspec.ValidationError as e:
        raise BadRequest(400, f"a list of rows is expected, each an object with the keys {names}: {e}") from e
    if not 0 < len(rows) <= MAX_ROWS:
        raise BadRequest(400, f"there are {len(rows)} rows; 1 to {MAX_ROWS} are expected")
    odd = next((r for r in rows if set(r) != set(names)), None)
    if odd is not None:
        raise BadRequest(400, f"a row has the keys {sorted(map(str, odd))[:20]}; {names} are expected")
    scored = loaded.scorer.predict({n: np.array([r[n] for r in rows]) for n in names})
    classes = [str(c) for c in loaded.scorer.signature.classes]
    return [
        {"label": label, "probabilities": dict(zip(classes, map(float, p), strict=True))}
        for label, p in zip(scored["label"].tolist(), scored["probabilities"], strict=True)
    ]
