"""``tidegate model``: what is registered, why it may be served, and which version an alias names."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from tidegate.cli.values import as_json
from tidegate.project import user_name
from tidegate.registry import mlflow
from tidegate.registry.model import ModelState, Registry, Version, split_reference
from tidegate.store.base import Store
from tidegate.store.open import open_store


@click.group("model")
def command() -> None:
    """List models, show versions, promote one, mirror into MLflow."""


def _store(store: str | None) -> Store:
    return open_store(store)


@command.command("ls")
@click.option("--store", metavar="URI")
@click.option("--json", "json_", is_flag=True)
def ls(store: str | None, json_: bool) -> None:
    """List the models with their newest version and aliases."""
    registry = Registry(_store(store))
    states = [registry.state(name) for name in registry.models()]
    if json_:
        found = [{"name": s.name, "versions": len(s.versions), "aliases": dict(s.aliases)} for s in states]
        return click.echo(json.dumps(found))
    for state in states:
        aliases = ", ".join(f"{a} = {v}" for a, v in sorted(state.aliases.items()))
        click.echo(f"{state.name:<24} {len(state.versions)} versions  {aliases}")
    if not states:
        where = registry.store.uri
        click.echo(f"no model is registered in {where}; a pipeline with the register component does that", err=True)
    return None


@command.command("show")
@click.argument("model", metavar="NAME[@ALIAS|:VERSION]")
@click.option("--store", metavar="URI")
@click.option("--json", "json_", is_flag=True)
def show(model: str, store: str | None, json_: bool) -> None:
    """Show a version: digest, verdict, and the code, data and run that it came from."""
    name, ref = split_reference(model)
    state, version = Registry(_store(store)).version(name, ref)
    if json_:
        return click.echo(json.dumps(as_json({**asdict(version), "aliases": state.names_of(version.version)})))
    for key, value in _shown(state, version).items():
        click.echo(f"{key:<12} {value}")
    return None


def _shown(state: ModelState, version: Version) -> dict[str, Any]:
    lineage = version.lineage
    findings = [f["text"] for f in version.verdict.get("findings", ())]
    changes = " with uncommitted changes" if lineage.get("dirty") else ""
    rows = {
        "model": f"{version.model} version {version.version} ({', '.join(state.names_of(version.version)) or 'no alias'})",
        "digest": version.digest,
        "verdict": f"{version.verdict.get('outcome')}: {'; '.join(findings)}",
        "measured": ", ".join(f"{k} {v:.6g}" for k, v in lineage.get("metrics", {}).items()),
        "commit": f"{lineage.get('commit', '-')}{changes}",
        "data": lineage.get("data_digest", "-"),
        "pin": lineage.get("pin", ""),
        "run": f"{version.run} ({lineage.get('pipeline', '-')})",
        "by": f"{version.actor} at {version.created}",
        "evidence": version.evidence,
    }
    return {k: v for k, v in rows.items() if v}


@command.command("promote")
@click.argument("model", metavar="NAME[:VERSION|@ALIAS]")
@click.option("--alias", default="champion", show_default=True, help="The alias that shall name the version.")
@click.option("--store", metavar="URI")
def promote(model: str, alias: str, store: str | None) -> None:
    """Let an alias name a version: `tidegate model promote iris:2`."""
    name, ref = split_reference(model)
    state, moved = Registry(_store(store)).promote(name, ref, alias, actor=user_name())
    verb = "is now" if moved else "already was"
    click.echo(f"{name}@{alias} {verb} version {state.aliases[alias]} (ledger record {state.head.seq})")


@command.command("sync")
@click.option("--store", metavar="URI")
def sync(store: str | None) -> None:
    """Write into MLflow what it does not have, and set its aliases as the ledger has them."""
    done = mlflow.sync(_store(store))
    written = [v for m in done for v in m.versions]
    click.echo(
        f"{len(done)} runs are in MLflow at {done[0].uri if done else '-'}; written now: {', '.join(written) or 'none'}"
    )
