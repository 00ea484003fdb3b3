"""``tidegate model``: what is registered, why it may be served, and which version an alias names."""

from __future__ import annotations

import click


@click.group("model")
def command() -> None:
    """List models, show versions, promote one, mirror into MLflow."""
