"""tidegate beside what a user would pick instead, on this machine, now.

Every engine has an environment of its own, made with uv from PyPI and kept in the cache folder (about 550 MB, a minute
the first time). Engines run in turn (A B C A B C …), each warmed up once; the tables show medians of whole-process
wall time. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import scale
import workloads
from environments import PINS, ROOT, Environment, environment
from measure import Contender, Row, race
from plot import plot
from workloads import Place

FIVE, MORE = 5, 25


@dataclass(frozen=True)
class Section:
    """A part of the report; ``images`` are plots by file name."""

    title: str
    lines: Sequence[str]
    images: Mapping[str, str]


@dataclass(frozen=True)
class Bench:
    """What was asked for."""

    place: Place
    n: int


def main() -> int:
    args = _arguments()
    load = os.getloadavg()
    engines = {name: environment(name) for name in PINS}
    tidegate = args.tidegate.split() if args.tidegate else [engines["tidegate"].command("tidegate")]
    if engines["tidegate"].trouble:
        sys.exit(f"tidegate {engines['tidegate'].trouble}")
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-", ignore_cleanup_errors=True) as folder:
        sections = [_section(name, engines, tidegate, Path(folder), args.n) for name in args.only]
    text = "\n".join([*_header(engines, load, args.n), *(line for s in sections for line in s.lines)])
    print(text)
    if args.out:
        _write(args.out, text, sections, args.images or args.out.parent / "img")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_names, default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("-n", type=int, default=7, help="repetitions; 7 by default")
    parser.add_argument("--out", type=Path, help="write the tables there, between its markers where it has them")
    parser.add_argument("--images", type=Path, help="the folder of the plots; img beside --out by default")
    parser.add_argument("--tidegate", metavar="COMMAND", help="another tidegate; by default this checkout as a wheel")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    if unknown := set(text.split(",")) - set(SECTIONS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: one of {', '.join(SECTIONS)}")
    return text.split(",")


def _section(name: str, engines: Mapping[str, Environment], tidegate: list[str], folder: Path, n: int) -> Section:
    start = time.monotonic()
    print(f"{name} …", end=" ", file=sys.stderr, flush=True)
    section = SECTIONS[name](Bench(Place(folder / name, engines, tidegate), n))
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    return section


def _header(engines: Mapping[str, Environment], load: Sequence[float], n: int) -> list[str]:
    versions = ", ".join(pins[-1].replace("==", " ") for name, pins in PINS.items() if name != "tidegate")
    missing = [f"* {e.name} {e.trouble}" for e in engines.values() if e.trouble]
    return [
        f"{os.cpu_count()} cores ({_processor()}), {_memory()} GB, Python {platform.python_version()}, "
        f"load {load[0]:.1f} before and {os.getloadavg()[0]:.1f} after; medians of {n}. tidegate at {_revision()}; "
        f"{versions}.",
        *missing,
    ]


def _processor() -> str:
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return found[0].partition(": ")[2] if found else platform.machine()


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _revision() -> str:
    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True, check=False).stdout

    changed = " with uncommitted changes" if git("status", "--porcelain", "--", "src").strip() else ""
    return (git("rev-parse", "--short", "HEAD").strip() or "no commit") + changed


def _race(title: str, make: Callable[[Place, int], list[Contender]], size: int) -> Callable[[Bench], Section]:
    def section(bench: Bench) -> Section:
        bench.place.folder.mkdir()
        return Section(title, _table(title, race(make(bench.place, size), bench.n)), {})

    return section


def _table(title: str, rows: Sequence[Row]) -> list[str]:
    base = next((r.median for r in rows if r.samples), 1.0)
    done = sorted((r for r in rows if r.samples), key=lambda r: r.median)
    lines = [_row(r, base) for r in done] + [_missing(r) for r in rows if not r.samples]
    head = ["| engine | steps run in | s | min–max | CPU s | × tidegate |", "|---|---|--:|--:|--:|--:|"]
    return ["", f"### {title}", "", *head, *lines]


def _row(row: Row, base: float) -> str:
    c = row.contender
    name = f"**{c.name}**" if c.name.startswith("tidegate") else c.name
    return f"| {name} | {c.how} | {row.median:.2f} | {row.spread} | {row.cpu:.2f} | {row.median / base:.2f} |"


def _missing(row: Row) -> str:
    said = row.trouble.replace("|", "/").replace("\n", " ")
    return f"| {row.contender.name} | {row.contender.how} | - | {said} | - | - |"


def _steps(bench: Bench) -> Section:
    """What each further step costs: two chains of different lengths in one race."""
    made: dict[int, list[Contender]] = {}
    for size in (FIVE, MORE):
        place = Place(bench.place.folder / str(size), bench.place.environments, bench.place.tidegate)
        place.folder.mkdir(parents=True)
        made[size] = [c for c in workloads.chain(place, size) if "FILE.py" not in c.name]
    short, long = ([_renamed(c, size) for c in found] for size, found in made.items())
    rows = {r.contender.name: r for r in race([*short, *long], min(bench.n, 5))}
    pairs = [(c, rows[f"{c.name} {FIVE}"], rows[f"{c.name} {MORE}"]) for c in made[FIVE]]
    title = f"A further step: ({MORE} steps - {FIVE} steps) / {MORE - FIVE}"
    return Section(title, _step_table(title, pairs), {})


def _renamed(c: Contender, size: int) -> Contender:
    return Contender(f"{c.name} {size}", c.how, c.command, c.folder, c.env, c.expect, c.before, c.first, c.trouble)


def _step_table(title: str, pairs: Sequence[tuple[Contender, Row, Row]]) -> list[str]:
    found = [(c, a, b, (b.median - a.median) / (MORE - FIVE) * 1000) for c, a, b in pairs if a.samples and b.samples]
    lines = [
        f"| {c.name} | {c.how} | {ms:.0f} | {a.median:.2f} | {b.median:.2f} |"
        for c, a, b, ms in sorted(found, key=lambda f: f[3])
    ]
    missing = [
        f"| {c.name} | {c.how} | - | {a.trouble or b.trouble} | - |"
        for c, a, b in pairs
        if not (a.samples and b.samples)
    ]
    head = [f"| engine | steps run in | ms a step | {FIVE} steps, s | {MORE} steps, s |", "|---|---|--:|--:|--:|"]
    return ["", f"### {title}", "", *head, *lines, *missing]


def _dag(bench: Bench) -> Section:
    """The thousand tasks, and how everything about tasks grows."""
    inside = scale.place(bench.place.folder, bench.place.environments["tidegate"].python)
    found = scale.tasks(inside)
    kfp = bench.place.environments["kfp"]
    compiled = f"{scale.kfp_compile(inside, kfp.python, 1000):.2f}" if not kfp.trouble else kfp.trouble
    title = "Many tasks: layers of ten, each task reads two"
    lines = ["", f"### {title}", "", *_dag_table(found), "", f"kfp's compiler alone, 1,000 tasks: {compiled} s.", ""]
    names = {"check": "check", "build": "plan", "graph": "scheduling, no steps"}
    names |= {"run wall": "run, a process a task", "cached wall": "run, all cached"}
    image = plot("Seconds by tasks", "tasks", "seconds", scale.growth(found, names))
    return Section(title, [*lines, "![seconds by tasks](img/bench-tasks.svg)"], {"bench-tasks.svg": image})


def _dag_table(found: Mapping[int, Mapping[str, float]]) -> list[str]:
    sizes = list(found)
    return [
        "| | " + " | ".join(f"{n:,} tasks" for n in sizes) + " |",
        "|---|" + "--:|" * len(sizes),
        *(
            f"| {shown} | " + " | ".join(_cell(found[n], n, key, each) for n in sizes) + " |"
            for shown, key, each in DAG
        ),
    ]


def _cell(found: Mapping[str, float], n: int, key: str, each: float) -> str:
    if key not in found:
        return "-"
    value = found[key] * each / n if each else found[key]
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.1f}"


# label, key, and 1000 for what is shown in milliseconds a task
DAG = [
    ("read the YAML, s", "read", 0),
    ("check it, s", "check", 0),
    ("plan from the parsed IR, s", "build", 0),
    ("graph alone, ms a task", "graph", 1000),
    ("run, a process a task: wall, ms a task", "run wall", 1000),
    ("– CPU of the scheduler, ms a task", "run cpu", 1000),
    ("– CPU of the steps, ms a task", "run cpu_steps", 1000),
    ("– peak memory of the scheduler, MB", "run peak_mb", 0),
    ("all cached: wall, s", "cached wall", 0),
    ("all cached: wall, ms a task", "cached wall", 1000),
    ("– peak memory, MB", "cached peak_mb", 0),
]


def _logs(bench: Bench) -> Section:
    found = scale.lines(scale.place(bench.place.folder, bench.place.environments["tidegate"].python))
    title = "A step that prints: whole run by lines"
    table = ["| lines | s |", "|--:|--:|", *(f"| {n:,} | {s:.2f} |" for n, s in found.items())]
    image = plot("Seconds by lines of a log", "lines", "seconds", {"run of one step": list(found.items())})
    lines = ["", f"### {title}", "", *table, "", "![seconds by lines](img/bench-lines.svg)"]
    return Section(title, lines, {"bench-lines.svg": image})


def _store(bench: Bench) -> Section:
    found = scale.stores(scale.place(bench.place.folder, bench.place.environments["tidegate"].python))
    title = "A store that fills: a run of two steps by the runs that the store holds"
    table = ["| stored runs | both steps run, s | both cached, s |", "|--:|--:|--:|"]
    table += [f"| {n:,} | {f['fresh']:.2f} | {f['cached']:.2f} |" for n, f in found.items()]
    series = scale.growth(found, {"fresh": "both steps run", "cached": "both cached"})
    image = plot("Seconds of a run by runs in the store", "stored runs", "seconds", series)
    lines = ["", f"### {title}", "", *table, "", "![seconds by stored runs](img/bench-store.svg)"]
    return Section(title, lines, {"bench-store.svg": image})


START, END = "<!-- measured -->", "<!-- end of measured -->"


def _write(path: Path, text: str, sections: Sequence[Section], images: Path) -> None:
    old = path.read_text() if path.exists() else ""
    if START in old and END in old:
        text = f"{old.partition(START)[0]}{START}\n{text}\n{END}{old.partition(END)[2]}"
    path.write_text(text)
    images.mkdir(parents=True, exist_ok=True)
    for name, image in ((n, i) for s in sections for n, i in s.images.items()):
        (images / name).write_text(image)


SECTIONS: dict[str, Callable[[Bench], Section]] = {
    "chain": _race(f"{FIVE}-step chain of trivial components", workloads.chain, FIVE),
    "steps": _steps,
    "fan": _race(f"{workloads.BRANCHES} branches that sleep 0.5 s", workloads.fan, workloads.BRANCHES),
    "cached": _race("The same chain again, nothing changed", workloads.cached, FIVE),
    "help": _race("--help", workloads.helps, 0),
    "dag": _dag,
    "logs": _logs,
    "store": _store,
}

if __name__ == "__main__":
    raise SystemExit(main())
