"""What the judge promises and what it costs, by simulation: prints a table. No server, no clock; every row is seeded.

``python scripts/bench/judge.py [--many N] [ROW …]``
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from traffic import WEIGHTS, Outcome, World, pair, same, shifted, simulate

from tidegate.rollout import judge
from tidegate.rollout.judgement import Arm, Look, Rules, Weights
from tidegate.rollout.router import LATENCY_EDGES

ALL = Rules(alpha=0.05)  # its first step may use 0.01: as much as a whole rollout by default
HALF_HOUR, HOUR = 1800.0, 3600.0
LOW = World(rate=100 / 60, weights=Weights(2500, 2500, 5000), errors=0.0, other_errors=0.0)
PATIENT = Rules(latency_tolerance=2.0, horizon=12 * HOUR)
MODELS = pair(np.random.default_rng(7))
RETRAINED = World(scores=MODELS.scores, canary_scores=MODELS.candidate)
DRIFTED = pair(np.random.default_rng(7), 1000, 0.2)


def step(world: World, seconds: float, *, rules: Rules = Rules(), **how: object) -> Callable[[int], Outcome]:
    """One step in such a world."""
    given = {"table": same(), "rules": rules, **how}
    return lambda many: simulate(np.random.default_rng(1), [(0.0, world)], seconds=seconds, many=many, **given)  # type: ignore[arg-type]


def late(world: World) -> Callable[[int], Outcome]:
    """A fault after an hour of health."""

    def run(many: int) -> Outcome:
        worlds = [(0.0, World()), (HOUR, world)]
        found = simulate(
            np.random.default_rng(1), worlds, rules=Rules(), table=same(), seconds=HOUR + 60, many=many, calm=HOUR
        )
        return replace(found, alarms={t: a - HOUR for t, a in found.alarms.items()})

    return run


def calm(world: World, seconds: float, table: object = None, **how: object) -> Callable[[int], Outcome]:
    """Looked at every second."""
    return step(world, seconds, every=1.0, table=table or same(), **how)


ROWS: Mapping[str, tuple[int, Callable[[int], Outcome]]] = {
    "equal, 30 min, a step with all of alpha": (2000, calm(World(), HALF_HOUR, rules=ALL)),
    "equal, 0.1 s, 2 min, all of alpha": (500, step(World(), 120, rules=ALL)),
    "equal, no errors": (500, calm(World(errors=0.0, other_errors=0.0), 240, until="healthy")),
    "equal, 2 % errors": (500, calm(World(errors=0.02, other_errors=0.02), 600, until="healthy")),
    "equal, 100 requests a minute, 25 %": (
        500,
        step(LOW, 12 * HOUR, every=60.0, rules=PATIENT, until="healthy"),
    ),
    "retrained, other levels": (500, calm(RETRAINED, 240, MODELS.table, until="healthy")),
    "retrained, 1,000 rows, drift 0.2 sd": (
        500,
        calm(World(scores=DRIFTED.scores, canary_scores=DRIFTED.candidate), 240, DRIFTED.table, until="healthy"),
    ),
    "errors 0.1 -> 0.2 %": (500, step(World(errors=0.002), 300)),
    "errors 0.1 -> 0.5 %": (1000, step(World(errors=0.005), 60)),
    "errors 0.1 -> 1 %": (1000, step(World(errors=0.01), 60)),
    "errors 0 -> 1 %": (1000, step(World(errors=0.01, other_errors=0.0), 60)),
    "errors 0.1 -> 10 %": (1000, step(World(errors=0.1), 10)),
    "errors 0.1 -> 100 %": (1000, step(World(errors=1.0), 10)),
    "refusals 1 -> 2 %": (1000, step(World(refused=0.02, other_refused=0.01), 120)),
    "refusals 5 -> 6 %": (500, calm(World(refused=0.06, other_refused=0.05), 600)),
    "equal, 5 % refusals": (500, calm(World(refused=0.05, other_refused=0.05), 240, until="healthy")),
    "latency x 1.1": (500, step(World(slower=1.1), 120)),
    "latency x 1.2": (1000, step(World(slower=1.2), 60)),
    "latency x 1.5": (1000, step(World(slower=1.5), 60)),
    "scores + 0.25 sd": (1000, step(World(canary_scores=shifted(0.25)), 60)),
    "scores + 0.5 sd": (1000, step(World(canary_scores=shifted(0.5)), 60)),
    "scores constant": (1000, step(World(canary_scores=(1.0, *[0.0] * 9)), 60)),
    "features in a wrong order": (1000, step(replace(RETRAINED, canary_scores=MODELS.misled), 60, table=MODELS.table)),
    "errors -> 1 %, after an hour": (100, late(World(errors=0.01))),
    "errors -> 10 %, after an hour": (100, late(World(errors=0.1))),
    "latency x 1.2, after an hour": (100, late(World(slower=1.2))),
    "scores + 0.25 sd, after an hour": (100, late(World(canary_scores=shifted(0.25)))),
}


def cost(looks: int = 3000) -> str:
    """CPU milliseconds of one look, in the last third of five minutes of looks 0.1 s apart."""
    rng, said, spent = np.random.default_rng(2), judge.begin(Rules(), WEIGHTS, same()), []
    latency, scores = (np.zeros((3, n), dtype=int) for n in (len(LATENCY_EDGES) + 1, 10))
    for tenth in range(1, looks + 1):
        latency += rng.multinomial((50, 50, 900), [1 / 49] * 49)
        scores += rng.multinomial((50, 50, 900), [0.1] * 10)
        arms = [
            Arm(int(s.sum()), 0, tuple(la.tolist()), tuple(s.tolist())) for la, s in zip(latency, scores, strict=True)
        ]
        began = time.process_time()
        said = judge.look(said, Look(tenth / 10, *arms))
        spent.append(time.process_time() - began)
    last = np.array(spent[2 * looks // 3 :]) * 1000
    return f"one look: {np.median(last):.2f} ms of CPU (95 %: {np.quantile(last, 0.95):.2f} ms)"


def row(name: str, found: Outcome, took: float) -> str:
    """One line of the table."""
    alarm, healthy = found.alarm, found.healthy
    return f"| {name} | {len(alarm)} | {_said(alarm)} | {_said(healthy)} | {took:.0f} |"


def _said(times: np.ndarray) -> str:
    there = times[np.isfinite(times)]
    if not len(there):
        return "none"
    return f"{len(there) / len(times):.2%}, {np.median(there):.1f} s ({np.quantile(there, 0.95):.1f} s)"


def main() -> None:
    """Parse the arguments, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="only rows whose names begin with one of these")
    parser.add_argument("--many", type=int, default=0, help="rollouts a row, instead of the row's own number")
    args = parser.parse_args()
    print(cost(), flush=True)
    print(
        "| what | rollouts | alarms: share, median (95 %) | healthy: share, median (95 %) | CPU s |\n|---|--:|---|---|--:|"
    )
    for name, (many, run) in ROWS.items():
        if not args.rows or any(name.startswith(r) for r in args.rows):
            began = time.process_time()
            print(row(name, run(args.many or many), time.process_time() - began), flush=True)


if __name__ == "__main__":
    main()
