"""The OpenAPI document of a served version, and a page that shows it and tries it, with nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from typing import Any

from tidegate.serve.load import Loaded
from tidegate.serve.protocol import VERSION, metadata

_JSON_TYPES = {"BOOL": "boolean", "BYTES": "string", "FP32": "number", "FP64": "number"}
_EXAMPLES = {"BOOL": False, "BYTES": "text", "FP32": 0.0, "FP64": 0.0}


def openapi(loaded: Loaded) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a version."""
    signature, name = loaded.scorer.signature, loaded.name
    model = f"/v2/models/{name}"
    error = {"description": 'What is wrong, as {"error": …}', "content": _json({"$ref": "#/components/schemas/Error"})}
    answers = {"400": error, "413": error, "503": error}
    paths: dict[str, Any] = {
        "/predict": {"post": _post("Score rows", {"type": "array", "items": _ref("Row"), "minItems": 1},
                                   {"type": "array", "items": _ref("Scored")}, answers)},
        f"{model}/infer": {"post": _post("Score tensors (Open Inference Protocol v2)", _ref("InferRequest"),
                                         _ref("InferResponse"), answers)},
        model: {"get": _get("The model's metadata")},
        f"{model}/ready": {"get": _get("Whether the model is ready")},
        "/v2": {"get": _get("The server's metadata")},
        "/v2/health/live": {"get": _get("Whether the server lives")},
        "/v2/health/ready": {"get": _get("Whether the server is ready")},
    }  # fmt: skip
    row = {t.name: {"type": _JSON_TYPES.get(t.datatype, "integer"), "x-datatype": t.datatype} for t in signature.inputs}
    tensor = {"type": "object", "required": ["name", "shape", "datatype"], "properties": {
        "name": {"type": "string"}, "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"type": "string"}, "data": {"type": "array"}, "parameters": {"type": "object"},
    }}  # fmt: skip
    classes = {str(c): {"type": "number"} for c in signature.classes}
    schemas = {
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
        "Row": _object(row),
        "Scored": _object({"label": {"enum": list(signature.classes)}, "probabilities": _object(classes)}),
        "Tensor": tensor,
        "InferRequest": {"type": "object", "required": ["inputs"], "properties": {
            "id": {"type": "string"}, "inputs": {"type": "array", "items": _ref("Tensor")},
            "outputs": {"type": "array", "items": {"type": "object"}}, "parameters": {"type": "object"},
        }},
        "InferResponse": {"type": "object", "properties": {
            "model_name": {"const": name}, "model_version": {"const": str(loaded.version.version)},
            "id": {"type": "string"}, "outputs": {"type": "array", "items": _ref("Tensor")},
        }},
    }  # fmt: skip
    info = {
        "title": name,
        "version": str(loaded.version.version),
        "description": f"{loaded.version.digest}, by tidegate {VERSION}",
    }
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def page(loaded: Loaded) -> tuple[str, bytes]:
    """The page ``/docs``, and the Content-Security-Policy that goes with it."""
    signature = loaded.scorer.signature
    row = {t.name: _EXAMPLES.get(t.datatype, 0) for t in signature.inputs}
    paths = [
        f"<tr><td>{method.upper()}</td><td>{html.escape(path)}</td><td>{html.escape(said['summary'])}</td></tr>"
        for path, methods in openapi(loaded)["paths"].items()
        for method, said in methods.items()
    ]
    inputs = "".join(f"<tr><td>{html.escape(t.name)}</td><td>{t.datatype}</td></tr>" for t in signature.inputs)
    text = _PAGE.format(
        title=html.escape(f"{loaded.name} version {loaded.version.version}"),
        digest=html.escape(loaded.version.digest),
        classes=html.escape(", ".join(map(str, signature.classes))),
        paths="".join(paths),
        inputs=inputs,
        example=html.escape(json.dumps([row], indent=1, ensure_ascii=False)),
        script=_SCRIPT,
        metadata=html.escape(json.dumps(metadata(loaded), indent=1)),
    )
    sha256 = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{sha256}'; connect-src 'self'"
    return text, policy.encode()


_SCRIPT = """
document.querySelector("button").onclick = async () => {
  const out = document.querySelector("output");
  try {
    const said = await fetch("predict", {method: "POST", headers: {"content-type": "application/json"},
                                         body: document.querySelector("textarea").value});
    out.textContent = said.status + " " + JSON.stringify(await said.json(), null, 1);
  } catch (e) { out.textContent = String(e); }
};
"""
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}td{{padding:.1rem 1rem .1rem 0}}
textarea{{width:100%;height:16rem;font:14px monospace}}
output,pre{{display:block;white-space:pre-wrap;font:14px monospace}}</style>
<h1>{title}</h1><p>{digest}<br>classes: {classes}</p>
<h2>Requests</h2><table>{paths}</table><p><a href="openapi.json">openapi.json</a></p>
<h2>Inputs</h2><table>{inputs}</table>
<h2>Try it</h2><textarea spellcheck="false">{example}</textarea><p><button>POST /predict</button></p><output></output>
<h2>Metadata</h2><pre>{metadata}</pre><script>{script}</script></html>
"""


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}


def _get(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary, "content": _json({"type": "object"})}}}


def _post(summary: str, body: dict[str, Any], found: dict[str, Any], errors: dict[str, Any]) -> dict[str, Any]:
    answer = {"description": "Predictions", "content": _json(found)}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": _json(body)},
        "responses": {"200": answer, **errors},
    }
