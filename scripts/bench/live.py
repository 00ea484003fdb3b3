"""A model live, with real processes on one machine: the split, how soon a bad version is gone, and a rollout from end to end.

    make demo
    python scripts/bench/live.py .tidegate/demo --better 2 --faulty 3 [--only PART …] [--rounds 5] [--out FOLDER]

STORE holds ``fraud`` and is copied first. The load is ``wrk``'s, with one thread and 32 connections: rows as the model's
generator makes them, paced by ``delay`` or as fast as they are answered. Everything else is as a user gets it.

* ``split``: a candidate held at 5 %: 10,000 requests a second, then as many as go; shares, p99, failures
* ``found``: 1, 10 and 100 % of the rows make the faulty version fail: seconds from the first failure of the candidate to its
  last request, by the proxy's own counts, looked at every 10 ms
* ``slow``: the champion with products of matrices before its graph, as many as make it 1.2 times as slow at the proxy:
  seconds from the candidate's first request to its last
* ``equal``: the champion's own graph as the candidate, held at 5 % for ``--minutes``, looked at ten times a second: whether it
  is rolled back, and the largest e-value of each test
* ``back``: seconds from ``tidegate rollback`` typed, in mid-canary, to weight 0
* ``story``: at 10,000 a second the better version is promoted, then the faulty one rolled back. Latency is that of a probe of
  200 requests a second, ``h2load``'s; FOLDER gets ``live.svg`` and ``live.json``
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from components.generate_transactions.transactions import generate
from scripts.bench import versions
from tidegate.errors import TidegateError
from tidegate.rollout.front.haproxy import HaproxyRouter
from tidegate.rollout.router import BASELINE, CANARY, LATENCY_EDGES, WHOLE, Observation
from tidegate.store.open import open_store

Said = argparse.Namespace
NAME, LARGE, RATE, PROBE_RATE, CONNECTIONS = "fraud", 250_000.0, 10_000, 200, 32
UNDECIDABLE = ["--step", "5", "--deadline", "6h", "--max-error-increase", "0.000002"]  # for two hours at 5 % of RATE
LUA = """
local bodies, turn, first = {{}}, 0, nil
for line in io.lines("{file}") do bodies[#bodies + 1] = line end
local ffi = require("ffi")
ffi.cdef[[typedef struct {{ long s; long n; }} when_t; int clock_gettime(int, when_t*);]]
local when = ffi.new("when_t")
local function now() ffi.C.clock_gettime(1, when); return tonumber(when.s) * 1000 + tonumber(when.n) / 1e6 end
math.randomseed({seed})
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
function request() return wrk.format(nil, nil, nil, bodies[math.random(#bodies)]) end
"""
PACED = """
local due
function delay()
  local t = now()
  due = math.max((due or t) + {pause}, t - 1000)
  return math.max(0, math.floor(due - t))
end
"""


@dataclass(frozen=True)
class Load:
    """What ``wrk`` says of a load: requests, how many a second, their p50 and p99 in milliseconds, failures."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    failed: int


@dataclass
class Found:
    """What the proxy counted of the candidate while it was judged; times in seconds."""

    first: float = 0.0
    last: float = 0.0
    requests: int = 0
    errors: int = 0


@dataclass
class Live:
    """A front that runs.

    Attributes:
        store: where ``fraud`` is.
        folder: of files of this run.
        port: where the front answers.
        router: reads the proxy's counts.
    """

    store: Path
    folder: Path
    env: dict[str, str]
    port: int = 0
    router: HaproxyRouter = field(default_factory=lambda: HaproxyRouter(Path()))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/predict"

    def tidegate(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tidegate", *words, "--store", str(self.store)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True)
        if check and done.returncode:
            raise SystemExit(f"{' '.join(words)}: {done.stderr}")
        return done

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.tidegate("rollout", "status", NAME, "--json").stdout))

    def observe(self) -> Observation | None:
        with suppress(TidegateError):
            return self.router.observe()
        return None


@contextmanager
def live(store: Path, champion: int) -> Iterator[Live]:
    """A front before a version as champion, in a copy of a store."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-live-"))
    shutil.copytree(store, folder / "store")
    made = Live(folder / "store", folder, {**os.environ, "XDG_STATE_HOME": str(folder / "state")})
    made.tidegate("model", "promote", f"{NAME}:{champion}")
    command = [sys.executable, "-m", "tidegate", "front", NAME, "--port", "0", "--store", str(made.store)]
    with (folder / "front.log").open("w") as log, subprocess.Popen(command, env=made.env, stdout=log) as front:
        try:
            while not (found := _ready(made)):
                if front.poll() is not None:
                    raise SystemExit((folder / "front.log").read_text())
                time.sleep(0.2)
            made.port = int(found["url"].rpartition(":")[2])
            made.router = HaproxyRouter(folder / "state" / "tidegate" / "front" / NAME)
            yield made
        finally:
            front.send_signal(signal.SIGTERM)
            front.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _ready(made: Live) -> dict[str, Any] | None:
    done = made.tidegate("front", "status", NAME, "--json", check=False)
    found = json.loads(done.stdout) if not done.returncode else {}
    return found if found and found["arms"]["stable"]["ready"] else None


def rows(large: float, count: int = 2000) -> list[str]:
    """Requests of one row; of ``large`` of them the amount makes a faulty version fail."""
    frame = generate(20_000, seed=99).drop("time", "customer", "merchant", "date", "is_fraud").sample(count, seed=0)
    made = frame.to_dicts()
    for row in made[: round(large * count)]:
        row["amount"] = LARGE
    return [json.dumps([row], default=float) for row in made]


class Wrk:
    """A load that runs from ``with`` to the end of the block, or for so many seconds.

    Args:
        made: the front.
        rate: requests a second; 0 for as many as are answered.
        large: the share of rows that make a faulty version fail.
        seconds: how long at most.
    """

    def __init__(self, made: Live, rate: float, large: float = 0.0, seconds: float = 3600) -> None:
        file = made.folder / f"rows-{large}"
        file.write_text("\n".join(rows(large)))
        script = made.folder / f"wrk-{rate}-{large}.lua"
        script.write_text(LUA.format(file=file, seed=1) + (PACED.format(pause=1000 / rate) if rate else ""))
        words = ["-t1", f"-c{CONNECTIONS}", f"-d{round(seconds)}", "--timeout", "5s", "--latency", "-s", str(script)]
        self.command, self.load = ["wrk", *words, made.url], Load(0, 0.0, 0.0, 0.0, 0)

    def __enter__(self) -> Wrk:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.load = parse(self.process.communicate()[0])

    def whole(self) -> Load:
        """Wait for all of its seconds."""
        with subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True) as run:
            return parse(run.communicate()[0])


def parse(said: str) -> Load:
    """Read what ``wrk`` prints."""
    times = {p: _ms(*re.findall(rf"{p}%\s+([\d.]+)(us|ms|s)", said)[0]) for p in (50, 99)}
    failed = int((re.findall(r"Non-2xx or 3xx responses: (\d+)", said) or ["0"])[0])
    failed += sum(int(n) for line in re.findall(r"Socket errors: (.*)", said) for n in re.findall(r"\d+", line))
    requests = int(re.findall(r"(\d+) requests in", said)[0])
    return Load(requests, float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0]), times[50], times[99], failed)


def _ms(number: str, unit: str) -> float:
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def split(made: Live, said: Said) -> dict[str, Any]:
    """Hold the better version at 5 %, and measure both kinds of load."""
    with Wrk(made, RATE):
        _begin(made, said.better)
    found: dict[str, Any] = {"paced": [], "closed": [], "share": []}
    for _round in range(said.rounds):
        before = made.router.observe()
        found["paced"].append(asdict(Wrk(made, RATE, seconds=10).whole()))
        found["share"].append(_share(before, made.router.observe()))
        found["closed"].append(asdict(Wrk(made, 0, seconds=10).whole()))
    made.tidegate("rollout", "abort", NAME)
    for kind in ("paced", "closed"):
        loads = [Load(**load) for load in found[kind]]
        print(f"{kind:<7} {statistics.median(x.rate for x in loads):>8.0f} req/s  p50 "
              f"{statistics.median(x.p50_ms for x in loads):.2f} ms  p99 {statistics.median(x.p99_ms for x in loads):.2f} ms"
              f"  {sum(x.failed for x in loads)} of {sum(x.requests for x in loads):,} failed")  # fmt: skip
    print(f"shares of the canary: {', '.join(f'{s:.2%}' for s in found['share'])}")
    return found


def _share(before: Observation, after: Observation) -> float:
    grown = {arm: t.requests - before.arms[arm].requests for arm, t in after.arms.items()}
    return grown[CANARY] / sum(grown.values())


def _wait(made: Live, over: Any, seconds: float = 120) -> Observation:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := made.observe()) and over(found):
            return found
        time.sleep(0.01)
    raise SystemExit("what was waited for did not happen")


def found(made: Live, said: Said) -> dict[str, Any]:
    """Let a version fail, again and again, and see how long it gets requests."""
    results: dict[str, Any] = {}
    for share in (0.01, 0.1, 1.0):
        seen, load = [], Load(0, 0.0, 0.0, 0.0, 0)
        for _round in range(said.rounds):
            with Wrk(made, RATE, share) as wrk:
                seen.append(taken_back(made, said.faulty))
            load = Load(load.requests + wrk.load.requests, wrk.load.rate, 0.0, 0.0, load.failed + wrk.load.failed)
        took = [f.last - f.first for f in seen]
        results[f"{share:g}"] = {"seconds": took, "canary": [asdict(f) for f in seen], "requests": load.requests,
                                 "failed": load.failed}  # fmt: skip
        print(f"failing {share:>4.0%}: last canary request {statistics.median(took):.2f} s (median; most {max(took):.2f}) "
              f"after its first failure, {statistics.median(f.requests for f in seen):.0f} requests; {load.failed} of "
              f"{load.requests:,} failed for clients")  # fmt: skip
    return results


def slow(made: Live, said: Said) -> dict[str, Any]:
    """Let a version be 1.2 times as slow, again and again, and see how long it gets requests."""
    ratios, store = {}, open_store(str(made.store))
    with Wrk(made, RATE):
        for work in (0, 2, 4, 6):
            version = versions.again(store, NAME, work)
            ratios[version] = _slower(made, version)
    version, ratio = min(ratios.items(), key=lambda r: abs(r[1]["mean"] - 1.2))
    found = ", ".join(f"{r['mean']:.2f}" for r in ratios.values())
    print(f"mean latency by the control's: {found}; taken: {', '.join(f'{n} {r:.2f}' for n, r in ratio.items())}")
    seen = []
    for _round in range(said.rounds):
        with Wrk(made, RATE):
            seen.append(taken_back(made, version, first="requests"))
    took = [f.last - f.first for f in seen]
    print(
        f"last canary request {statistics.median(took):.2f} s (median; {min(took):.2f} to {max(took):.2f}) after its first"
    )
    return {"ratios": [*ratios.values()], "ratio": ratio, "seconds": took, "canary": [asdict(f) for f in seen]}


def _slower(made: Live, version: int) -> dict[str, float]:
    """Hold a version at 5 % for some seconds; return how many times as slow as its control it is."""
    _begin(made, version, "--latency-tolerance", "10")
    before = made.router.observe().arms
    time.sleep(10)
    after = made.router.observe().arms
    made.tidegate("rollout", "abort", NAME)
    arms = []
    for arm in (CANARY, BASELINE):
        counts = [b - a for a, b in zip(before[arm].latency, after[arm].latency, strict=True)]
        arms.append({"mean": _mean(counts), **{f"p{p}": _quantile(counts, p / 100) for p in (50, 95)}})
    return {name: arms[0][name] / arms[1][name] for name in arms[0]}


EDGES = (0, *LATENCY_EDGES, 2 * LATENCY_EDGES[-1])


def _mean(counts: list[int]) -> float:
    """The mean latency, in microseconds, of a histogram whose counts lie in the middle of their bins."""
    return sum(n * (a + b) / 2 for n, a, b in zip(counts, EDGES, EDGES[1:], strict=False)) / sum(counts)


def _quantile(counts: list[int], share: float) -> float:
    """The latency, in microseconds, that a share did not pass; counts are spread evenly over their bins."""
    left = share * sum(counts)
    for n, a, b in zip(counts, EDGES, EDGES[1:], strict=False):
        if n >= left:
            return a + (b - a) * left / max(n, 1)
        left -= n
    return EDGES[-1]


def equal(made: Live, said: Said) -> dict[str, Any]:
    """Hold the champion's own graph at 5 %, and keep the largest e-value of each test that was seen."""
    version, most = versions.again(open_store(str(made.store)), NAME), dict[str, float]()
    with Wrk(made, RATE) as wrk:
        _begin(made, version)
        end = time.monotonic() + 60 * said.minutes
        while time.monotonic() < end and (status := made.status())["phase"] == "canary":
            for finding in status["findings"]:
                test = finding["text"].partition(":")[0]
                most[test] = max(most.get(test, 0.0), float(finding["numbers"].get("e_value", 0.0)))
            time.sleep(10)
        made.tidegate("rollout", "abort", NAME, check=False)
    print(f"{status['phase']} after {status['seconds']:.0f} s ({status['reason']}); largest e-values seen: {most}; "
          f"{wrk.load.failed} of {wrk.load.requests:,} failed")  # fmt: skip
    return {"status": status, "most": most, "load": asdict(wrk.load)}


def taken_back(made: Live, version: int, first: str = "errors") -> Found:
    """Start a rollout of a version and count at the proxy until it is taken back.

    Args:
        made: the front.
        version: of the candidate.
        first: which of its counts begins the time.
    """
    seen, over = Found(), threading.Event()
    start = made.router.observe().arms

    def look() -> None:
        while not over.wait(0.01):
            if not (at := made.observe()):
                continue
            base, tally = start.get(CANARY), at.arms[CANARY]
            requests, errors = (tally.requests - base.requests, tally.errors - base.errors) if base else (0, 0)
            if {"errors": errors, "requests": requests}[first] > 0 and not seen.first:
                seen.first = time.monotonic()
            if requests > seen.requests:
                seen.last = time.monotonic()
            seen.requests, seen.errors = max(seen.requests, requests), max(seen.errors, errors)

    thread = threading.Thread(target=look)
    thread.start()
    done = made.tidegate("rollout", "start", f"{NAME}:{version}", "--again", "--json", check=False)
    over.set()
    thread.join()
    if json.loads(done.stdout)["outcome"] != "rolled-back":
        raise SystemExit(f"version {version} was not taken back: {done.stdout} {done.stderr}")
    return seen


def back(made: Live, said: Said) -> dict[str, Any]:
    """Take a canary back by hand under load, and see when its last request was."""
    took, ended = [], []
    with Wrk(made, RATE) as wrk:
        for _round in range(said.rounds):
            _begin(made, said.better)
            with ThreadPoolExecutor() as pool:
                typed = time.monotonic()
                done = pool.submit(made.tidegate, "rollback", NAME)
                took.append(_wait_for_none(made) - typed)
                done.result()
            ended.append(time.monotonic() - typed)
    print(f"weight 0 {statistics.median(took):.2f} s (median; most {max(took):.2f}) after it was typed; the command "
          f"ended after {statistics.median(ended):.2f} s; {wrk.load.failed} of {wrk.load.requests:,} failed")  # fmt: skip
    return {"seconds": took, "ended": ended, "load": asdict(wrk.load)}


def _wait_for_none(made: Live) -> float:
    """When the candidate's weight was 0."""
    _wait(made, lambda o: o.weights.get(CANARY, 0) == 0)
    return time.monotonic()


def _begin(made: Live, version: int, *more: str) -> None:
    """Start a rollout that stays at 5 %, as soon as the one before is over."""
    words = [f"{NAME}:{version}", "--again", "--detach", *UNDECIDABLE, "--rate", str(RATE), *more]
    end = time.monotonic() + 60
    while (done := made.tidegate("rollout", "start", *words, check=False)).returncode:
        if time.monotonic() > end:
            raise SystemExit(done.stderr)
        time.sleep(0.5)
    _wait(made, lambda o: o.weights.get(CANARY, 0) > 0)


@dataclass
class Series:
    """What was seen over time: shares of the candidate, and the probe's latencies in milliseconds; seconds since the start."""

    shares: list[tuple[float, float]] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    probe_failed: int = 0
    probed: int = 0


def story(made: Live, said: Said) -> dict[str, Any]:
    """Promote one version and take the other back under one load that never stops."""
    series, over, began = Series(), threading.Event(), time.monotonic()
    watchers = [threading.Thread(target=t, args=(made, series, began, over)) for t in (_weights, _probe)]
    outcomes = []
    with Wrk(made, RATE, 0.01) as wrk:
        for thread in watchers:
            thread.start()
        time.sleep(5)
        for version in (said.better, said.faulty):
            series.marks.append((time.monotonic() - began, f"rollout of version {version}"))
            words = ["rollout", "start", f"{NAME}:{version}", "--again", "--rollback-window", "10s", "--json"]
            outcomes.append(json.loads(made.tidegate(*words, check=False).stdout or "{}"))
            series.marks.append((time.monotonic() - began, outcomes[-1].get("outcome", "?")))
            time.sleep(10)
        over.set()
        for thread in watchers:
            thread.join()
    print(f"{wrk.load.requests:,} requests at {wrk.load.rate:.0f} a second, {wrk.load.failed} failed, "
          f"p99 {wrk.load.p99_ms} ms; {series.probed:,} of the probe, {series.probe_failed} failed")  # fmt: skip
    for outcome in outcomes:
        print(f"  {outcome.get('outcome')}: {outcome.get('reason')}")
    return {"load": asdict(wrk.load), "outcomes": outcomes, **asdict(series)}


def _weights(made: Live, series: Series, began: float, over: threading.Event) -> None:
    while not over.wait(0.1):
        if at := made.observe():
            series.shares.append((time.monotonic() - began, 100 * at.weights.get(CANARY, 0) / WHOLE))


def _probe(made: Live, series: Series, began: float, over: threading.Event) -> None:
    bodies, turn = rows(0.0), 0
    body, log = made.folder / "probe", made.folder / "probe.log"
    while not over.is_set():
        body.write_text(bodies[(turn := turn + 1) % len(bodies)])
        log.unlink(missing_ok=True)
        words = ["-n", str(PROBE_RATE), "-c", "1", "--rps", str(PROBE_RATE), "-d", str(body), f"--log-file={log}"]
        at = time.monotonic() - began
        subprocess.run(
            ["h2load", "--h1", *words, "-H", "content-type: application/json", made.url], capture_output=True
        )
        lines = [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []
        first = int(lines[0][0]) if lines else 0
        series.latencies += [(at + (int(t) - first) / 1e6, int(took) / 1e3) for t, _, took in lines]
        series.probe_failed += sum(code != "200" for _, code, _ in lines)
        series.probed += len(lines)


def draw(said: dict[str, Any], file: Path) -> None:
    """Draw latency and the candidate's share over time."""
    import matplotlib as mpl
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "tidegate"
    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(8, 5), height_ratios=(3, 2))
    seconds: dict[int, list[float]] = {}
    for at, took in said["latencies"]:
        seconds.setdefault(int(at), []).append(took)
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        middle = [(t + 0.5, sorted(x)[int(share * (len(x) - 1))]) for t, x in sorted(seconds.items())]
        above.plot(*zip(*middle, strict=True), label=f"{name} of each second", linewidth=1)
    above.set_ylabel("latency, ms")
    above.set_yscale("log")
    above.legend(loc="upper right", fontsize="small")
    below.step(*zip(*said["shares"], strict=True), where="post", color="tab:green", linewidth=1.5)
    below.set_ylabel("candidate, %")
    below.set_ylim(-5, 105)
    below.set_xlabel("seconds")
    for axes in (above, below):
        for at, _ in said["marks"]:
            axes.axvline(at, color="0.7", linewidth=0.8, linestyle=":")
    for at, name in said["marks"]:
        below.text(
            at + 0.5, 0.95, name, transform=below.get_xaxis_transform(), fontsize="x-small", rotation=90, va="top"
        )
    figure.suptitle(
        f"{said['load']['requests']:,} requests at {said['load']['rate']:,.0f} a second: "
        f"{said['load']['failed'] + said['probe_failed']} failures", y=0.99, fontsize="medium",
    )  # fmt: skip
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


PARTS = {"split": split, "found": found, "slow": slow, "equal": equal, "back": back, "story": story}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--better", type=int, default=2, help="a version that is no worse than the champion")
    parser.add_argument("--faulty", type=int, default=3, help="one of pipelines/rehearsal")
    parser.add_argument("--champion", type=int, default=1, help="which one is champion to begin with")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[p for p in PARTS if p != "equal"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=30.0, help="of the part equal, which has to be asked for")
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    results: dict[str, Any] = {}
    for part in said.only:
        print(f"== {part}", flush=True)
        # a faulty version is compared with the one that it was made of
        with live(said.store, said.better if part == "found" else said.champion) as made:
            results[part] = PARTS[part](made, said)
    if said.out:
        said.out.mkdir(parents=True, exist_ok=True)
        (said.out / "live.json").write_text(json.dumps(results))
        if "story" in results:
            draw(results["story"], said.out / "live.svg")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
