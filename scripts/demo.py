"""The main job, end to end, on this machine: iris and fraud from data to a served prediction. Run by ``make demo``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIDEGATE = [sys.executable, "-m", "tidegate"]
STORE = str(ROOT / ".tidegate" / "demo")
IRIS_ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
FRAUD_ROW = {
    "category": "electronics", "amount": 912.5, "distance_km": 640.0, "online": 1, "new_device": 1, "age_days": 220,
    "count_1h": 3, "count_24h": 4, "sum_24h": 1290.0, "since_last_h": 0.2, "amount_ratio": 9.5, "hour": 3, "weekday": 6,
}  # fmt: skip


def main() -> int:
    started = time.monotonic()
    summaries = [story("iris", [], IRIS_ROW), story("fraud", ["-p", "rows=50000"], FRAUD_ROW)]
    print(f"\n{'=' * 78}")
    for summary in summaries:
        for key, value in summary.items():
            print(f"{key:<12} {value}")
        print("-" * 78)
    print(
        f"all of it in {time.monotonic() - started:.0f} s; look around: .venv/bin/tidegate model show iris --store {STORE}"
    )
    return 0


def story(name: str, parameters: list[str], row: dict[str, Any]) -> dict[str, Any]:
    print(f"\n== {name}: ingest, validate, train, evaluate, gate, register", flush=True)
    run = tidegate("run", f"pipelines/{name}/pipeline.py", *parameters, "--json", steps=True)
    model = tidegate("model", "show", f"{name}@champion", "--json")
    answer, url = ask(name, row)
    cached = sum(s["cached"] for s in run["steps"])
    metrics = model["lineage"]["metrics"]
    shown = {k: metrics[k] for k in ("accuracy", "pr_auc", "recall_at_fpr_1pct") if k in metrics}
    return {
        "model": f"{name} version {model['version']} ({', '.join(model['aliases'])})",
        "measured": ", ".join(f"{k} {v:.4f}" for k, v in shown.items()),
        "gate": f"{model['verdict']['outcome']}: {'; '.join(f['text'] for f in model['verdict']['findings'])}",
        "digest": model["digest"],
        "answered": f"{answer} at {url}",
        "commit": model["lineage"].get("commit", "-") + (" + changes" if model["lineage"].get("dirty") else ""),
        "data": f"{model['lineage']['data_digest']} ({model['lineage']['data_source']})",
        "run": f"{run['run_id']}: {len(run['steps'])} steps, {cached} from the cache",
    }


def tidegate(*args: str, steps: bool = False) -> dict[str, Any]:
    """Run a command of tidegate that prints JSON; show how its steps end as they end."""
    command = [*TIDEGATE, *args, "--store", STORE]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE if steps else None, text=True
    ) as run:
        said = []
        for line in run.stderr or ():
            said.append(line)
            if line.startswith(("✓", "✗", "-")):
                print(line, end="", flush=True)
        out = run.stdout.read() if run.stdout else ""
    if run.returncode:
        print("".join(said[-15:]), file=sys.stderr)
        raise SystemExit(run.returncode)
    found: dict[str, Any] = json.loads(out)
    return found


def ask(name: str, row: dict[str, Any]) -> tuple[str, str]:
    """Serve the champion, ask it for one row, stop it."""
    command = [*TIDEGATE, "serve", f"{name}@champion", "--port", "0", "--store", STORE]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as server:
        line = server.stdout.readline() if server.stdout else ""
        url = line.rpartition(" ")[2].strip()
        if not url.startswith("http"):
            raise SystemExit(f"the server did not start: {line}")
        request = urllib.request.Request(
            f"{url}/predict", json.dumps([row]).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)[0]
        server.terminate()
    best = answer["probabilities"][str(answer["label"])]
    return f"{answer['label']} (p = {best:.3f})", f"{url}/v2/models/{name}"


if __name__ == "__main__":
    raise SystemExit(main())
