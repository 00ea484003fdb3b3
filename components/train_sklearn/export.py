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
    return {n: "BYTES" if t == pl.String else "FP32" if t.is_float() else "INT64" for n, t in features.schema.items()}


def signature(pipeline: Pipeline, features: pl.DataFrame) -> dict[str, Any]:
    """What the model takes and gives, as ``tidegate.registry.signature`` reads it."""
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
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

    kinds = {"BYTES": StringTensorType, "FP32": FloatTensorType, "INT64": Int64TensorType}
    inputs = [(n, kinds[d]([None, 1])) for n, d in datatypes(features).items()]
    made = convert(pipeline, initial_types=inputs, options={"zipmap": False}, target_opset=17)
    made.graph.name = "tidegate"
    _rename_outputs(made)
    _flat_inputs(made)
    opsets = sorted(made.opset_import, key=lambda o: o.domain)  # skl2onnx keeps them in a set
    del made.opset_import[:]
    made.opset_import.extend(opsets)
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


def _flat_inputs(model: Any) -> None:
    """Let the graph take plain columns [n], as clients send them, where skl2onnx asks for [n, 1]."""
    from onnx import helper, numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "column_axis"))
    names = {i.name for i in model.graph.input}
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            if name in names:
                node.input[at] = f"{name}_column"
    for at, given in enumerate(model.graph.input):
        del given.type.tensor_type.shape.dim[1]
        node = helper.make_node(
            "Unsqueeze", [given.name, "column_axis"], [f"{given.name}_column"], name=f"column_{given.name}"
        )
        model.graph.node.insert(at, node)


def _skops(pipeline: Pipeline) -> bytes:
    import skops.io

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(pipeline))) as old, zipfile.ZipFile(out, "w") as new:
        names: dict[str, str] = {}
        schema = _renamed(json.loads(old.read("schema.json")), {}, names)
        new.writestr(zipfile.ZipInfo("schema.json", _EPOCH), json.dumps(schema, sort_keys=True))
        for before, after in names.items():
            new.writestr(zipfile.ZipInfo(after, _EPOCH), old.read(before))
    return out.getvalue()


def _renamed(value: Any, ids: dict[int, int], names: dict[str, str]) -> Any:
    """Number objects and files in order of appearance: skops names them by address in memory, other in every process."""
    if isinstance(value, list):
        return [_renamed(v, ids, names) for v in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for key, inner in value.items():
        if key == "__id__":
            made[key] = ids.setdefault(inner, len(ids))
        elif key == "file" and isinstance(inner, str):
            made[key] = names.setdefault(inner, f"{len(names)}{Path(inner).suffix}")
        else:
            made[key] = _renamed(inner, ids, names)
    return made
