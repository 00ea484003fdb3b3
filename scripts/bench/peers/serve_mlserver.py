"""MLServer: its own runtime in one process, no batching. ``serve_mlserver.py MODEL PORT``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from scorer import Scorer


class Fraud(MLModel):
    async def load(self) -> bool:
        self.score = Scorer(os.environ["BENCH_MODEL"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        label, shares = self.score({i.name: list(i.data) for i in payload.inputs})
        outputs = [NumpyCodec.encode_output("label", label), NumpyCodec.encode_output("probabilities", shares)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


if __name__ == "__main__":
    model, port = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="bench-mlserver-"))
    ports = {"http_port": int(port), "grpc_port": int(port) + 1, "metrics_port": int(port) + 2}
    (folder / "settings.json").write_text(
        json.dumps({"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports})
    )
    (folder / "model-settings.json").write_text(
        json.dumps({"name": "fraud", "implementation": f"{Path(__file__).stem}.Fraud"})
    )
    env = {**os.environ, "BENCH_MODEL": model, "PYTHONPATH": str(Path(__file__).parent)}
    raise SystemExit(
        subprocess.run([Path(sys.executable).with_name("mlserver"), "start", str(folder)], env=env).returncode
    )
