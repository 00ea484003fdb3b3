"""The workloads, and how each engine does them. Every repetition computes with another number, unless it is cached."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import ir
from environments import Environment
from measure import Contender
from peers import dvc_chain, kedro_project, metaflow_chain

PEERS = Path(__file__).parent / "peers"
BRANCHES = 10
FILE = """from kfp import dsl

from steps import add


@dsl.pipeline(name="chain")
def chain(x: int = 1) -> int:
    value = x
    for _ in range({n}):
        value = add(a=value, b=1).output
    return value
"""
STEPS = """import tidegate


@tidegate.component
def add(a: int, b: int) -> int:
    return a + b
"""
Expected = Callable[[int], tuple[str, ...]]
UNCHANGED = -2
ONE, EACH = "one process for all steps", "a process a step"


def x(repetition: int) -> int:
    """The input of a repetition, far from every other's: a step that adds 1 must not meet its neighbour's result."""
    return (repetition + 2) * 1000


@dataclass(frozen=True)
class Place:
    """Where a workload is laid out, and with which environments."""

    folder: Path
    environments: Mapping[str, Environment]
    tidegate: list[str]

    def new(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder


def chain(place: Place, n: int) -> list[Contender]:
    """A chain of n trivial steps; the input changes every time, so nothing is cached."""
    return [*_tidegate_chain(place, n), *_peers(place, "chain", n), _floor(place, "chain", n)]


def cached(place: Place, n: int) -> list[Contender]:
    """The same chain again, unchanged."""
    ours = [_unchanged(c, n) for c in _tidegate_chain(place, n) if "cold" not in c.name]
    theirs = [_unchanged(c, n) for c in _peers(place, "cached", n)]
    return [*ours, *theirs]


def fan(place: Place, n: int) -> list[Contender]:
    """n branches that sleep for half a second."""
    folder = _project(place, "tidegate-fan")
    ir.write(folder / "fan.yaml", "sleep", n)
    ours = _tidegate(place, "tidegate --jobs 10", folder, lambda r: ["fan.yaml", "--jobs", str(n), "-p", f"x={x(r)}"])
    ours = replace(ours, expect=lambda _: (f"{n} steps ran, 0 from the cache",))
    return [ours, *_peers(place, "fan", n), _floor(place, "fan", n)]


def helps(place: Place, _: int) -> list[Contender]:
    """``--help``."""
    names = {"kfp": "kfp", "flyte": "flyte", "kedro": "kedro", "dvc": "dvc", "metaflow": "metaflow"}
    ours = Contender("tidegate --help", "", lambda _: [*place.tidegate, "--help"], place.new("help"))
    return [ours, *(_help(place, e, command) for e, command in names.items())]


def _help(place: Place, engine: str, command: str) -> Contender:
    found = place.environments[engine]
    return _of(
        place, Contender(f"{command} --help", "", lambda _: [found.command(command), "--help"], place.folder), engine
    )


def _tidegate_chain(place: Place, n: int) -> list[Contender]:
    folder = _project(place, "tidegate")
    ir.write(folder / "chain.yaml", "chain", n)
    (folder / "steps.py").write_text(STEPS)
    (folder / "chain.py").write_text(FILE.format(n=n))
    yaml = _tidegate(place, "tidegate FILE.yaml", folder, lambda r: ["chain.yaml", "-p", f"x={x(r)}"])
    python = _tidegate(place, "tidegate FILE.py", folder, lambda r: ["chain.py", "-p", f"x={x(r)}"])
    return [replace(c, expect=_ran(n)) for c in (yaml, python, _cold(place, python))]


def _ran(n: int) -> Expected:
    return lambda r: (f"Output = {x(r) + n}", f"{n} steps ran, 0 from the cache")


def _cold(place: Place, python: Contender) -> Contender:
    """FILE.py as the first time: a project, store and cache folder that were never seen."""
    folder = place.folder / "tidegate-cold"

    def anew(_: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        ignored = shutil.ignore_patterns(".tidegate", "xdg", "*.yaml")
        shutil.copytree(python.folder, folder, ignore=ignored)

    env = {**python.env, "XDG_CACHE_HOME": str(folder / "xdg")}
    return replace(python, name="tidegate FILE.py, cold", folder=folder, env=env, before=anew)


def _project(place: Place, name: str) -> Path:
    folder = place.new(name)
    (folder / "pyproject.toml").write_text("[tool.tidegate]\nmlflow = false\n")
    return folder


def _tidegate(place: Place, name: str, folder: Path, arguments: Callable[[int], list[str]]) -> Contender:
    env = {"XDG_CACHE_HOME": str(folder / "xdg")}
    return Contender(name, EACH, lambda r: [*place.tidegate, "run", *arguments(r)], folder, env)


def _peers(place: Place, workload: str, n: int) -> list[Contender]:
    scripts = [
        _script(place, "kfp.local", EACH, "kfp", "kfp_local_chain.py", workload, n),
        _script(place, "Flyte 2", ONE, "flyte", "flyte_chain.py", workload, n),
        _script(place, _KEDRO[workload], ONE, "kedro", "kedro_chain.py", workload, n),
    ]
    projects = [_kedro_run(place, n)] if workload == "chain" else []
    return [*scripts, *projects, _dvc(place, workload, n), _metaflow(place, workload, n)]


_KEDRO = {
    "chain": "Kedro SequentialRunner in a script",
    "cached": "Kedro SequentialRunner in a script, only missing outputs",
    "fan": "Kedro ThreadRunner in a script",
}


def _script(place: Place, name: str, how: str, engine: str, file: str, workload: str, n: int) -> Contender:
    python, script = place.environments[engine].python, str(PEERS / file)
    c = Contender(name, how, lambda r: [python, script, workload, str(n), str(x(r))], place.new(engine))
    return _of(place, replace(c, expect=_sum(workload, n)), engine)


def _sum(workload: str, n: int) -> Expected:
    return lambda r: () if workload == "fan" else (str(x(r) + n),)


def _kedro_run(place: Place, n: int) -> Contender:
    folder, command = place.new("kedro-project"), place.environments["kedro"].command("kedro")
    for name, text in kedro_project.files(n).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    c = Contender("kedro run", ONE, lambda r: [command, "run", "--params", f"x={x(r)}"], folder)
    return _of(place, replace(c, expect=lambda _: (f"Completed {n} out of {n} tasks",)), "kedro")


def _of(place: Place, c: Contender, engine: str) -> Contender:
    """A peer's contender: its own interpreter first on the path, a home of its own, no telemetry."""
    found = place.environments[engine]
    home = str(place.folder / f"home-{engine}")
    env = {
        **c.env,
        "PATH": f"{found.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "USERNAME": "bench",
        "KEDRO_DISABLE_TELEMETRY": "1",
        "DVC_NO_ANALYTICS": "1",
        "METAFLOW_HOME": home,
    }
    Path(home).mkdir(exist_ok=True)
    return replace(c, env=env, trouble=found.trouble)


