"""``tidegate watch``: run a pipeline when its data is new."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from tidegate import api
from tidegate.cli import values
from tidegate.cli.interrupt import listen_for_the_end
from tidegate.cli.progress import Progress
from tidegate.cli.wakers import read_wakers
from tidegate.cron import parse, zone
from tidegate.data import ref
from tidegate.data.base import Pin
from tidegate.errors import ConfigError, NotFound, ParameterError, TidegateError, Trouble, UsageError
from tidegate.plan.events import FAILED
from tidegate.prepared import prepare
from tidegate.project import read_project
from tidegate.store.base import Store
from tidegate.store.open import open_store
from tidegate.store.patient import PatientStore
from tidegate.store.runs import OutcomeRecord, Runs
from tidegate.timetable import FILE, Entry, read_timetable
from tidegate.trigger.claim import slug
from tidegate.trigger.clock import Bell, Clock
from tidegate.trigger.hint import Hints
from tidegate.trigger.history import check_name
from tidegate.trigger.keeper import AGAIN_SECONDS, LOOK_SECONDS, Keeper
from tidegate.trigger.retrain import Retrain, parse_hours
from tidegate.trigger.start import Starter
from tidegate.trigger.watch import RAN, UNSETTLED, Order, Turn, Watch, Watcher

_OF_DATA = (
    "data", "typed", "file", "name", "poll", "quiet", "runs_per_day", "gap", "debounce", "quiet_hours", "timezone",
    "listen", "secret_file", "notify", "by_digest", "once",
)  # fmt: skip
_OF_A_FILE = ("table", "schedule")


@click.command("watch")
@click.argument("target", metavar="[FILE[:PIPELINE]]", default="")
@click.option(
    "--data",
    multiple=True,
    metavar="PARAM=REF",
    help="Data to watch; PARAM is given its pin. Repeatable.",
)
@click.option("-p", "--param", "typed", multiple=True, metavar="NAME=VALUE", help="A run parameter; may be repeated.")
@click.option("--params", "file", type=click.Path(path_type=Path), help="Parameters from a JSON or YAML file.")
@click.option("--name", default="", help="Of the trigger, for its history; the pipeline's by default.")
@click.option("--poll", type=click.FloatRange(0.1), default=60, show_default=True, help="Seconds between looks.")
@click.option("--quiet", type=click.FloatRange(0), default=30, show_default=True, help="Seconds of no change.")
@click.option(
    "--lease",
    type=click.FloatRange(2),
    default=60,
    show_default=True,
    help="Seconds until a dead watcher's run is taken over.",
)
@click.option("--runs-per-day", type=click.IntRange(0), default=0, help="Start at most so many; any number by default.")
@click.option("--gap", type=click.FloatRange(0), default=0, help="Seconds between the starts of two runs at least.")
@click.option("--debounce", type=click.FloatRange(0), default=0, help="Seconds of nothing newer before a run starts.")
@click.option("--quiet-hours", metavar="HH:MM-HH:MM", help="Start nothing then.")
@click.option("--timezone", default="UTC", show_default=True, help="Of days and quiet hours.")
@click.option("--listen", metavar="HOST:PORT", help="Look at once when a webhook calls; its secret: see --secret-file.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path),
    help="Holds the secret of webhooks; TIDEGATE_WEBHOOK_SECRET by default.",
)
@click.option(
    "--notify",
    multiple=True,
    metavar="WHAT",
    help="Look at once when a bucket tells: sqs:URL of a queue, or minio. Repeatable.",
)
@click.option("--by-digest", is_flag=True, help="Read data before claiming it: the same bytes elsewhere are not new.")
@click.option("--once", is_flag=True, help="Look, run what is new, and end.")
@click.option(
    "--file", "table", type=click.Path(path_type=Path), help=f"Of schedules; the project's {FILE} by default."
)
@click.option(
    "--schedule", default="", metavar="NAME", help="Run this one schedule of the file until its next run ended."
)
@click.option("--engine", type=click.Choice(api.ENGINES), default=api.LOCAL, show_default=True)
@click.option("--store", metavar="URI", help="What all watchers share: claims, runs, cache, registry.")
@click.option("-j", "--jobs", type=click.IntRange(1, 1024), help="Steps at a time; all cores by default.")
@click.option("--allow-tags", is_flag=True, help="Let a cluster run images by tag, which may change under a run.")
@click.option("--no-mirror", is_flag=True, help="Do not write runs into MLflow.")
@click.option("--verbose", is_flag=True, help="Show what the steps write.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each change on stdout; the rest on stderr.")
@click.pass_context
def command(
    context: click.Context,
    target: str,
    data: Sequence[str],
    typed: Sequence[str],
    file: Path | None,
    name: str,
    poll: float,
    quiet: float,
    lease: float,
    runs_per_day: int,
    gap: float,
    debounce: float,
    quiet_hours: str | None,
    timezone: str,
    listen: str | None,
    secret_file: Path | None,
    notify: Sequence[str],
    by_digest: bool,
    once: bool,
    table: Path | None,
    schedule: str,
    engine: str,
    store: str | None,
    jobs: int | None,
    allow_tags: bool,
    no_mirror: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Watch data, and run a pipeline once for each state of it; without a FILE watch the clock for schedules.toml.

    REF names data: dvc+REPOSITORY@REVISION:PATH, s3://…, gs://…, az://…, file:PATH, https://…, or a registered model:
    model:NAME@ALIAS. Any number of watchers may share a store; one of them runs, and what a dead one left is taken over.
    """
    listen_for_the_end()
    options = api.Options(
        store, jobs, mirror=False if no_mirror else None, engine=engine, logs=verbose, mutable_images=allow_tags,
        interrupted=lambda: "detach",
    )  # fmt: skip
    _check_form(context, target)
    if not target:
        file = table or read_project().root / FILE
        return _keep_time(file, options) if not schedule else _ring(file, schedule, options, lease)
    if not data:
        raise UsageError(
            "nothing says what to watch",
            allowed="--data PARAM=REF; or no FILE, to run schedules.toml by the clock.",
            hint=f"tidegate watch {target} --data PARAM=REF",
            code="watch-what",
        )
    references = dict(values.split(d, "--data") for d in data)
    wakers = read_wakers(listen, secret_file, notify, references.values(), once=once)
    prepared = prepare(target)
    parameters = values.parameters(prepared.plan, typed, file)
    _check_references(references, parameters)
    hours = parse_hours(quiet_hours) if quiet_hours else None
    retrain = Retrain(runs_per_day, gap, debounce, hours, zone(timezone))
    watch = Watch(
        check_name(name) if name else slug(prepared.plan.name), prepared.plan.name, prepared.plan.digest,
        references, parameters, poll, quiet, lease, retrain,
    )  # fmt: skip
    api.check_run(prepared, {**parameters, **references}, options)
    opened = PatientStore(open_store(store or prepared.project.store_uri), lease / 2)
    progress = Progress(sys.stderr if as_json else sys.stdout, logs=verbose)
    starter, who = Starter(prepared, options, progress.report), f"{socket.gethostname()}:{os.getpid()}"
    again = ["tidegate", "run", target, *(["--engine", engine] if engine != api.LOCAL else [])]
    where = ["--store", store] if store else []
    shown = _as_json if as_json else partial(_as_text, Runs(opened), again, where)
    resolve, identify = partial(ref.resolve, store=opened), partial(_identity, opened, by_digest)
    watcher = Watcher(watch, opened, starter, resolve=resolve, identify=identify, who=who)
    with wakers.hints() as hints:
        click.echo(f"watching {', '.join(references.values())} for {prepared.plan.name} as {watch.name}", err=True)
        turn = _watch(watcher, hints, once, shown)
    return 1 if turn.reason == RAN and turn.done and turn.done.state == FAILED else 0


