"""``tidegate schedule``: pipelines that run by the clock, on a cluster with Argo or Kubeflow Pipelines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidegate import api
from tidegate.cli import values
from tidegate.cron import Cron, next_moments
from tidegate.errors import UsageError
from tidegate.prepared import prepare
from tidegate.project import read_project
from tidegate.store.open import OBJECT_SCHEMES, open_store
from tidegate.store.runs import iso
from tidegate.timetable import FILE, read_timetable

if TYPE_CHECKING:
    from tidegate.engines.schedule import Applied, Scheduler, Standing
    from tidegate.schedules import ScheduleOptions
    from tidegate.trigger.history import Happening

POLICIES = {
    "forbid": "a run whose time comes while another goes on waits for its end; the latest such starts then, {late}",
    "allow": "runs go on side by side",
    "replace": "a run whose time comes ends the one that goes on",
}
_SIGNS = {"created": "+", "updated": "~", "unchanged": "="}
_OF_ONE = ("expression", "every", "name", "timezone", "typed", "params", "concurrency", "catch_up", "suspended")
_OF_A_FILE = ("file", "prune", "yes")
_engine = click.option(
    "--engine", type=click.Choice([api.ARGO, api.KFP]), default=api.ARGO, show_default=True, help="Where."
)
_store = click.option("--store", metavar="URI", help="The store of its runs; the project's own by default.")
_json = click.option("--json", "json_", is_flag=True, help="JSON on stdout.")
_typed = click.option("-p", "--param", "typed", multiple=True, metavar="NAME=VALUE", help="A run parameter.")


@click.group("schedule")
def command() -> None:
    """Run pipelines by the clock on a cluster."""


@command.command("apply")
@click.argument("target", metavar="[FILE[:PIPELINE]]", default="")
@click.option("--cron", "expression", metavar="EXPR", default="", help="Five fields of cron, or @hourly, @daily …")
@click.option("--interval", "every", type=click.IntRange(1), help="Instead of EXPR: a run each so many seconds (kfp).")
@click.option("--name", default="", help="Of the schedule; the pipeline's by default.")
@click.option("--timezone", default="UTC", show_default=True, help="Of EXPR: a zone of the IANA database.")
@_typed
@click.option("--params", "params", type=click.Path(path_type=Path), help="Parameters from a JSON or YAML file.")
@click.option("--concurrency", type=click.Choice(list(POLICIES)), default="forbid", show_default=True, help="Overlap.")
@click.option("--catch-up", type=click.IntRange(0), default=600, show_default=True, help="How late it may start, in s.")
@click.option("--suspended/--no-suspended", default=None, help="Make it (not) run by itself; by default as it was.")
@click.option("--file", "file", type=click.Path(path_type=Path), help=f"Of schedules; the project's {FILE} by default.")
@click.option("--prune", is_flag=True, help="Remove schedules that came from the file and are not in it any more.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before a file is applied.")
@click.option("--allow-tags", is_flag=True, help="Let it run images by tag, which may change under a run.")
@click.option("--dry-run", is_flag=True, help="Check everything, and compare a file with the cluster; send nothing.")
@_engine
@_store
@_json
@click.pass_context
def apply(
    context: click.Context,
    target: str,
    expression: str,
    every: int | None,
    name: str,
    timezone: str,
    typed: Sequence[str],
    params: Path | None,
    concurrency: str,
    catch_up: int,
    suspended: bool | None,
    file: Path | None,
    prune: bool,
    yes: bool,
    allow_tags: bool,
    dry_run: bool,
    engine: str,
    store: str | None,
    json_: bool,
) -> int:
    """Make a schedule, or change the one of this name; without a FILE make all those of schedules.toml."""
    from tidegate import schedules

    _check_form(context, target)
    if not target:
        options = schedules.ScheduleOptions("", engine, store, mutable_images=allow_tags, dry_run=dry_run)
        return _apply_file(file, options, prune=prune, ask=not yes, json_=json_)
    prepared = prepare(target)
    parameters = values.parameters(prepared.plan, typed, params)
    cron = Cron(expression, timezone, concurrency.capitalize(), catch_up, bool(suspended), every or 0)
    options = schedules.ScheduleOptions(name, engine, store, suspended is not None, allow_tags, dry_run)
    applied = schedules.schedule(prepared, parameters, cron, options)
    _print(_applied_json(applied), json_, _applied_text(applied, prepared.plan.name, engine))
    return 0


def _check_form(context: click.Context, target: str) -> None:
    """Refuse options of one schedule beside a file of them, and the other way round."""
    wrong = _OF_A_FILE if target else _OF_ONE
    given = [n for n in wrong if context.get_parameter_source(n) is not click.core.ParameterSource.DEFAULT]
    if given:
        flag = "--" + {"typed": "param", "expression": "cron", "every": "interval"}.get(
            given[0], given[0].replace("_", "-")
        )
        of, other = ("a file of schedules", "leave FILE out") if target else ("one schedule", "name its FILE")
        raise UsageError(f"{flag} is of {of}", allowed=f"To use it, {other}.", code="schedule-form")
    if target and bool(context.params["expression"]) == bool(context.params["every"]):
        if context.params["every"]:
            raise UsageError(
                "--cron and --interval both say when it runs", allowed="One of them.", code="schedule-form"
            )
        raise UsageError(
            "nothing says when it runs",
            allowed="Five fields of cron, or @hourly, @daily, @weekly, @monthly, @yearly.",
            hint=f"tidegate schedule apply {target} --cron '0 3 * * *'",
            code="schedule-form",
        )


def _apply_file(file: Path | None, options: ScheduleOptions, *, prune: bool, ask: bool, json_: bool) -> int:
    """Bring the cluster to what a file says, showing first what that changes."""
    from tidegate import schedules

    project = read_project(file.resolve().parent if file else None)
    table = schedules.timetable(project, read_timetable(file or project.root / FILE), options)
    found = table.compare()
    gone = table.unwritten if prune else ()
    if not json_:
        click.echo("\n".join([*map(_difference, found), *(_unwritten(n, prune) for n in table.unwritten)]))
    if options.dry_run or not (gone or any(a.action != "unchanged" for a in found)):
        _told(found, json_)
        return 0
    if ask and not json_ and sys.stdin.isatty():
        click.confirm("Apply?", abort=True)
    done = [
        table.scheduler.apply(o) if a.action != "unchanged" else a for o, a in zip(table.orders, found, strict=True)
    ]
    _told(done, json_)
    for name in gone:
        going = table.scheduler.remove(name)
        _print({"schedule": name, "action": "removed", "running": list(going)}, json_, [f"removed {name}"])
    return 0


def _difference(applied: Applied) -> str:
    cron = applied.cron
    said = ", ".join(applied.changes) if applied.changes else cron.said
    return f"{_SIGNS[applied.action]} {applied.name:<24}  {said}"


def _unwritten(name: str, prune: bool) -> str:
    return f"- {name:<24}  is not in the file any more{'' if prune else '; --prune removes it'}"


def _told(found: Sequence[Applied], json_: bool) -> None:
    for applied in found:
        if json_ or applied.action != "unchanged":
            _print(_applied_json(applied), json_, [f"{applied.action} {applied.name}"])


@command.command("ls")
@click.argument("target", metavar="[FILE[:PIPELINE]]", default="")
@_engine
@_store
@_json
def ls(target: str, engine: str, store: str | None, json_: bool) -> None:
    """List schedules; with a FILE also whether they run what its working tree has."""
    plan = prepare(target).plan if target else None
    there = _scheduler(engine, store)
    found = there.every(datetime.now(UTC), plan)
    if not found and not json_:
        click.echo(f"no schedules in {_where(there, engine)}", err=True)
    for standing in found:
        _print(_row_json(standing), json_, _row_text(standing, engine))


@command.command("history")
@click.argument("name")
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True)
@_engine
@_store
@_json
def history(name: str, limit: int, engine: str, store: str | None, json_: bool) -> None:
    """List the runs of a schedule, or why a watcher started runs and why it did not, the newest first."""
    if happenings := _happenings(store, name, limit):
        for each in happenings:
            _print(each.__dict__, json_, [_happening_text(each)])
        return
    runs = _scheduler(engine, store).history(name, limit)
    if not runs and not json_:
        click.echo("no runs yet", err=True)
    for run in runs:
        seconds = "" if run.seconds is None else f"{run.seconds:.1f} s"
        _print(run.__dict__, json_, [f"{run.run_id}  {run.state:<9}  {run.started or '-':<20}  {seconds}".rstrip()])


def _happenings(store: str | None, name: str, limit: int) -> list[Happening]:
    """What happened to a trigger of this name, nothing where the store knows none."""
    from tidegate.trigger.history import History, names

    opened = open_store(store)
    return [*islice(History(opened, name).newest(), limit)] if name in names(opened) else []


def _happening_text(happening: Happening) -> str:
    looks = f"  after {happening.looks} look{'' if happening.looks == 1 else 's'}" if happening.looks else ""
    return f"{iso(happening.at)}  {happening.kind:<7}  {happening.detail}{looks}  {happening.watcher}".rstrip()


@command.command("suspend")
@click.argument("name")
@_engine
def suspend(name: str, engine: str) -> None:
    """Stop a schedule from starting runs; those that go on end by themselves."""
    before = _scheduler(engine, None).suspend(name, True)
    click.echo(f"{name} {'was suspended already' if before.suspended else 'is suspended'}")


@command.command("resume")
@click.argument("name")
@_engine
def resume(name: str, engine: str) -> None:
    """Let a schedule start runs again; one that it missed within its catch-up time starts now."""
    before = _scheduler(engine, None).suspend(name, False)
    click.echo(
        f"{name} {'runs' if before.suspended else 'was not suspended: it runs'} at {before.expression} ({before.zone})"
    )


@command.command("run")
@click.argument("name")
@_typed
@_engine
@_store
@_json
def run(name: str, typed: Sequence[str], engine: str, store: str | None, json_: bool) -> None:
    """Start a run of a schedule now, with its parameters and those that are given here."""
    from tidegate import schedules

    there = _scheduler(engine, store)
    parameters = values.parameters(there.plan(name), typed, None)
    run_id = schedules.start_scheduled(there, name, parameters, store or read_project().store_uri)
    _print({"schedule": name, "run_id": run_id}, json_, [f"started {run_id}", f"  → tidegate runs show {run_id}"])


@command.command("rm")
@click.argument("name")
@_engine
@_store
@_json
def rm(name: str, engine: str, store: str | None, json_: bool) -> None:
    """Remove a schedule. Its runs stay, and those that have not ended go on."""
    going = _scheduler(engine, store).remove(name)
    lines = [f"removed {name}", *(f"  {r} goes on" for r in going)]
    _print({"schedule": name, "running": list(going)}, json_, lines)


def _scheduler(engine: str, store: str | None) -> Scheduler:
    from tidegate.schedules import scheduler

    return scheduler(engine, read_project(), _object_store(store))


def _where(there: Scheduler, engine: str) -> str:
    return there.place if engine == api.KFP else f"the namespace {there.place}"


def _object_store(store: str | None) -> Any:
    """The store that pods can reach too, None where this project's is on this machine."""
    uri = store or read_project().store_uri
    return open_store(uri) if store or uri.startswith(tuple(f"{s}://" for s in OBJECT_SCHEMES)) else None


