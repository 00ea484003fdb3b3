"""``tidegate doctor``: one line a check, what is wrong and what to type."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import click

from tidegate.author.images import read_lock
from tidegate.errors import TidegateError
from tidegate.project import Project, read_project
from tidegate.registry.model import Registry
from tidegate.store.base import Store
from tidegate.store.open import open_store
from tidegate.timetable import FILE, read_timetable

Finding = tuple[bool | None, str, str]
_MARKS = {True: "ok ", False: "BAD", None: "?  "}
_EXTRAS = {
    "kfp": "kfp",
    "argo": "hera",
    "mlflow": "mlflow",
    "dvc": "dvc",
    "data": "polars",
    "sklearn": "sklearn",
    "serve": "msgspec",
}


@click.command("doctor")
@click.option("--store", metavar="URI", help="The store to check; the project's own by default.")
@click.option(
    "--engine", type=click.Choice(["local", "argo", "kfp"]), default="local", help="argo, kfp: check a cluster instead."
)
@click.option("--endpoint", metavar="URL", default="", help="argo: where the cluster's object store answers from here.")
@click.option("--json", "json_", is_flag=True)
def command(store: str | None, engine: str, endpoint: str, json_: bool) -> int:
    """Check this machine, the project and the store, or a cluster. Exits 3 when something is wrong."""
    project = read_project()
    uri = store or project.store_uri
    place = {"argo": lambda: _argo(project, endpoint), "kfp": lambda: _kfp(project, uri), "local": lambda: _store(uri)}
    wrong = False
    for ok, what, advice in (*_machine(), *_project(project), *place[engine]()):
        wrong |= ok is False
        if json_:
            click.echo(json.dumps({"ok": ok, "check": what, "advice": advice}))
        else:
            click.echo(f"{_MARKS[ok]} {what}" + (f"  → {advice}" if advice else ""))
    return 3 if wrong else 0


def _machine() -> Iterator[Finding]:
    yield True, f"Python {sys.version.split()[0]} at {sys.executable}", ""
    missing = [extra for extra, module in _EXTRAS.items() if find_spec(module) is None]
    yield (
        True,
        f"extras here: {', '.join(e for e in _EXTRAS if e not in missing) or 'none'}",
        (f"pip install 'tidegate[{','.join(missing)}]' for the rest" if missing else ""),
    )


def _project(project: Project) -> Iterator[Finding]:
    there = (project.root / "pyproject.toml").is_file()
    yield True, f"project {project.root}", "" if there else "no pyproject.toml: the store stands where you stand"
    yield _checked("images.lock", lambda: f"{len(read_lock(project.root).families)} image families")
    if (project.root / FILE).is_file():
        yield _checked(FILE, lambda: f"{len(read_timetable(project.root / FILE))} schedules")


def _store(uri: str) -> Iterator[Finding]:
    yield _checked(f"store {uri}", lambda: _round_trip(open_store(uri)))
    yield _checked("ledger", lambda: _ledger(open_store(uri)))


def _argo(project: Project, endpoint: str) -> Iterator[Finding]:
    from tidegate.engines.argo.access import StoreAccess
    from tidegate.engines.argo.doctor import Ward, examine
    from tidegate.engines.argo.start import reach

    try:
        cluster, settings = reach(project)
    except TidegateError as e:
        yield False, f"cluster: {e.found}", _advice(e)
        return
    yield True, f"cluster {cluster.address}, namespace {settings.namespace}", ""
    yield from examine(Ward(cluster, settings, lambda values: StoreAccess(values, endpoint)))


def _kfp(project: Project, uri: str) -> Iterator[Finding]:
    from tidegate.engines.kfp.client import reach
    from tidegate.engines.kfp.support import MEASURED, is_measured
    from tidegate.engines.pod.shared import check_store

    try:
        backend, settings = reach(project)
        version, experiment = backend.version(), backend.find_experiment(settings.experiment)
    except TidegateError as e:
        yield False, e.found, _advice(e)
        return
    newer = "" if is_measured(version) else f"measured up to {'.'.join(map(str, MEASURED))}: what it lacks may differ"
    yield True, f"Kubeflow Pipelines {version or 'of no version'} at {backend.host}", newer
    yield True, f"experiment {settings.experiment}", "" if experiment else "not there yet: the first run makes it"
    yield _checked("pods reach the store", lambda: check_store(uri))
    yield from _store(uri)
    said = f"the Secrets {settings.store_secret} and {settings.registrar_secret} are not looked at from here"
    yield None, said, "docs/kfp.md says how they are made; a step says when its pod has none"


def _advice(error: TidegateError) -> str:
    return " ".join(filter(None, (error.allowed, error.hint)))


def _round_trip(store: Store) -> str:
    store.put("probe/doctor", b"tidegate doctor")
    if store.get("probe/doctor") != b"tidegate doctor":
        raise TidegateError("the store gave back other bytes than were written", code="store-damaged")
    store.delete("probe/doctor")
    return "writes, reads, deletes"


def _ledger(store: Store) -> str:
    registry = Registry(store)
    models = registry.models()
    for name in models:
        registry.verify(name)
    return f"{len(models)} models, every chain whole"


def _checked(what: str, check: Callable[[], str]) -> Finding:
    try:
        return True, f"{what}: {check()}", ""
    except TidegateError as e:
        return False, f"{what}: {e.found}", e.hint or e.allowed