def _identity(store: Store, by_digest: bool, pin: Pin) -> str:
    return ref.learn(str(pin), store).digest if by_digest else pin.identity


def _check_form(context: click.Context, target: str) -> None:
    """Refuse options of data beside a file of schedules, and the other way round."""
    wrong = _OF_A_FILE if target else _OF_DATA
    given = [n for n in wrong if context.get_parameter_source(n) is not click.core.ParameterSource.DEFAULT]
    if given:
        of, other = ("schedules.toml", "leave FILE out") if target else ("watching data", "name its FILE")
        flag = {"typed": "param", "table": "file", "file": "params"}.get(given[0], given[0].replace("_", "-"))
        raise UsageError(f"--{flag} is of {of}", allowed=f"To use it, {other}.", code="watch-what")


def _keep_time(file: Path, options: api.Options) -> int:
    """Run the schedules of a file on this machine until told to end, one process each."""
    entries = _to_run(file)
    for entry in entries:
        api.check_run(prepare(entry.pipeline), entry.parameters, options)
        click.echo(f"{entry.name}  {entry.cron} ({entry.timezone})", err=True)
    command = [sys.executable, "-m", "tidegate", *sys.argv[1:], "--schedule"]
    keeper, tick = Keeper(lambda name: subprocess.Popen([*command, name], start_new_session=True)), threading.Event()
    with keeper.kept():
        while True:
            with suppress(ConfigError, NotFound):  # somebody is writing it
                entries = _to_run(file)
            keeper.look([e.name for e in entries])
            tick.wait(LOOK_SECONDS)


