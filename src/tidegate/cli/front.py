"""``tidegate front``: the proxy before a model's versions, and the processes behind it."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from tidegate.errors import ConfigError, Damaged, ServerError, Trouble, UsageError
from tidegate.project import SERVE_TOKEN, read_project, serve_token
from tidegate.registry.model import Registry, Version, may_serve
from tidegate.rollout.front.configuration import Settings
from tidegate.rollout.front.fleet import (
    FLEET,
    Fleet,
    Wanted,
    front_folder,
    new_front_folder,
    read_fleet,
    read_running,
    write_fleet,
)
from tidegate.rollout.front.kinds import HAPROXY, KINDS
from tidegate.rollout.front.process import is_alive
from tidegate.rollout.front.status import status
from tidegate.rollout.front.supervisor import Supervisor, one_supervisor
from tidegate.rollout.router import STABLE, WHOLE
from tidegate.serve.access import is_loopback
from tidegate.serve.server import listen
from tidegate.store.open import open_store


@click.command("front")
@click.argument("words", nargs=-1, required=True, metavar="[status] NAME")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 picks a free one.")
@click.option("--workers", type=click.IntRange(1, 16), help="Processes of the stable version; 1 to begin with.")
@click.option("--timeout", type=click.IntRange(10, 60_000), default=500, show_default=True, metavar="MS",
              help="How long a candidate may take before its request goes to stable.")  # fmt: skip
@click.option("--body", type=click.IntRange(1024, 1 << 24), default=24_576, show_default=True, metavar="BYTES",
              help="The largest request that a candidate gets.")  # fmt: skip
@click.option("--sticky", default="", metavar="HEADER", help="Who sends the same value meets the same version.")
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Threads of the proxy.")
@click.option("--proxy", type=click.Choice(sorted(KINDS)), default=HAPROXY, show_default=True,
              help="envoy can copy requests to a candidate.")  # fmt: skip
@click.option("--open", "open_", is_flag=True, help="Let everybody who reaches the port ask it.")
@click.option("--store", metavar="URI", help="Where the registry lives.")
@click.option("--json", "as_json", is_flag=True, help="The status as one line of JSON.")
def command(
    words: Sequence[str], host: str, port: int, workers: int | None, timeout: int, body: int, sticky: str,
    threads: int, proxy: str, open_: bool, store: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Serve a model's champion behind a proxy that can share its traffic with a candidate, until SIGTERM or Ctrl-C.

    `tidegate front status NAME` shows what runs and who gets which share.
    """
    name = words[-1]
    if len(words) == 2 and words[0] == "status":
        return _show(status(front_folder(name)), as_json)
    if len(words) > 1:
        raise UsageError(f"{' '.join(words)!r} is no front", allowed="NAME, or status NAME.", code="usage")
    where = store or read_project().store_uri
    _check_open(host, open_)
    folder = new_front_folder(name)
    settings = Settings(folder, port, host, body, timeout, sticky=sticky, threads=threads)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with one_supervisor(folder), _left_as_it_was(folder):
        _check_port(folder, host, port)
        _write_first_fleet(folder, name, where, workers)
        Supervisor(settings, _server(where, host, open_), say=_say, kind=proxy).run(ended.is_set)
    return 0


@contextmanager
def _left_as_it_was(folder: Path) -> Iterator[None]:
    """A front that could not be started at all was never told what to serve."""
    was_told = (folder / FLEET).exists()
    try:
        yield
    except (ConfigError, ServerError, OSError):
        if not was_told:
            (folder / FLEET).unlink(missing_ok=True)
        raise


def _check_port(folder: Path, host: str, port: int) -> None:
    """Say that a port is taken before a proxy says so in its own words; one that runs has it rightly."""
    with suppress(Damaged):
        proxy = read_running(folder).proxy
        if proxy and is_alive(proxy):
            return
    for sock in listen("0.0.0.0" if host == "*" else host, port, 1):
        sock.close()


