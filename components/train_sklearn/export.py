"""Write a fitted pipeline as a model folder: model.onnx, model.skops, signature.json, requirements.txt.

The same pipeline gives the same bytes: the graph's names are fixed, and the skops archive is rewritten without times.
"""

from __future__ import annotations

import io
import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.pipeline import Pipeline

_EPOCH = (1980, 1, 1, 0, 0, 0)
_RUNTIME = ("onnxruntime", "numpy", "scikit-learn", "skops")


def write(pipeline: Pipeline, features: pl.DataFrame, folder: Path) -> None:
    """Write the model's folder; ``features`` gives names and types of the raw columns."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(to_onnx(pipeline, features))
    (folder / "model.skops").write_bytes(_skops(pipeline))
    (folder / "signature.json").write_text(json.dumps(signature(pipeline, features), indent=1, sort_keys=True))
    (folder / "requirements.txt").write_text("".join(f"{n}=={version(n)}\n" for n in _RUNTIME))


def datatypes(features: pl.DataFrame) -> dict[str, str]:
    """The protocol's datatype of each raw column."""
    return {n: "BYTES" if t == pl.String else "FP64" if t.is_float() else "INT64" for n, t in features.schema.items()}


def signature(pipeline: Pipeline, features: pl.DataFrame) -> dict[str, Any]:
    """What the model takes and gives, as ``tidegate.serve.signature`` reads it."""
    classes = pipeline.classes_.tolist()
    label = "INT64" if pipeline.classes_.dtype.kind in "iu" else "BYTES"
    return {
        "schema": "tidegate/model/1",
        "task": "classification",
        "inputs": [{"name": n, "datatype": d, "shape": [-1]} for n, d in datatypes(features).items()],
        "outputs": [
            {"name": "label", "datatype": label, "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(classes)]},
        ],
        "classes": classes,
    }


def to_onnx(pipeline: Pipeline, features: pl.DataFrame) -> bytes:
    """Convert to an ONNX graph with one input per raw column, outputs ``label`` and ``probabilities``."""
    from skl2onnx import to_onnx as convert
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType

    kinds = {"BYTES": StringTensorType, "FP64": DoubleTensorType, "INT64": Int64TensorType}
    inputs = [(n, kinds[d]([None, 1])) for n, d in datatypes(features).items()]
    made = convert(pipeline, initial_types=inputs, options={"zipmap": False}, target_opset=17)
    made.graph.name = "tidegate"
    _rename_outputs(made)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def _rename_outputs(model: Any) -> None:
    from onnx import helper

    names = dict(zip([o.name for o in model.graph.output], ("label", "probabilities"), strict=True))
    for old, new in names.items():
        if old != new:
            model.graph.node.append(helper.make_node("Identity", [old], [new], name=f"to_{new}"))
    for output in model.graph.output:
        output.name = names[output.name]


def _skops(pipeline: Pipeline) -> bytes:
    import skops.io

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(pipeline))) as old, zipfile.ZipFile(out, "w") as new:
        for name in sorted(old.namelist()):
            new.writestr(zipfile.ZipInfo(name, _EPOCH), _stable(name, old.read(name)))
    return out.getvalue()


def _stable(name: str, data: bytes) -> bytes:
    # skops numbers objects by their address in memory, which differs from run to run
    if name != "schema.json":
        return data
    seen: dict[int, int] = {}

    def renumber(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: seen.setdefault(v, len(seen)) if k == "__id__" else renumber(v) for k, v in value.items()}
        return [renumber(v) for v in value] if isinstance(value, list) else value

    return json.dumps(renumber(json.loads(data)), sort_keys=True).encode()


def parity(pipeline: Pipeline, features: pl.DataFrame, probabilities: np.ndarray) -> float:
    """The largest difference between the graph's probabilities and scikit-learn's own."""
    return float(np.abs(pipeline.predict_proba(features.to_pandas()) - probabilities).max())
