"""What the Open Inference Protocol v2 says of a server and its model, over REST; and what a person sees at ``/``."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from tidegate.serve.load import Loaded

VERSION = version("tidegate")
EXTENSIONS = ["binary_tensor_data"]


def server() -> dict[str, Any]:
    """The server's metadata."""
    return {"name": "tidegate", "version": VERSION, "extensions": EXTENSIONS}


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


def welcome(loaded: Loaded) -> dict[str, Any]:
    """What is here and how a request looks."""
    row = {t.name: t.datatype for t in loaded.scorer.signature.inputs}
    return {
        "server": "tidegate",
        "model": loaded.name,
        "version": loaded.version.version,
        "digest": loaded.version.digest,
        "protocol": "/v2",
        "rows": {"POST": "/predict", "body": [row]},
        "docs": "/docs",
    }
