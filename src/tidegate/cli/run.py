"""``tidegate run``: run a pipeline, show how it goes, say how it ended."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import click

from tidegate import api
from tidegate.cli import values
from tidegate.cli.interrupt import listen_for_the_end
from tidegate.cli.progress import Progress, failure
from tidegate.plan.events import FAILED, RUNNING, SUCCEEDED, StepFinished
from tidegate.plan.model import Dag, Plan
from tidegate.plan.value import Artifact
from tidegate.prepared import Prepared, prepare, prepared_for_kfp
from tidegate.project import read_project
from tidegate.store.open import open_store


@click.command("run")
@click.argument("target", metavar="FILE[:PIPELINE]")
@click.option("-p", "--param", "typed", multiple=True, metavar="NAME=VALUE", help="A run parameter; may be repeated.")
@click.option("--params", "file", type=click.Path(path_type=Path), help="Parameters from a JSON or YAML file.")
@click.option(
    "-a", "--artifact", "artifacts", multiple=True, metavar="NAME=PATH", help="An input artifact of the root."
)
@click.option("--engine", type=click.Choice(api.ENGINES), default=api.LOCAL, show_default=True, help="Where to run.")
@click.option("--store", metavar="URI", help="Where artifacts, cache, runs and registry live.")
@click.option("-j", "--jobs", type=click.IntRange(1, 1024), help="Steps at a time; all cores by default.")
@click.option("--no-cache", is_flag=True, help="Run every step, whatever the cache holds.")
@click.option("--resume", metavar="RUN", default="", help="Go on with a run (an id, or 'last'): what finished stays.")
@click.option("--allow-tags", is_flag=True, help="Let a cluster run images by tag, which may change under the run.")
@click.option("--no-mirror", is_flag=True, help="Do not write the run into MLflow.")
@click.option("--dry-run", is_flag=True, help="Check the definition and the parameters, list the steps, run nothing.")
@click.option("--verbose", is_flag=True, help="Show what the steps write.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON on stdout; everything else on stderr.")
def command(
    target: str,
    typed: Sequence[str],
    file: Path | None,
    artifacts: Sequence[str],
    engine: str,
    store: str | None,
    jobs: int | None,
    no_cache: bool,
    resume: str,
    allow_tags: bool,
    no_mirror: bool,
    dry_run: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Run a pipeline here, or on a cluster with Argo Workflows or Kubeflow Pipelines.

    FILE is a Python file or module with a @dsl.pipeline, or a compiled IR (YAML or JSON).
    """
    listen_for_the_end()
    prepared = prepare(target, fresh=no_cache)
    parameters = values.parameters(prepared.plan, typed, file)
    given = {name: Path(path) for name, path in (values.split(a, "-a") for a in artifacts)}
    logs = verbose or as_json
    options = api.Options(
        store,
        jobs,
        not no_cache,
        given,
        resume,
        False if no_mirror else None,
        engine,
        logs,
        allow_tags,
    )
    if dry_run:
        return _dry_run(prepared, parameters, options, as_json)
    with Progress(sys.stderr if as_json else sys.stdout, logs=logs) as progress:
        options = replace(options, interrupted=lambda: _stop_or_detach(progress))
        run = api.run(prepared, parameters, options, progress.report)
    if run.notice:
        click.echo(f"note: {run.notice}", err=True)
    if as_json:
        click.echo(json.dumps(_as_json(run, prepared.plan), allow_nan=False))
    elsewhere = run.store.uri != open_store().uri
    _show(run, run.store.uri if elsewhere else None, err=as_json)
    return {SUCCEEDED: 0, FAILED: 1}.get(run.state, 130)


