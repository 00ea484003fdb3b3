"""Small real models that need no training, registered: a table's, and one of text with a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.registry.made import evaluation, policy
from tidegate.registry.register import Candidate, register
from tidegate.store.blobs import digest_path

OUTPUTS = [
    {"name": "label", "datatype": "BYTES", "shape": [-1]}, {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
]  # fmt: skip
COLUMNS = {"x": "FP32", "n": "INT64", "kind": "BYTES"}
_TYPES = {"FP32": TensorProto.FLOAT, "INT64": TensorProto.INT64, "BYTES": TensorProto.STRING}


def table_model(folder: Path, note: str = "") -> Path:
    """``yes`` where ``x`` is 9.5 or more; another note is another digest."""
    inputs = [helper.make_tensor_value_info(n, _TYPES[d], [None]) for n, d in COLUMNS.items()]
    nodes = [helper.make_node("Sub", ["x", "half"], ["over"])]
    _write(folder, "over", nodes, inputs, {"half": np.array(9.5, np.float32)})
    said = [{"name": n, "datatype": d, "shape": [-1]} for n, d in COLUMNS.items()]
    _sign(folder, said)
    (folder / "requirements.txt").write_text(f"numpy==2 # a {note}\n")
    return folder


def text_model(folder: Path) -> Path:
    """``yes`` where a text has more words that the tokenizer knows than it does not."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 2, "fine": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    ids = [helper.make_tensor_value_info(n, TensorProto.INT64, [None, None]) for n in ("input_ids", "attention_mask")]
    weights = np.array([[0.0], [-1.0], [1.0], [1.0]], np.float32)
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["each"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Squeeze", ["each", "last"], ["flat"]),
        helper.make_node("Mul", ["flat", "mask"], ["real"]),
        helper.make_node("ReduceSum", ["real", "one"], ["over"], keepdims=0),
    ]
    _write(folder, "over", nodes, ids, {"weights": weights, "last": np.array([2]), "one": np.array([1])})
    tokenizer.save(str(folder / "tokenizer.json"))
    _sign(
        folder,
        [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        tokenizer={"file": "tokenizer.json", "max_length": 8},
    )
    return folder


def _write(folder: Path, score: str, nodes: list[Any], inputs: list[Any], constants: dict[str, Any]) -> None:
    """A graph that ends in the label and the probabilities of a score."""
    folder.mkdir(parents=True)
    nodes = [
        *nodes,
        helper.make_node("Sigmoid", [score], ["yes"]),
        helper.make_node("Neg", [score], ["under"]),
        helper.make_node("Sigmoid", ["under"], ["no"]),
        helper.make_node("Unsqueeze", ["yes", "axis"], ["yes_column"]),
        helper.make_node("Unsqueeze", ["no", "axis"], ["no_column"]),
        helper.make_node("Concat", ["no_column", "yes_column"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["best"], axis=1, keepdims=0),
        helper.make_node("Gather", ["classes", "best"], ["label"]),
    ]
    given = [numpy_helper.from_array(v, n) for n, v in {**constants, "axis": np.array([1])}.items()]
    given.append(helper.make_tensor("classes", TensorProto.STRING, [2], [b"no", b"yes"]))
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.STRING, [None]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
    ]
    graph = helper.make_graph(nodes, "made", inputs, outputs, given)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(made.SerializeToString())


def _sign(folder: Path, inputs: list[dict[str, Any]], **more: Any) -> None:
    body = {
        "schema": "tidegate/model/1",
        "task": "classification",
        "inputs": inputs,
        "outputs": OUTPUTS,
        "classes": ["no", "yes"],
    }
    (folder / "signature.json").write_text(json.dumps({**body, **more}))


def registered(store: Any, folder: Path, model: Path | None = None, alias: str = "champion") -> Path:
    """Register a model as ``m``, the table's unless another is given; return its folder."""
    model = model or table_model(folder / "model")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "x").write_text("x")
    said = evaluation(data={"digest": digest_path(folder / "data").digest, "rows": 4})
    (folder / "evaluation.json").write_text(json.dumps(said))
    candidate = Candidate("m", model, folder / "evaluation.json", folder / "data", {}, policy(alias=alias).json())
    register(candidate, store)
    return model
