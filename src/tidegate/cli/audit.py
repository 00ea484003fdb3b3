"""``tidegate audit``: is the ledger what was written?"""

from __future__ import annotations

import click

from tidegate.registry.model import Registry
from tidegate.store.open import open_store


@click.group("audit")
def command() -> None:
    """Verify the ledger."""


@command.command("verify")
@click.argument("models", nargs=-1)
@click.option("--store", metavar="URI")
def verify(models: tuple[str, ...], store: str | None) -> None:
    """Derive every model's state from its first record again; exits 3 at the first damage."""
    registry = Registry(open_store(store))
    for name in models or registry.models():
        state = registry.verify(name)
        click.echo(
            f"{name}: {state.head.seq + 1} records, {len(state.versions)} versions, head {state.head.hash[:16]}…"
        )
