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
from dataclasses import dataclass, replace
from pathlib import Path

import report
import scale
import workloads
from environments import PINS, ROOT, Environment, environment
from measure import Contender, race
from plot import plot
from report import Section
from workloads import Place

FIVE, MORE, THOUSAND = 5, 25, 1_000


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
        sections = {name: _section(name, engines, tidegate, Path(folder), args.n) for name in args.only}
    text = "\n".join([*_header(engines, load, args.n), *report.goals(sections), *report.body(sections)])
    print(text)
    if args.out:
        _write(args.out, text, list(sections.values()), args.images or args.out.parent / "img")
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
        rows = race(make(bench.place, size), bench.n)
        return Section(title, report.race(rows), figures={r.contender.name: r.median for r in rows if r.samples})

    return section


def _steps(bench: Bench) -> Section:
    """What each further step costs: two chains of different lengths in one race."""
    made: dict[int, list[Contender]] = {}
    for size in (FIVE, MORE):
        place = Place(bench.place.folder / str(size), bench.place.environments, bench.place.tidegate)
        place.folder.mkdir(parents=True)
        made[size] = [c for c in workloads.chain(place, size) if "FILE.py" not in c.name]
    renamed = [replace(c, name=f"{c.name} {size}") for size, found in made.items() for c in found]
    rows = {r.contender.name: r for r in race(renamed, min(bench.n, 5))}
    pairs = [(c, rows[f"{c.name} {FIVE}"], rows[f"{c.name} {MORE}"]) for c in made[FIVE]]
    title = f"A further step: ({MORE} steps - {FIVE} steps) / {MORE - FIVE}"
    found = [report.Step(c, short, long, MORE - FIVE) for c, short, long in pairs]
    return Section(title, report.steps(found), figures={s.name: s.milliseconds for s in found if s.measured})


def _dag(bench: Bench) -> Section:
    """The thousand tasks, and how everything about tasks grows."""
    inside, kfp = _inside(bench), bench.place.environments["kfp"]
    found = scale.tasks(inside)
    compiled = 0.0 if kfp.trouble else scale.kfp_compile(inside, kfp.python, THOUSAND)
    said = kfp.trouble or f"{compiled:.2f} s"
    names = {"check": "check", "build": "plan", "graph": "scheduling, no steps"}
    names |= {"run wall": "run, a process a task", "cached wall": "run, all cached"}
    image = plot("Seconds by tasks", "tasks", "seconds", scale.growth(found, names))
    of = found[THOUSAND]
    figures = {
        "plan": of["check"] + of["build"],
        "scheduler": of["run cpu"] / THOUSAND * 1000,
        "memory": of["run peak_mb"],
        **({"kfp's compiler": compiled} if compiled else {}),
    }
    title = "Many tasks: layers of ten, each task reads two"
    lines = [*report.sizes(found), "", f"kfp's compiler alone, {THOUSAND:,} tasks: {said}"]
    return Section(title, lines, {"bench-tasks.svg": image}, figures)


def _logs(bench: Bench) -> Section:
    found = scale.lines(_inside(bench))
    image = plot("Seconds by lines of a log", "lines", "seconds", {"run of one step": list(found.items())})
    lines = report.table(["lines", "s"], [[f"{n:,}", f"{s:.2f}"] for n, s in found.items()], words=0)
    return Section("A step that prints: whole run by lines", lines, {"bench-lines.svg": image})


def _store(bench: Bench) -> Section:
    found = scale.stores(_inside(bench))
    head = ["stored runs", "both steps run, s", "both cached, s"]
    rows = [[f"{n:,}", f"{f['fresh']:.2f}", f"{f['cached']:.2f}"] for n, f in found.items()]
    series = scale.growth(found, {"fresh": "both steps run", "cached": "both cached"})
    image = plot("Seconds of a run by runs in the store", "stored runs", "seconds", series)
    title = "A store that fills: a run of two steps by the runs that the store holds"
    return Section(title, report.table(head, rows, words=0), {"bench-store.svg": image})


def _inside(bench: Bench) -> scale.Inside:
    return scale.place(bench.place.folder, bench.place.environments["tidegate"].python)


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
