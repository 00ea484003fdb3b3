"""``tidegate rollback``: all traffic back to the version before, now."""

from __future__ import annotations

import click

from tidegate.cli.rollout import tell_to_stable
from tidegate.project import user_name
from tidegate.rollout.state import Order


@click.command("rollback")
@click.argument("name", metavar="NAME")
@click.option("--reason", default="", help="Kept in the ledger.")
@click.option("--store", metavar="URI", help="Where the registry lives.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON on stdout.")
def command(name: str, reason: str, store: str | None, as_json: bool) -> int:
    """Give all traffic back to the version before, now; after a promotion the alias champion goes back too."""
    return tell_to_stable(name, Order("rollback", user_name(), reason), store, as_json)
