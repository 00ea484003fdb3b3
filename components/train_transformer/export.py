"""Write a trained transformer as a model folder: model.onnx, model.safetensors, tokenizer.json, signature.json."""

from __future__ import annotations

import json
import logging
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.train_transformer.training import Trained
from tidegate.errors import Refused

TOLERANCE = 1e-4
_RUNTIME = ("onnxruntime", "numpy", "tokenizers")


class _Scores(torch.nn.Module):
    """The classifier with the outputs that are served: label and probabilities."""

    def __init__(self, model: Any, classes: Any) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("classes", torch.tensor(classes), persistent=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        probabilities = torch.softmax(logits, -1)
        return self.classes[probabilities.argmax(-1)], probabilities


def write(trained: Trained, folder: Path) -> None:
    """Write the folder; refuse a graph that gives other answers than the model.

    Raises:
        Refused: the graph differs from the model by more than 1e-4 (code ``onnx-parity``).
    """
    from safetensors.torch import save_model

    folder.mkdir(parents=True)
    scores = _Scores(trained.model, list(trained.classes)).eval()
    _to_onnx(scores, folder / "model.onnx", trained.max_length)
    difference = parity(scores, folder / "model.onnx", trained)
    if not difference <= TOLERANCE:
        raise Refused(f"the exported graph differs from the model by {difference:.2g}", code="onnx-parity")
    save_model(trained.model, str(folder / "model.safetensors"))
    (folder / "tokenizer.json").write_text(trained.tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    (folder / "signature.json").write_text(json.dumps(_signature(trained), indent=1, sort_keys=True))
    (folder / "requirements.txt").write_text("".join(f"{n}=={version(n)}\n" for n in _RUNTIME))


def _to_onnx(scores: _Scores, path: Path, max_length: int) -> None:
    example = (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long))
    axes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens", max=max_length)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own exporter about itself
        torch.onnx.export(
            scores,
            example,
            str(path),
            dynamo=True,
            input_names=["input_ids", "attention_mask"],
            output_names=["label", "probabilities"],
            dynamic_shapes={"input_ids": axes, "attention_mask": axes},
            external_data=False,
            verbose=False,
        )
    _strip(path)


def _strip(path: Path) -> None:
    """Take out what torch wrote of where it ran (stack traces, counters): the same weights give the same bytes."""
    import onnx

    model = onnx.load(path)
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
    path.write_bytes(model.SerializeToString(deterministic=True))


def parity(scores: _Scores, path: Path, trained: Trained) -> float:
    """The largest difference of probabilities between graph and model, on batches of several shapes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    worst = 0.0
    for rows, tokens in ((1, 3), (5, 13), (16, trained.max_length)):
        ids = rng.integers(0, len(trained.tokenizer), (rows, tokens))
        mask = (np.arange(tokens) < rng.integers(1, tokens + 1, (rows, 1))).astype(np.int64)
        with torch.no_grad():
            own = scores(torch.tensor(ids), torch.tensor(mask))[1].numpy()
        found = session.run(["probabilities"], {"input_ids": ids, "attention_mask": mask})[0]
        worst = max(worst, float(np.abs(own - found).max()))
    return worst


def _signature(trained: Trained) -> dict[str, Any]:
    classes = list(trained.classes)
    return {
        "schema": "tidegate/model/1",
        "task": "classification",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(classes)]},
        ],
        "classes": classes,
        "tokenizer": {"file": "tokenizer.json", "max_length": trained.max_length},
    }
