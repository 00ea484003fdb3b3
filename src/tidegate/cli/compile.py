"""``tidegate compile``: a pipeline to a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.cli import values
from tidegate.errors import UsageError
from tidegate.ir.write import to_yaml
from tidegate.prepared import check_images, compile_for_argo, prepare

if TYPE_CHECKING:
    from tidegate.cron import Cron

FORMS = ["ir", "argo", "argo-template", "argo-cron"]


@click.command("compile")
@click.argument("target", metavar="FILE[:PIPELINE]")
@click.option("--to", "form", type=click.Choice(FORMS), default="ir", show_default=True, help="What to compile to.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The file; stdout by default.")
@click.option("--pinned", is_flag=True, help="Refuse images without a digest and code that its image does not hold.")
@click.option("--allow-tags", is_flag=True, help="Argo: let images be named by tags, which may change under a run.")
@click.option("-p", "--param", "typed", multiple=True, metavar="NAME=VALUE", help="Argo: a run parameter.")
@click.option("--name", default="", help="Argo: the name of the objects; the pipeline's by default.")
@click.option("--cron", "schedule", metavar="EXPR", help="argo-cron: five fields of cron.")
@click.option("--timezone", default="UTC", show_default=True, help="argo-cron: a zone of the IANA database.")
def command(
    target: str,
    form: str,
    output: Path | None,
    pinned: bool,
    allow_tags: bool,
    typed: Sequence[str],
    name: str,
    schedule: str | None,
    timezone: str,
) -> int:
    """Compile a pipeline to kfp's IR or to Argo objects, the same bytes each time.

    To kfp's IR (ir), to an Argo Workflow that runs once (argo), to a WorkflowTemplate (argo-template), or to that and
    a CronWorkflow (argo-cron).
    """
    prepared = prepare(target)
    if form == "ir":
        if typed:
            raise click.UsageError("-p is for --to argo…: IR has no arguments")
        if pinned:
            check_images(prepared)
        text = to_yaml(prepared.definition)
    else:
        parameters = values.parameters(prepared.plan, typed, None)
        cron = _cron(form, schedule, timezone)
        text = compile_for_argo(prepared, form, parameters, cron, name=name, mutable_images=allow_tags)
    if output:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as e:
            raise UsageError(f"cannot write {output}: {e.strerror}", allowed="A file in a folder that exists.") from e
        click.echo(f"{form} of {prepared.plan.name} in {output}, {prepared.plan.digest[:19]}…", err=True)
    else:
        sys.stdout.write(text)
    return 0


def _cron(form: str, schedule: str | None, timezone: str) -> Cron | None:
    if (form == "argo-cron") != bool(schedule):
        raise click.UsageError("--to argo-cron and --cron EXPR go together")
    from tidegate.cron import Cron

    return Cron(schedule, timezone) if schedule else None
