"""``tidegate compile``: a pipeline to a file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tidegate import api
from tidegate.errors import UsageError
from tidegate.ir.write import to_yaml


@click.command("compile")
@click.argument("target", metavar="FILE[:PIPELINE]")
@click.option("--to", "form", type=click.Choice(["ir"]), default="ir", show_default=True, help="What to compile to.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The file; stdout by default.")
@click.option("--pinned", is_flag=True, help="Refuse images without a digest and code that its image does not hold.")
def command(target: str, form: str, output: Path | None, pinned: bool) -> int:
    """Compile a pipeline to kfp's IR (YAML), the same bytes each time."""
    prepared = api.prepare(target)
    if pinned:
        api.check_images(prepared)
    text = to_yaml(prepared.definition)
    if output:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as e:
            raise UsageError(f"cannot write {output}: {e.strerror}", allowed="A file in a folder that exists.") from e
        click.echo(f"{form} of {prepared.plan.name} in {output}, {prepared.plan.digest[:19]}…", err=True)
    else:
        sys.stdout.write(text)
    return 0
