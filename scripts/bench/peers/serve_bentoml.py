"""BentoML: one worker, no batching of its own. ``serve_bentoml.py MODEL PORT``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bentoml
from scorer import Scorer


@bentoml.service(workers=1, traffic={"timeout": 10, "max_concurrency": 64})
class Fraud:
    def __init__(self) -> None:
        self.score = Scorer(os.environ["BENCH_MODEL"])

    @bentoml.api
    def predict(self, rows: list[dict]) -> list[dict]:
        label, shares = self.score({name: [row[name] for row in rows] for name in rows[0]})
        return [{"label": one, "probabilities": p} for one, p in zip(label.tolist(), shares.tolist(), strict=True)]


if __name__ == "__main__":
    model, port = sys.argv[1:]
    command = [
        sys.executable,
        "-m",
        "bentoml",
        "serve",
        f"{Path(__file__).stem}:Fraud",
        "--port",
        port,
        "--host",
        "127.0.0.1",
    ]
    env = {**os.environ, "BENCH_MODEL": model, "BENTOML_DO_NOT_TRACK": "1"}
    raise SystemExit(subprocess.run(command, env=env, cwd=Path(__file__).parent).returncode)
