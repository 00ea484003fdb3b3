"""``tidegate data``: datasets by reference, pin and digest."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tidegate.data import ref
from tidegate.data.digests import Digests
from tidegate.errors import Refused
from tidegate.store.blobs import Content
from tidegate.store.open import open_store

_store = click.option(
    "--store", metavar="URI", help="What remembers digests and keeps copies; the project's by default."
)
_json = click.option("--json", "json_", is_flag=True, help="JSON on stdout.")


@click.group("data")
def command() -> None:
    """Pin datasets, bring them, check what is there."""


@command.command("pin")
@click.argument("reference")
@click.option("--keep", is_flag=True, help="Copy the bytes into the store, where they outlive their source.")
@_store
@_json
def pin(reference: str, keep: bool, store: str | None, json_: bool) -> None:
    """Resolve a reference to a pin: what it names at this moment, for ever."""
    opened = open_store(store)
    found = str(ref.resolve(reference, opened))
    if keep:
        ref.keep(found, opened)
    known = Digests(opened).find(found)
    body = {"reference": reference, "pin": found, "digest": known.digest if known else None, "kept": keep}
    click.echo(json.dumps(body) if json_ else found)


@command.command("pull")
@click.argument("pin")
@click.argument("path", type=click.Path(path_type=Path))
@_store
@_json
def pull(pin: str, path: Path, store: str | None, json_: bool) -> None:
    """Bring pinned data to PATH, whole and checked, or not at all."""
    _said(ref.fetch(pin, path, open_store(store)), pin, path, json_)


@command.command("verify")
@click.argument("pin")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@_store
@_json
def verify(pin: str, path: Path, store: str | None, json_: bool) -> None:
    """Say whether PATH holds what PIN names; exit code 1 where it does not."""
    found = ref.verify(pin, path, open_store(store))
    if not found:
        raise Refused(
            f"{path} does not hold what {pin} names",
            allowed="The same bytes.",
            hint=f"tidegate data pull '{pin}' ANOTHER_PATH",
            code="data-differs",
        )
    _said(found, pin, path, json_)


def _said(content: Content, pin: str, path: Path, json_: bool) -> None:
    body = {"pin": pin, "path": str(path), **content.__dict__}
    click.echo(json.dumps(body) if json_ else f"{content.digest}  {content.kind} of {content.size} bytes at {path}")
