"""The flows compiled by kfp for the images of this run, in a project that says what secrets and images are here."""

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from kfp.compiler import Compiler

from tests.cluster import setting
from tests.cluster.image import compile_program
from tests.cluster.many import many_values

ABSENT = f"{setting.PULLED_FROM}/tidegate-test/absent@sha256:{0:064}"
FLOWS = Path(__file__).parent / "flows"
PROJECT = """[tool.tidegate]
mlflow = false

[tool.tidegate.images]
"*/tidegate-test/shell@*" = "host"
"*/tidegate-test/static@*" = ["sh", "-c", 'exec "{folder}/static/$0" "$@"']

[tool.tidegate.kubernetes]
secrets.db = "db.env"
config-maps.app = "app.env"
volumes.work = "work"
"""
SECRET = {"user": "tide", "password": "it's a secret"}
CONFIG = {"mode": "fast", "level": "3"}


def compile_flows(folder: Path, images: Mapping[str, str]) -> Path:
    """Write one file a flow; return the folder."""
    folder.mkdir()
    for file in sorted(FLOWS.glob("*.py")):
        for flow in importlib.import_module(f"tests.cluster.flows.{file.stem}").FLOWS:
            _write(flow, folder / f"{flow.name}.yaml", images)
    _write(many_values(folder), folder / "many.yaml", images)
    (folder / "pyproject.toml").write_text(PROJECT.replace("{folder}", str(folder)))
    (folder / "db.env").write_text("".join(f'{k}="{v}"\n' for k, v in SECRET.items()))
    (folder / "app.env").write_text("".join(f"{k}={v}\n" for k, v in CONFIG.items()))
    compile_program("static", folder / "static")
    return folder


def _write(flow: object, file: Path, images: Mapping[str, str]) -> None:
    Compiler().compile(flow, str(file))
    names = {"python:3.11": images["kfp"], "absent:1": ABSENT, "static:1": images["static"], "shell:1": images["shell"]}
    text = re.sub(r"image: (\S+)", lambda m: f"image: {names.get(m[1], m[1])}", file.read_text())
    file.write_text(text)


def objects() -> str:
    """The same secrets, config maps and claims for a cluster."""
    meta = {"apiVersion": "v1", "kind": "List"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": SECRET}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}, "data": CONFIG}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "work"}, "spec": spec}
    return json.dumps({**meta, "items": [secret, config, claim]})
