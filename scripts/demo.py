"""The main job, end to end, on this machine. Run by ``make demo``.

iris and fraud from data to a served prediction; then fraud live: a better version takes over by itself, and one with a
planted fault is taken back by itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIDEGATE = [sys.executable, "-m", "tidegate"]
STORE = str(ROOT / ".tidegate" / "demo")
ENV = {**os.environ, "PYTHONUNBUFFERED": "1", "XDG_STATE_HOME": str(ROOT / ".tidegate" / "demo-state")}
RATE = 2000  # requests a second
# a fifth of the traffic that the policy is made for, on a machine that does other things too
MARGIN = ["--latency-tolerance", "9"]
ROWS = ["-p", "rows=50000"]
BETTER = {"max_iter": 150, "learning_rate": 0.05, "max_leaf_nodes": 8, "min_samples_leaf": 40, "l2_regularization": 5.0}
IRIS_ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
FRAUD_ROW = {
    "category": "electronics", "amount": 912.5, "distance_km": 640.0, "online": 1, "new_device": 1, "age_days": 220,
    "count_1h": 3, "count_24h": 4, "sum_24h": 1290.0, "since_last_h": 0.2, "amount_ratio": 9.5, "hour": 3, "weekday": 6,
}  # fmt: skip


def main() -> int:
    started = time.monotonic()
    summaries = [story("iris", [], IRIS_ROW), story("fraud", ROWS, FRAUD_ROW), *live()]
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


def live() -> Iterator[dict[str, Any]]:
    """Two rollouts of fraud under live traffic."""
    print("\n== fraud: another candidate, trained longer", flush=True)
    more = ["-p", f"hyper_parameters={json.dumps(BETTER)}"]
    better = tidegate("run", "pipelines/fraud/pipeline.py", *ROWS, *more, "--json", steps=True)
    with front() as url, traffic(url) as before:
        yield rollout("better", other_than_champion(int(better["outputs"]["version"])), 0)
        print("\n== rehearsal: the champion with a fault that its gate cannot see", flush=True)
        bad = tidegate("run", "pipelines/rehearsal/pipeline.py", *ROWS, "--json", steps=True)
        yield rollout("faulty", int(bad["outputs"]["version"]), 1)
        asked = before()
    yield {"live traffic": f"{asked['requests']:,} requests, {asked['failed']} failures seen by clients"}


def other_than_champion(version: int) -> int:
    """The version; where an earlier demo has made it champion, the one that it replaced."""
    champion = tidegate("model", "show", "fraud@champion", "--json")["version"]
    return version if version != champion else 1


@contextmanager
def front() -> Iterator[str]:
    """The proxy before the champion, with the processes behind it."""
    print("\n== fraud live: tidegate front fraud", flush=True)
    log = (ROOT / ".tidegate" / "front.log").open("w")
    with subprocess.Popen(
        [*TIDEGATE, "front", "fraud", "--port", "0", "--store", STORE], cwd=ROOT, env=ENV, stdout=log
    ) as run:
        try:
            yield ready(run)
        finally:
            run.send_signal(signal.SIGTERM)


def ready(front: subprocess.Popen[Any]) -> str:
    """Where the front answers, once its first server is ready."""
    while front.poll() is None:
        asked = [*TIDEGATE, "front", "status", "fraud", "--json"]
        said = subprocess.run(asked, cwd=ROOT, env=ENV, capture_output=True, text=True)
        if not said.returncode and (found := json.loads(said.stdout))["arms"]["stable"]["ready"]:
            return str(found["url"])
        time.sleep(0.2)
    raise SystemExit(f"the front ended: {ROOT}/.tidegate/front.log says why")


@contextmanager
def traffic(url: str) -> Iterator[Any]:
    """Requests until it is left; what is given counts them, and ends them."""
    summary = ROOT / ".tidegate" / "traffic.json"
    summary.unlink(missing_ok=True)
    with subprocess.Popen([sys.executable, str(ROOT / "scripts" / "traffic.py"), url, str(RATE), str(summary)]) as run:

        def ended() -> dict[str, Any]:
            run.send_signal(signal.SIGTERM)
            run.wait()
            return dict(json.loads(summary.read_text()))

        try:
            yield ended
        finally:
            run.terminate()


def rollout(kind: str, version: int, expected: int) -> dict[str, Any]:
    """Start a rollout, show how it goes, and say how it ended."""
    print(f"\n== tidegate rollout start fraud:{version}", flush=True)
    began = time.monotonic()
    words = [
        "rollout",
        "start",
        f"fraud:{version}",
        "--again",
        "--rollback-window",
        "3s",
        *MARGIN,
        "--store",
        STORE,
        "--json",
    ]
    done = subprocess.run([*TIDEGATE, *words], cwd=ROOT, env=ENV, stdout=subprocess.PIPE, text=True)
    took = time.monotonic() - began
    if done.returncode != expected:
        raise SystemExit(
            f"the {kind} version was to end with {expected}, and ended with {done.returncode}: {done.stdout}"
        )
    outcome = json.loads(done.stdout)
    said = [r for r in tidegate("rollout", "history", "fraud", "--json") if r["id"] == outcome["id"]]
    ledger = " → ".join(f"{r['event']} {r['share'] / 100:g} %" for r in said)
    return {
        f"{kind}": f"fraud version {version}: {outcome['outcome']} after {took:.0f} s",
        "why": outcome["reason"],
        "ledger": ledger,
    }


def tidegate(*args: str, steps: bool = False) -> Any:
    """Run a command of tidegate that prints JSON; show how its steps end as they end."""
    command = [*TIDEGATE, *args, "--store", STORE]
    with subprocess.Popen(
        command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE if steps else None, text=True
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
    return json.loads(out)


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