def _print(body: dict[str, Any], json_: bool, lines: Sequence[str]) -> None:
    click.echo(json.dumps(body) if json_ else "\n".join(lines))


def _applied_json(applied: Applied) -> dict[str, Any]:
    return {
        "schedule": applied.name,
        "namespace": applied.namespace,
        "action": applied.action,
        "changes": list(applied.changes),
        "cron": applied.cron.schedule,
        "interval": applied.cron.every,
        "timezone": applied.cron.timezone,
        "next": [m.isoformat() for m in next_moments(applied.cron, datetime.now(UTC))],
        "concurrency": applied.cron.concurrency.lower(),
        "catch_up": applied.cron.catch_up,
        "suspended": applied.cron.suspended,
        "parameters": dict(applied.parameters),
    }


def _applied_text(applied: Applied, pipeline: str, engine: str) -> list[str]:
    cron = applied.cron
    what = f": {', '.join(applied.changes)}" if applied.changes else ""
    sent = "; nothing was sent" if applied.action == "checked" else ""
    moments = next_moments(cron, datetime.now(UTC))
    return [
        f"{applied.action} {applied.name} in {applied.namespace}{what}{sent}",
        f"  {pipeline} {'' if cron.every else 'at '}{cron.said}",
        *(f"  {n} = {_shown(text)}" for n, text in applied.parameters.items()),
        *(f"  next: {_moment(m)}" + _here(m) for m in moments),
        f"  overlap: {POLICIES[cron.concurrency.lower()].format(late=_late(cron, engine))}",
        f"  missed: {_missed(cron, engine)}",
        *([f"  suspended  → tidegate schedule resume {applied.name}{_flag(engine)}"] if cron.suspended else []),
    ]


