"""``tidegate gate``: evidence against policy, without registering anything."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tidegate.registry import gate


@click.group("gate")
def command() -> None:
    """Judge evidence by a policy."""


@command.command("check")
@click.argument("policy", type=click.Path(path_type=Path))
@click.argument("evaluation", type=click.Path(path_type=Path))
@click.option("--tighten", type=float, help="A stricter bound for the rule with a parameter.")
@click.option("--json", "json_", is_flag=True)
def check(policy: Path, evaluation: Path, tighten: float | None, json_: bool) -> int:
    """Judge an evaluation (JSON) by a policy (TOML); exits 1 when the answer is not yes."""
    verdict = gate.check(policy, evaluation, tighten)
    if json_:
        click.echo(json.dumps(verdict.as_json()))
    else:
        for finding in verdict.findings:
            click.echo(f"{finding.outcome:<12} {finding.text}")
        click.echo(f"verdict: {verdict.outcome}")
    return 0 if verdict.passed else 1