def _dvc(place: Place, workload: str, n: int) -> Contender:
    folder, command = place.new("dvc"), place.environments["dvc"].command("dvc")
    (folder / "dvc.yaml").write_text(dvc_chain.fan(n) if workload == "fan" else dvc_chain.chain(n))
    (folder / "step.py").write_text(dvc_chain.STEP)
    (folder / ".dvc" / "tmp").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    c = Contender("DVC repro", "a shell and a process a step, one at a time", lambda _: [command, "repro"], folder)
    return _of(place, replace(c, expect=_sum(workload, n), before=partial(_write_input, folder / "v0")), "dvc")


def _write_input(path: Path, repetition: int) -> None:
    path.write_text(str(x(repetition)))


def _metaflow(place: Place, workload: str, n: int) -> Contender:
    folder, python = place.new("metaflow"), place.environments["metaflow"].python
    (folder / "flow.py").write_text(metaflow_chain.fan(n) if workload == "fan" else metaflow_chain.chain(n))
    c = Contender(
        "Metaflow run", EACH, lambda r: [python, "flow.py", "run", "--x", str(x(r)), "--max-workers", str(n)], folder
    )
    c = replace(c, expect=_sum(workload, n))
    if workload == "cached":
        c = replace(c, name="Metaflow resume", command=lambda _: [python, "flow.py", "resume"], first=c.command)
    return _of(place, c, "metaflow")


def _floor(place: Place, workload: str, n: int) -> Contender:
    python, script = place.environments["tidegate"].python, str(PEERS / "interpreters.py")
    c = Contender(_BARE, EACH, lambda r: [python, script, workload, str(n), str(x(r))], place.new("floor"))
    return replace(c, expect=_sum(workload, n))


_BARE = "(bare interpreters, no engine)"


def _unchanged(c: Contender, n: int) -> Contender:
    """The contender with one and the same input every time."""
    first = c.first
    return replace(
        c,
        command=lambda _: c.command(UNCHANGED),
        first=(lambda _: first(UNCHANGED)) if first else None,
        before=lambda _: c.before(UNCHANGED),
        expect=lambda r: (_CACHED[c.name.partition(" ")[0]].format(n=n),) if r >= 0 else (),
    )


_CACHED = {
    "tidegate": "0 steps ran, {n} from the cache",
    "kfp.local": "{n}",
    "Flyte": "o0={n}",
    "Kedro": "{n}",
    "DVC": "Data and pipelines are up to date",
    "Metaflow": "cloned",
}
