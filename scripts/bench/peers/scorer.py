"""The model as all contenders score it: onnxruntime, one row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

TYPES = {"BYTES": object, "FP32": np.float32, "FP64": np.float64, "INT64": np.int64}


class Scorer:
    """A graph that takes a column an input.

    Args:
        folder: of the model.
    """

    def __init__(self, folder: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        file = str(Path(folder) / "model.onnx")
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        said = json.loads((Path(folder) / "signature.json").read_text())
        self.types = {t["name"]: TYPES[t["datatype"]] for t in said["inputs"]}
        self.shapes = {i.name: i.shape for i in self.session.get_inputs()}

    def __call__(self, columns: Mapping[str, Any]) -> tuple[Any, Any]:
        """Labels and probabilities of rows, given as columns."""
        fed = {n: np.asarray(columns[n], t).reshape(-1, *self.shapes[n][1:]) for n, t in self.types.items()}
        label, probabilities = self.session.run(None, fed)[:2]
        return label, probabilities
