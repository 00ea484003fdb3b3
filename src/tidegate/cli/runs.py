"""``tidegate runs``: what ran, how it ended, what it wrote."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from tidegate.cli.progress import first_line
from tidegate.cli.values import as_json
from tidegate.engines.local.scratch import refuse_going
from tidegate.errors import ClusterError, ConfigError, Conflict, Damaged, NotFound, Refused, UsageError
from tidegate.plan.difference import definition_changes, run_changes
from tidegate.plan.events import RUNNING, SKIPPED
from tidegate.project import read_project
from tidegate.store.gc import remove_runs
from tidegate.store.open import open_store
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs


@click.group("runs")
def command() -> None:
    """List runs, show one, compare two, read logs, stop one, forget some."""


def _runs(store: str | None) -> Runs:
    return Runs(open_store(store))


def _id(runs: Runs, run: str) -> str:
    if run != "last":
        return runs.named(run)
    if not (last := runs.last()):
        raise NotFound("this store holds no run yet", hint="tidegate run FILE")
    return last


def _state(runs: Runs, run_id: str) -> str:
    try:
        outcome = runs.outcome(run_id)
    except Damaged:
        return "DAMAGED"
    return outcome.state if outcome else RUNNING


@command.command("ls")
@click.option("--store", metavar="URI")
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True)
@click.option("--json", "json_", is_flag=True)
def ls(store: str | None, limit: int, json_: bool) -> None:
    """List the newest runs."""
    runs = _runs(store)
    found = list(runs.list(limit))
    if not found and not json_:
        click.echo(f"no runs in {runs.store.uri}", err=True)
    for record in found:
        state = _state(runs, record.id)
        if json_:
            click.echo(json.dumps({"run_id": record.id, "pipeline": record.pipeline, "state": state}))
        else:
            click.echo(f"{record.id}  {state:<9}  {record.pipeline:<20}  {record.commit[:10] or '-'}  {record.user}")


@command.command("show")
@click.argument("run", default="last")
@click.option("--store", metavar="URI")
@click.option("--json", "json_", is_flag=True)
def show(run: str, store: str | None, json_: bool) -> None:
    """Show one run with its steps (RUN is an id, or 'last')."""
    runs = _runs(store)
    record = runs.read(_id(runs, run))
    outcome = runs.outcome(record.id)
    if not outcome and record.engine == "kfp":
        outcome = _settle(runs, record)
    steps = runs.steps(record.id)
    if json_:
        body = {
            "run": asdict(record),
            "outcome": asdict(outcome) if outcome else None,
            "steps": [asdict(s) for s in steps],
        }
        return click.echo(json.dumps(as_json(body)))
    click.echo(f"run {record.id}  pipeline {record.pipeline}  {outcome.state if outcome else RUNNING}")
    click.echo(f"  commit {record.commit or '-'}{' + changes' if record.dirty else ''}  engine {record.engine}")
    click.echo(f"  parameters {json.dumps(as_json(record.parameters))}")
    for s in steps:
        how = "cached" if s.cached else s.note if s.state == SKIPPED else f"{s.seconds:.2f} s"
        how += f", {s.attempts} attempts" if s.attempts > 1 else ""
        reason = f"  {first_line(s.error)}" if s.error else ""
        click.echo(f"  {s.state:<9}  {s.path}  {how}{reason}")
    for name, value in (outcome.outputs.get("parameters", {}) if outcome else {}).items():
        click.echo(f"  {name} = {json.dumps(as_json(value))}")
    if outcome and outcome.error:
        click.echo(f"  error[{outcome.error['code']}]: {outcome.error['message']}")
    return None


@command.command("diff")
@click.argument("before")
@click.argument("now", default="last")
@click.option("--store", metavar="URI")
@click.option("--json", "json_", is_flag=True)
def diff(before: str, now: str, store: str | None, json_: bool) -> None:
    """Say which steps of run NOW ran again since run BEFORE, and what changed."""
    runs = _runs(store)
    ids = [_id(runs, run) for run in (before, now)]
    if ids[0] == ids[1]:
        raise UsageError(f"{ids[0]} is both runs", allowed="Two runs: BEFORE and NOW.", hint="tidegate runs ls")
    records = [runs.read(i) for i in ids]
    changes = list(run_changes(*(runs.steps(i) for i in ids)))
    if json_:
        return click.echo(json.dumps([asdict(c) for c in changes]))
    if records[0].plan_digest != records[1].plan_digest:
        specs = [runs.plan(r.plan_digest) for r in records]
        click.echo(f"definition: {'; '.join(definition_changes(*specs)) if all(specs) else 'changed'}")
    for change in changes:
        why = "; ".join(change.changed) or ("nothing in its key changed" if change.how == "ran" else "")
        click.echo(f"  {change.how:<9}  {change.step}  {why}".rstrip())
    return None


@command.command("logs")
@click.argument("run", default="last")
@click.argument("step", required=False)
@click.option("--store", metavar="URI")
def logs(run: str, step: str | None, store: str | None) -> None:
    """Print what a step wrote, or every step of a run, in the order in which they began."""
    runs = _runs(store)
    run_id = _id(runs, run)
    runs.read(run_id)
    known = {s.path: s for s in sorted(runs.steps(run_id), key=lambda s: s.started)}
    if step and step not in known:
        steps = f"Its steps: {', '.join(known)}." if known else "None of its steps has ended yet."
        hint = f"tidegate runs show {run_id}"
        raise NotFound(f"run {run_id} has no step {step!r}", allowed=steps, hint=hint, code="step-not-found")
    for path, record in known.items():
        if path != (step or path):
            continue
        if not record.log:
            why = "from the cache" if record.cached else f"{record.state}, wrote nothing"
            click.echo(f"== {path}: {why}", err=True)
        else:
            click.echo(f"== {path}", err=True)
            sys.stdout.buffer.write(runs.read_log(run_id, path))
            sys.stdout.flush()


@command.command("stop")
@click.argument("run")
@click.option("--store", metavar="URI")
def stop(run: str, store: str | None) -> None:
    """Stop a run that goes on in a cluster: its pods are told to end, nothing new starts."""
    runs = _runs(store)
    record = runs.read(_id(runs, run))
    if outcome := runs.outcome(record.id):
        raise Conflict(f"run {record.id} has ended: {outcome.state}", code="run-ended")
    if record.engine not in _STOPS:
        raise UsageError(
            f"run {record.id} goes on where somebody started it",
            allowed="Runs of a cluster.",
            hint="Ctrl-C in its terminal, or kill -TERM of its tidegate run",
            code="run-here",
        )
    _STOPS[record.engine](record.id)
    click.echo(f"run {record.id} was told to end")


def _stop_on_argo(run_id: str) -> None:
    from tidegate.engines.argo.engine import stop as end
    from tidegate.engines.argo.start import reach

    cluster, settings = reach(read_project())
    end(cluster, settings.namespace, run_id)


def _stop_on_kfp(run_id: str) -> None:
    from tidegate.engines.kfp.client import reach

    backend, _ = reach(read_project())
    backend.terminate(run_id)


_STOPS = {"argo": _stop_on_argo, "kfp": _stop_on_kfp}


def _settle(runs: Runs, record: RunRecord) -> OutcomeRecord | None:
    """How a run of KFP ended that nobody watched; None while it goes on, and where KFP is not reached from here."""
    from tidegate.engines.kfp.client import reach
    from tidegate.engines.kfp.start import settle

    try:
        backend, settings = reach(read_project())
        return settle(record.id, runs.store, backend, settings)
    except (ClusterError, ConfigError, NotFound) as e:
        click.echo(f"note: this is what the store knows; how the run stands now is not: {e.found}", err=True)
        if hint := e.hint or e.allowed:
            click.echo(f"  → {hint}", err=True)
        return None


@command.command("rm")
@click.argument("run_ids", metavar="RUN…", nargs=-1, required=True)
@click.option("--store", metavar="URI")
def rm(run_ids: tuple[str, ...], store: str | None) -> None:
    """Forget runs; `tidegate cache gc` then takes what only they refer to. Runs that made a version stay."""
    runs = _runs(store)
    chosen = [runs.read(_id(runs, run)).id for run in run_ids]
    for run in chosen:
        refuse_going(run)
    removed, kept = remove_runs(runs.store, chosen)
    for run in removed:
        click.echo(f"removed {run}")
    if kept:
        raise Refused(
            f"{', '.join(kept)} made a version, or another record of the ledger names it",
            allowed="Runs that no version was made by.",
            code="run-registered",
        )