def _to_run(file: Path) -> list[Entry]:
    entries = [e for e in read_timetable(file) if not e.suspended]
    for entry in entries:
        check_name(entry.name)
        _bell(entry)
        if entry.concurrency != "forbid":
            raise UsageError(
                f"[{entry.name}] wants concurrency {entry.concurrency!r}",
                allowed="forbid: on one machine a schedule runs one at a time.",
                code="schedule-concurrency",
            )
    return entries


def _bell(entry: Entry) -> Bell:
    return Bell(entry.name, parse(entry.cron), zone(entry.timezone), entry.catch_up)


def _ring(file: Path, name: str, options: api.Options, lease: float) -> int:
    """Wait for the next moment of one schedule, run it, and end; also where the schedule changed."""
    entry = _entry(file, name)
    opened = PatientStore(open_store(options.store or read_project(file.resolve().parent).store_uri), lease / 2)
    progress = Progress(sys.stderr, logs=options.logs)

    def start(order: Order) -> str:
        return Starter(prepare(entry.pipeline), options, progress.report)(order)

    clock = Clock(_bell(entry), opened, start, parameters=entry.parameters, lease=lease, who=_who())
    tick = threading.Event()
    while _entry(file, name) == entry:
        try:
            wait = clock.turn()
        except Trouble as e:
            click.echo(f"note: {e.found}", err=True)
            wait = AGAIN_SECONDS
        if not wait:
            return 0
        tick.wait(wait)
    return 0


def _entry(file: Path, name: str) -> Entry:
    found = next((e for e in read_timetable(file) if e.name == name and not e.suspended), None)
    if found:
        return found
    raise NotFound(f"{file} has no schedule {name!r} that runs", hint="tidegate watch", code="schedule-not-found")


def _who() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _check_references(references: dict[str, str], parameters: dict[str, object]) -> None:
    for name, reference in references.items():
        ref.parse(reference)
        if name in parameters:
            raise ParameterError(
                f"the parameter {name!r} is given by --data and by -p",
                allowed="One of them.",
                code="parameter-twice",
            )


def _watch(watcher: Watcher, hints: Hints, once: bool, shown: Callable[[Turn], str]) -> Turn:
    """Look again and again; with ``once`` until it is known whether there is something to run."""
    said = ""
    while True:
        turn = watcher.turn()
        if (what := f"{turn.reason}: {turn.detail}") != said or turn.reason == RAN:
            click.echo(shown(turn))
        said = what
        if once and turn.error:
            raise turn.error
        if once and turn.reason != UNSETTLED:
            return turn
        hints.wait(turn.again)


def _as_text(runs: Runs, again: Sequence[str], where: Sequence[str], turn: Turn) -> str:
    """What came of a look; of a run also what it gave, or how to go on with it where it failed and still is as it was."""
    lines, outcome = [f"{turn.reason}: {turn.detail}"], _outcome(runs, turn)
    if turn.error and turn.error.hint:
        lines.append(f"  → {turn.error.hint}")
    if turn.done and outcome and outcome.state == FAILED:
        look = shlex.join(["tidegate", "runs", "show", turn.done.run_id, *where])
        lines += [f"  → {look}", f"  when it is mended: {shlex.join([*again, '--resume', turn.done.run_id, *where])}"]
    elif outcome and turn.reason == RAN:
        found = outcome.outputs.get("parameters", {})
        lines += [f"  {name} = {json.dumps(values.as_json(value))}" for name, value in found.items()]
    return "\n".join(lines)


def _outcome(runs: Runs, turn: Turn) -> OutcomeRecord | None:
    with suppress(TidegateError):  # it is only shown: what was to be kept of the run is kept
        return runs.outcome(runs.named(turn.done.run_id)) if turn.done else None
    return None


def _as_json(turn: Turn) -> str:
    done = turn.done
    return json.dumps(
        {
            "reason": turn.reason,
            "detail": turn.detail,
            "run_id": done.run_id if done else None,
            "state": done.state if done else None,
            "data": dict(done.data) if done else {},
            "error": turn.error.as_json() if turn.error else None,
        }
    )
