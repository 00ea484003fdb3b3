"""``tidegate images``: the images that components run in."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tidegate.author.images import Family, read_lock
from tidegate.errors import NotFound
from tidegate.images import family, source
from tidegate.images.build import Built, build
from tidegate.project import Project, read_project

OUTPUT = Path("dist/images")


@click.group("images")
def command() -> None:
    """Build the images that components run in, list them."""


@command.command("build")
@click.argument("families", nargs=-1, metavar="[FAMILY]...")
@click.option(
    "--push",
    "registry",
    metavar="REGISTRY",
    default="",
    help="HOST[:PORT][/PATH] to push to; images.lock then names the images.",
)
@click.option("--base", metavar="REF", default="", help="The base image, over every setting.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the images and their bills of materials. [default: dist/images]",
)
@click.option("--json", "json_", is_flag=True)
def build_(families: tuple[str, ...], registry: str, base: str, output: Path | None, json_: bool) -> None:
    """Build the images of FAMILY... (all by default) from images/FAMILY.

    Without --push they go into an OCI layout in the output folder, and images.lock stays as it is.
    """
    project = read_project()
    wanted = [family.read(project, name, base) for name in families or _all(project)]
    made = [build(f, registry, output or project.root / OUTPUT, _note) for f in wanted]
    if json_:
        return click.echo(json.dumps({"images": [{**asdict(b), "code": dict(b.code)} for b in made]}))
    for built in made:
        click.echo(_line(built))
    if any(b.digest and not b.image for b in made):
        click.echo(f"in the layout {output or OUTPUT}; images.lock names what is pushed: --push REGISTRY")
    return None


@command.command("ls")
@click.option("--json", "json_", is_flag=True)
def ls(json_: bool) -> None:
    """List the image families: what images.lock says of them, and whether their code is the working tree's."""
    project = read_project()
    locked = read_lock(project.root).families
    names = sorted({*family.names(project), *locked})
    rows = [_row(project, name, locked.get(name, Family())) for name in names]
    if json_:
        return click.echo(json.dumps({"images": rows}))
    for row in rows:
        click.echo(f"{row['family']:14} {row['state']:10} {row['image'] or '-'}")
    return None


def _all(project: Project) -> list[str]:
    if found := family.names(project):
        return found
    raise NotFound(
        f"{project.root} has no image families",
        allowed="Folders images/FAMILY with a requirements.txt.",
        code="family-missing",
    )


def _row(project: Project, name: str, locked: Family) -> dict[str, Any]:
    state = _state(project, name, locked) if locked.image else "not pushed"
    return {"family": name, "state": state, "image": locked.image, "environment": locked.environment}


def _state(project: Project, name: str, locked: Family) -> str:
    if name not in family.names(project):
        return "no folder"
    files = source.entries(project.root, family.read(project, name).files)
    return "current" if dict(locked.code) == source.components(project.root, files) else "code differs"


def _line(built: Built) -> str:
    size = f"  {built.size / 1e6:.1f} MB" if built.size else ""
    return f"{built.family:14} {built.image or built.digest or 'built'}{size}"


def _note(text: str) -> None:
    click.echo(text, err=True)
