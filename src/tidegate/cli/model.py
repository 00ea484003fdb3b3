"""``tidegate model``: what is registered, why it may be served, and which version an alias names."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from tidegate.cli.values import as_json
from tidegate.project import read_project
from tidegate.registry import mlflow
from tidegate.registry.model import Registry
from tidegate.store.open import open_store


@click.group("model")
def command() -> None:
    """List models, show versions, promote one, mirror into MLflow."""