def _stop_or_detach(progress: Progress) -> str:
    """Ask, where somebody can answer, whether a run on a cluster is to end or only no longer to be watched."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return "stop"
    try:
        with progress.paused():
            answer = click.prompt(
                "the run goes on in the cluster: stop it, or detach?",
                type=click.Choice(["stop", "s", "detach", "d"]), default="stop", show_choices=False, err=True,
            )  # fmt: skip
    except (click.Abort, KeyboardInterrupt):  # no answer decides nothing: the run goes on
        return "detach"
    return "detach" if answer.strip().lower().startswith("d") else "stop"


def _dry_run(prepared: Prepared, parameters: Mapping[str, Any], options: api.Options, as_json: bool) -> int:
    arguments = api.check_run(prepared, parameters, options)
    steps = _steps(prepared.plan)
    if as_json:
        body = {"pipeline": prepared.plan.name, "parameters": values.as_json(arguments.parameters), "steps": steps}
        click.echo(json.dumps(body))
        return 0
    click.echo(f"{prepared.plan.name}: {len(steps)} steps, nothing was run")
    for step in steps:
        click.echo(f"  {step}")
    if options.engine == api.KFP:
        click.echo("changed for Kubeflow Pipelines:")
        for change in prepared_for_kfp(prepared, use_cache=options.cache).changes or ("nothing",):
            click.echo(f"  {change}")
    return 0


def _steps(plan: Plan) -> list[str]:
    def below(body: Dag | str, path: str) -> list[str]:
        if isinstance(body, str):
            return [path]
        tasks = TopologicalSorter({name: task.after for name, task in body.tasks.items()}).static_order()
        return [s for n in tasks for s in below(body.tasks[n].component.body, f"{path}/{n}".lstrip("/"))]

    return below(plan.root.body, "")


def _as_json(run: api.Run, plan: Plan) -> dict[str, Any]:
    outputs: dict[str, Any] = values.as_json(dict(run.outcome.parameters))
    for name, found in run.outcome.artifacts.items():
        printed = [values.artifact_as_json(a, _path(run, a)) for a in found]
        outputs[name] = printed if plan.root.interface.output_artifacts[name].is_list else printed[0]
    steps = [
        {"name": s.step, "state": s.state, "cached": s.cached, "seconds": round(s.seconds, 3)}
        for s in run.outcome.steps
    ]
    error = values.as_json({k: v for k, v in run.outcome.error.items() if k != "frames"}) if run.outcome.error else None
    return {"run_id": run.id, "state": run.state, "outputs": outputs, "steps": steps, "error": error}


def _path(run: api.Run, artifact: Artifact) -> Path | None:
    try:
        return run.path(artifact)
    except OSError as e:
        click.echo(f"note: no local copy of {artifact.name}: {e}", err=True)
        return None


def _counts(steps: Sequence[StepFinished]) -> str:
    """What was done, what the cache had, and, of a run that was resumed, what had been done before."""
    ran, kept = sum(s.state == SUCCEEDED and not s.cached for s in steps), sum(s.kept for s in steps)
    cached = sum(s.cached for s in steps) - kept
    before = f", {kept} finished before" if kept else ""
    return f"{ran} step{'' if ran == 1 else 's'} ran, {cached} from the cache{before}"


def _show(run: api.Run, store: str | None, *, err: bool) -> None:
    text = f"run {run.id} {run.state} in {run.outcome.seconds:.1f} s: {_counts(run.outcome.steps)}"
    if run.state == RUNNING:
        text = f"run {run.id} goes on in the cluster\n  → tidegate runs show {run.id}, tidegate runs stop {run.id}"
    elif run.outcome.error:
        again = shlex.join(["tidegate", *_without_resume(sys.argv[1:]), "--resume", run.id])
        step = run.outcome.error.get("step", "")
        where = ["--store", store] if store else []
        has_log = step and not run.outcome.error["code"].startswith(("argo-", "kfp-", "pod-"))
        log = shlex.join(["tidegate", "runs", "logs", run.id, step, *where]) if has_log else ""
        click.echo("\n".join(failure(run.outcome.error, read_project().root, log, again)), err=True)
    else:
        for name, value in run.outcome.parameters.items():
            click.echo(f"  {name} = {json.dumps(values.as_json(value))}", err=err)
        for name, found in run.outcome.artifacts.items():
            click.echo(f"  {name}: {', '.join(map(_artifact, found))}", err=err)
    click.echo(text + (f"; MLflow has it: {run.mlflow}" if run.mlflow else ""), err=err)


def _without_resume(words: list[str]) -> list[str]:
    """The command line as it was typed, but for an earlier --resume."""
    kept = [w for i, w in enumerate(words) if w != "--resume" and (not i or words[i - 1] != "--resume")]
    return [w for w in kept if not w.startswith("--resume=")]


def _artifact(artifact: Artifact) -> str:
    return artifact.digest or artifact.uri or json.dumps(values.as_json(artifact.metadata))
