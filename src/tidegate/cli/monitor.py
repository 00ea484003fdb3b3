"""``tidegate monitor``: live rows and predictions held against what the version was evaluated on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

import click

from tidegate.errors import ServerError, Trouble
from tidegate.project import read_project, serve_token
from tidegate.registry.gate import CANNOT_TELL, FAIL, PASS
from tidegate.registry.model import Registry
from tidegate.rollout.drift import Rules
from tidegate.rollout.front.fleet import front_folder, read_running
from tidegate.rollout.monitor import Monitor, Seen, Server, Source
from tidegate.rollout.router import STABLE
from tidegate.store.open import open_store

_CODES = {PASS: 0, FAIL: 1, CANNOT_TELL: 3}


@click.command("monitor")
@click.argument("name")
@click.option("--url", "urls", multiple=True, metavar="URL",
              help="The admin port of a server; may be repeated. By default those of `tidegate front NAME`.")  # fmt: skip
@click.option(
    "--every", type=click.FloatRange(0.1), default=60, show_default=True, help="Seconds of a window at least."
)
@click.option("--min-rows", type=click.IntRange(1), default=1000, show_default=True, help="Rows of a window at least.")
@click.option("--psi", type=click.FloatRange(0, min_open=True), default=0.2, show_default=True,
              help="From this population stability index on a column has drifted.")  # fmt: skip
@click.option("--missing", type=click.FloatRange(0, 1, min_open=True), default=0.05, show_default=True,
              help="From this change of the share of missing values on, too.")  # fmt: skip
@click.option(
    "--once",
    is_flag=True,
    help="Look at all that was counted until now, and end: 1 where something drifted, 3 where nothing can be told.",
)
@click.option("--store", metavar="URI", help="Where the registry lives.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each window.")
def command(
    name: str, urls: Sequence[str], every: float, min_rows: int, psi: float, missing: float, once: bool,
    store: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Watch the live rows and predictions of a model for drift, until Ctrl-C.

    What drifts is written into the store, once; a pipeline is started by it with
    `tidegate watch FILE --data PARAM=drift:NAME`.
    """
    opened = open_store(store or read_project().store_uri)
    registry = Registry(opened)
    registry.version(name, 1)  # an unknown model is said at once
    rules = Rules(psi, missing, min_rows)
    monitor = Monitor(opened, lambda: registry.state(name), lambda: _sources(name, urls), rules)
    if once:
        seen = monitor.turn()
        _say(seen, name, min_rows, as_json)
        return _CODES[seen.outcome if seen else CANNOT_TELL]
    while True:
        _turn(monitor, name, min_rows, as_json)
        time.sleep(every)


def _turn(monitor: Monitor, name: str, min_rows: int, as_json: bool) -> None:
    try:
        _say(monitor.turn(), name, min_rows, as_json)
    except Trouble as e:  # it may come back; what was counted meanwhile is in the next window
        click.echo(f"error[{e.code}]: {e}", err=True)


def _sources(name: str, urls: Sequence[str]) -> Mapping[str, Source]:
    token = serve_token()
    if urls:
        return {url: Server(url, token) for url in urls}
    found = read_running(front_folder(name)).ready(STABLE)
    if not found:
        raise ServerError(
            f"no front of {name} runs here with a stable server that is ready",
            allowed="A front, or the admin ports of servers.",
            hint=f"tidegate front {name}, or tidegate monitor {name} --url http://127.0.0.1:PORT",
            code="front-down",
        )
    addresses = (f"http://127.0.0.1:{s.admin_port}" for s in found)
    return {address: Server(address, token) for address in addresses}


def _say(seen: Seen | None, name: str, min_rows: int, as_json: bool) -> None:
    if seen is None:
        body = {"model": name, "outcome": CANNOT_TELL, "needed": min_rows}
        click.echo(json.dumps(body) if as_json else f"{name}: cannot tell: fewer than {min_rows} rows yet")
        return
    if as_json:
        click.echo(json.dumps(_body(seen)))
        return
    odd = [f.text for f in seen.findings.values() if f.outcome != PASS]
    what = f"{name} version {seen.version.version}, {seen.rows} rows"
    said = {FAIL: f"drifted: {', '.join(seen.drifted)}", PASS: "no drift", CANNOT_TELL: "cannot tell: nothing compares"}
    click.echo(f"{what}: {said[seen.outcome]}")
    for text in odd:
        click.echo(f"  {text}")
    if seen.event:
        click.echo(f"  written down as event {seen.event}; a pipeline is started by --data PARAM=drift:{name}")


def _body(seen: Seen) -> dict[str, object]:
    return {
        "model": seen.version.model,
        "version": seen.version.version,
        "rows": seen.rows,
        "outcome": seen.outcome,
        "drifted": seen.drifted,
        "event": seen.event,
        "findings": {n: f.as_json() for n, f in seen.findings.items()},
    }