def _flag(engine: str) -> str:
    return "" if engine == api.ARGO else f" --engine {engine}"


def _late(cron: Cron, engine: str) -> str:
    if engine == api.KFP:
        return "however late it is: KFP knows no limit"
    return f"if it is at most {cron.catch_up} s late" if cron.catch_up else "if it is not late at all, so never"


def _missed(cron: Cron, engine: str) -> str:
    if engine == api.KFP:
        return "of what KFP could not start in time, the latest starts"
    if not cron.catch_up:
        return "what Argo's controller could not start in time never starts"
    return f"of what Argo's controller could not start in time, the latest starts {_late(cron, engine)}"


def _shown(text: str) -> str:
    from tidegate.engines.argo.argument import referenced

    digest = referenced(text)
    return f"{digest[:19]}… in the store" if digest else text if len(text) <= 100 else f"{text[:99]}…"


def _here(moment: datetime) -> str:
    here = moment.astimezone()
    return "" if here.utcoffset() == moment.utcoffset() else f", here {_moment(here)}"


def _moment(moment: datetime) -> str:
    return f"{moment:%a %Y-%m-%d %H:%M %Z}"


def _row_json(found: Standing) -> dict[str, Any]:
    return {
        "schedule": found.name,
        "pipeline": found.pipeline,
        "cron": found.expression,
        "timezone": found.zone,
        "next": found.next.isoformat() if found.next else None,
        "last": found.last.__dict__ if found.last else None,
        "suspended": found.suspended,
        "drift": found.drift,
        "trouble": found.trouble,
    }


def _row_text(found: Standing, engine: str) -> list[str]:
    who = "KFP" if engine == api.KFP else "Argo"
    upcoming = "suspended" if found.suspended else f"next {_moment(found.next)}" if found.next else f"next: ask {who}"
    last = f"last {found.last.run_id} {found.last.state}" if found.last else "no run yet"
    when = found.expression if found.expression.startswith("every ") else f"{found.expression} ({found.zone})"
    line = f"{found.name:<20}  {found.pipeline:<20}  {when}  {upcoming}  {last}"
    lines = [line]
    if found.trouble:
        lines.append(f"  {who} says: {found.trouble}")
    if found.drift:
        lines.append(f"  its definition differs from this working tree  → tidegate schedule apply{_flag(engine)}")
    return lines