def _say(text: str) -> None:
    with suppress(OSError):  # a full disk, a closed pipe
        click.echo(text)
        sys.stdout.flush()


def _check_open(host: str, open_: bool) -> None:
    token = serve_token()  # the servers would refuse to start with what is none
    if not (is_loopback(host) or open_ or token):
        raise UsageError(
            f"{host} can be reached from other machines",
            allowed=f"A loopback address, or a bearer token in {SERVE_TOKEN}.",
            hint="--host 127.0.0.1; or --open, to let everybody ask",
            code="front-open",
        )


def _write_first_fleet(folder: Path, name: str, store: str, workers: int | None) -> None:
    """Let stable be the champion where nobody has said what to serve; say how many processes where it is asked."""
    fleet = read_fleet(folder)
    if (stable := fleet.arms.get(STABLE)) is None:
        stable = _champion(name, store)
    else:
        with suppress(Trouble):  # what runs does not need the registry; a store without the version is another one
            _, version = Registry(open_store(store)).version(name, stable.reference.rpartition(":")[2])
            _check_same(version, stable, store, folder)
            if (champion := _champion(name, store)).reference != stable.reference:
                _say(
                    f"note: the champion is {champion.reference}; this front serves {stable.reference}, as it was told last"
                )
    stable = Wanted(stable.reference, stable.digest, workers or stable.workers)
    write_fleet(folder, Fleet({**fleet.arms, STABLE: stable}, fleet.generation))


def _check_same(version: Version, stable: Wanted, store: str, folder: Path) -> None:
    if version.digest != stable.digest:
        raise UsageError(
            f"{stable.reference} in {store} is {version.digest}, and this front was told to serve {stable.digest}",
            allowed="The store that it was told of.",
            hint=f"--store URI; to serve the champion of {store}: rm {folder / FLEET}",
            code="front-other-store",
        )


def _champion(name: str, store: str) -> Wanted:
    state, version = Registry(open_store(store)).version(name)
    may_serve(state, version)
    return Wanted(f"{name}:{version.version}", version.digest)


def _server(store: str, host: str, open_: bool) -> Any:
    # a front for other machines is asked by names that we do not know; there the token decides
    rules = [] if is_loopback(host) else ["--allow-host", "*"]
    rules += ["--open"] * open_  # a token of the environment is then the admin port's alone
    common = [sys.executable, "-m", "tidegate", "serve"]

    def command(wanted: Wanted, port: int, admin_port: int) -> list[str]:
        ports = ["--host", "127.0.0.1", "--port", str(port), "--admin-port", str(admin_port)]
        return [*common, wanted.reference, "--digest", wanted.digest, *ports, "--store", store, *rules]

    return command


def _show(found: dict[str, Any], as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo("\n".join(_text(found)))
    return 0 if found["observed"] else 3


def _text(found: dict[str, Any]) -> list[str]:
    name = found["front"]
    lines = [f"{name} at {found['url'] or 'no port'}  weights of generation {found['generation']}"]
    if not found["observed"]:
        lines.append(f"{found['kind']} does not answer; the shares are what it begins with → tidegate front {name}")
    elif not found["supervisor"]:
        lines.append(f"nobody looks after it: what dies stays dead → tidegate front {name}")
    lines.append(
        f"{'arm':<9} {'version':<20} {'share':>7} {'servers':>8} {'requests':>11} {'errors':>8} {'refused':>8} "
        f"{'p50':>8} {'p99':>8}"
    )
    for arm, row in found["arms"].items():
        share, servers = f"{100 * row['share'] / WHOLE:g} %", f"{row['ready']}/{row['wanted']}"
        counts = f"{row['requests']:>11,} {row['errors']:>8,} {row['refused']:>8,}"
        times = f"{_ms(row['p50_ms']):>8} {_ms(row['p99_ms']):>8}"
        lines.append(f"{arm:<9} {row['reference'] or '-':<20} {share:>7} {servers:>8} {counts} {times}")
    return lines


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms"
