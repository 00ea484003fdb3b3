"""MLflow: ``mlflow models serve`` with one worker. ``serve_mlflow.py MODEL PORT``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from scorer import Scorer


class Fraud(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:  # noqa: ARG002  MLflow passes it by name
        self.score = Scorer(os.environ["BENCH_MODEL"])

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        label, shares = self.score({name: model_input[name].to_numpy() for name in model_input.columns})
        return pd.DataFrame({"label": label, "no": shares[:, 0], "yes": shares[:, 1]})


if __name__ == "__main__":
    model, port = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="bench-mlflow-")) / "model"
    mlflow.pyfunc.save_model(folder, python_model=Fraud(), code_paths=[str(Path(__file__).with_name("scorer.py"))])
    words = ["models", "serve", "-m", str(folder), "--port", port, "--host", "127.0.0.1", "--workers", "1"]
    folder_of_uvicorn = str(Path(sys.executable).parent)
    env = {**os.environ, "BENCH_MODEL": model, "PATH": f"{folder_of_uvicorn}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "mlflow", *words, "--env-manager", "local"]
    raise SystemExit(subprocess.run(command, env=env).returncode)
