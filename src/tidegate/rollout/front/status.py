"""What a front is doing, for people and for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate.errors import ServerError
from tidegate.rollout.front.fleet import Fleet, Running, read_fleet, read_running
from tidegate.rollout.front.kinds import KINDS, router
from tidegate.rollout.front.process import Process, is_alive
from tidegate.rollout.front.weights import committed
from tidegate.rollout.router import ARMS, LATENCY_EDGES, Observation, Tally


def status(folder: Path) -> dict[str, Any]:
    """Return what is wanted, what runs, and what the proxy has counted, as JSON values.

    ``observed`` says whether the proxy answers; without it shares are the kept ones, and there are no counts.
    """
    running, fleet = read_running(folder), read_fleet(folder)
    try:
        seen, observed = router(folder).observe(), True
    except ServerError:
        kept = committed(folder)
        seen, observed = Observation("", kept.generation, kept.shares), False
    return {
        "front": folder.name,
        "url": _url(running),
        "kind": KINDS[running.kind].title,
        "observed": observed,
        "supervisor": _pid(running.supervisor),
        "proxy": _pid(running.proxy),
        "generation": seen.generation,
        "arms": {arm: _arm(arm, fleet, running, seen) for arm in ARMS if arm in fleet.arms or arm in seen.weights},
    }


def _url(running: Running) -> str:
    host = f"[{running.host}]" if ":" in running.host else running.host
    return f"http://{host}:{running.port}" if running.port else ""


def _pid(process: Process | None) -> int | None:
    return process.pid if process and is_alive(process) else None


def _arm(arm: str, fleet: Fleet, running: Running, seen: Observation) -> Mapping[str, Any]:
    wanted, tally = fleet.arms.get(arm), seen.arms.get(arm, Tally())
    return {
        "reference": wanted.reference if wanted else None,
        "share": seen.weights.get(arm, 0),
        "wanted": wanted.workers if wanted else 0,
        "ready": len(running.ready(arm)),
        "requests": tally.requests,
        "errors": tally.errors,
        "refused": tally.refused,
        "p50_ms": quantile(tally, 0.5),
        "p99_ms": quantile(tally, 0.99),
    }


def quantile(tally: Tally, share: float) -> float | None:
    """The edge, in milliseconds, that a share of an arm's answers did not pass; None without answers.

    Beyond the last edge it is infinite.
    """
    answered, below = sum(tally.latency), 0
    for edge, count in zip((*LATENCY_EDGES, float("inf")), tally.latency, strict=True):
        below += count
        if answered and below >= share * answered:
            return edge / 1000
    return None
