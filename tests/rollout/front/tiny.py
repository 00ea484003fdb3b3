"""A version of a model that is small and quick to make: one number in, two classes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.registry.made import evaluation, policy
from tidegate.registry.register import Candidate, register
from tidegate.store.blobs import digest_path

SIGNATURE = {
    "schema": "tidegate/model/1",
    "task": "classification",
    "classes": ["no", "yes"],
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
    "outputs": [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
    ],
}


def graph(scale: float) -> bytes:
    """Softmax over (-scale x, scale x), and the class with the greater share."""
    from onnx import TensorProto, checker, helper

    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["column"]),
        helper.make_node("Mul", ["column", "scale"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["index"], axis=1, keepdims=0),
        helper.make_node("Gather", ["classes", "index"], ["label"]),
    ]
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("scale", TensorProto.FLOAT, [1, 2], [-scale, scale]),
        helper.make_tensor("classes", TensorProto.STRING, [2], [b"no", b"yes"]),
    ]
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    text: bytes = model.SerializeToString()
    return text


def registered(store: Any, folder: Path, scale: float = 1.0) -> None:
    """Register it as the next version of ``m``."""
    root = folder / f"tiny-{scale}"
    (root / "model").mkdir(parents=True)
    (root / "model" / "model.onnx").write_bytes(graph(scale))
    (root / "model" / "signature.json").write_text(json.dumps(SIGNATURE))
    (root / "data").mkdir()
    (root / "data" / "x").write_text("x")
    said = evaluation(data={"digest": digest_path(root / "data").digest, "rows": 4})
    (root / "evaluation.json").write_text(json.dumps(said))
    register(Candidate("m", root / "model", root / "evaluation.json", root / "data", {}, policy().json()), store)
