"""Write a fitted pipeline as a model folder: model.onnx, model.skops, signature.json, requirements.txt.

The same pipeline gives the same bytes: the graph's names are fixed, and the skops archive is rewritten without times.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.pipeline import Pipeline

from components.skops_io import skops_io

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
    """Convert to an ONNX graph: one input ``[n]`` a raw column, outputs ``label`` ``[n]`` and ``probabilities`` ``[n, K]``.

    It computes in double precision inside, as scikit-learn does: in single, rows that scikit-learn tells apart become ties.
    """
    made = _convert(pipeline, datatypes(features))
    made.graph.name = "tidegate"
    _flat_inputs(made.graph)
    _plain_outputs(made.graph, pipeline.classes_.tolist())
    opsets = sorted(made.opset_import, key=lambda o: o.domain)  # skl2onnx keeps them in a set
    del made.opset_import[:]
    made.opset_import.extend(opsets)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def _convert(pipeline: Pipeline, columns: dict[str, str]) -> Any:
    from skl2onnx import to_onnx as convert
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType

    kinds = {"BYTES": StringTensorType, "FP32": DoubleTensorType, "INT64": Int64TensorType}
    inputs = [(name, kinds[datatype]([None, 1])) for name, datatype in columns.items()]
    opsets = {"": 17, "ai.onnx.ml": 3}  # 3: the first whose trees hold thresholds in double precision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # skl2onnx hands numpy's flags to protobuf as integers
        return convert(pipeline, initial_types=inputs, options={"zipmap": False}, target_opset=opsets)


def _flat_inputs(graph: Any) -> None:
    """Let the graph take plain columns [n] of the protocol's datatypes, where skl2onnx asks for doubles [n, 1]."""
    from onnx import TensorProto, helper, numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "tidegate_axis"))
    _rename(graph, {i.name: f"{i.name}_column" for i in graph.input})
    added = []
    for given in graph.input:
        kind, name = given.type.tensor_type, given.name
        del kind.shape.dim[1]
        wide = f"{name}_wide" if kind.elem_type == TensorProto.DOUBLE else name
        if wide != name:
            kind.elem_type = TensorProto.FLOAT
            added.append(helper.make_node("Cast", [name], [wide], to=TensorProto.DOUBLE, name=wide))
        added.append(helper.make_node("Unsqueeze", [wide, "tidegate_axis"], [f"{name}_column"], name=f"{name}_column"))
    _prepend(graph, added)


def _plain_outputs(graph: Any, classes: list[Any]) -> None:
    """End the graph in ``label`` and ``probabilities``; the label is the class of the highest probability."""
    from onnx import TensorProto, helper

    scores = graph.output[1].name
    _rename(graph, {o.name: f"trained_{o.name}" for o in graph.output})
    graph.node.append(
        helper.make_node(
            "Cast", [f"trained_{scores}"], ["tidegate_scores"], to=TensorProto.DOUBLE, name="tidegate_scores"
        )
    )
    exact = "tidegate_logistic" if _raw_scores(graph) else "tidegate_scores"
    if exact == "tidegate_logistic":
        # 1 / (1 + exp(-x)); the trees' own transform takes 1 - 1 / (1 + exp(x)) in single precision: small ones collapse
        graph.initializer.append(helper.make_tensor("tidegate_one", TensorProto.DOUBLE, [], [1.0]))
        chain = [("Neg", ["tidegate_scores"]), ("Exp", ["tidegate_Neg"]), ("Add", ["tidegate_Exp", "tidegate_one"])]
        graph.node.extend(helper.make_node(op, given, [f"tidegate_{op}"], name=f"tidegate_{op}") for op, given in chain)
        graph.node.append(helper.make_node("Reciprocal", ["tidegate_Add"], [exact], name=exact))
    text = isinstance(classes[0], str)
    kind = TensorProto.STRING if text else TensorProto.INT64
    values = [c.encode() for c in classes] if text else classes
    graph.initializer.append(helper.make_tensor("tidegate_classes", kind, [len(classes)], values))
    graph.node.extend(
        [
            helper.make_node("Cast", [exact], ["probabilities"], to=TensorProto.FLOAT, name="probabilities"),
            helper.make_node("ArgMax", [exact], ["tidegate_highest"], axis=1, keepdims=0, name="tidegate_highest"),
            helper.make_node("Gather", ["tidegate_classes", "tidegate_highest"], ["label"], name="label"),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("label", kind, [None]))
    graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, len(classes)]))


def _raw_scores(graph: Any) -> bool:
    """Let trees that end in a logistic give raw scores; say whether there were any."""
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "TreeEnsembleClassifier" and attribute.s == b"LOGISTIC":
                attribute.s = b"NONE"
                return True
    return False


def _rename(graph: Any, names: dict[str, str]) -> None:
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(n, n) for n in ends]


def _prepend(graph: Any, nodes: list[Any]) -> None:
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _skops(pipeline: Pipeline) -> bytes:
    if bins := getattr(pipeline[-1], "_bin_mapper", None):
        bins.n_threads = 1  # gradient boosting remembers how many cores it was fitted on
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops_io().dumps(pipeline))) as old, zipfile.ZipFile(out, "w") as new:
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
