"""``tidegate cache``: what earlier steps made, and how much room it takes."""

from __future__ import annotations

import json
import re
import time

import click

from tidegate.errors import ConfigError
from tidegate.store.gc import DAY, Policy, collect
from tidegate.store.open import open_store

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY, "w": 7 * DAY}
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@click.group("cache")
def command() -> None:
    """Remove what nothing needs any more."""


@command.command("gc")
@click.option("--older-than", "age", default="30d", show_default=True, metavar="TIME", help="Cache entries to remove.")
@click.option("--max-size", "size", metavar="SIZE", help="Remove the oldest entries until all blobs fit (10G, 500Mi).")
@click.option("--grace", default="24h", show_default=True, metavar="TIME", help="Blobs younger than this stay.")
@click.option("--dry-run", is_flag=True, help="Say what would go, remove nothing.")
@click.option("--store", metavar="URI")
@click.option("--json", "json_", is_flag=True)
def gc(age: str, size: str | None, grace: str, dry_run: bool, store: str | None, json_: bool) -> None:
    """Remove old cache entries, and the blobs that no run, version or record refers to."""
    policy = Policy(_seconds(age), _bytes(size) if size else None, _seconds(grace))
    swept = collect(open_store(store), policy, time.time(), dry_run=dry_run)
    body = {"cache_entries": len(swept.entries), "blobs": len(swept.blobs), "bytes": swept.bytes}
    if json_:
        return click.echo(json.dumps(body))
    verb = "would go" if dry_run else "removed"
    click.echo(f"{body['cache_entries']} cache entries and {body['blobs']} blobs ({body['bytes'] / 1e6:.1f} MB) {verb}")
    return None


def _seconds(text: str) -> float:
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip()):
        return float(found[1]) * _SECONDS[found[2]]
    raise ConfigError(f"{text!r} is no time", allowed="A number and s, m, h, d or w: 30d, 12h.", code="time-invalid")


def _bytes(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMGTi]{0,2})B?", text.strip())
    if found and found[2] in _BYTES:
        return float(found[1]) * _BYTES[found[2]]
    raise ConfigError(
        f"{text!r} is no size", allowed="A number and k, M, G, T, Ki, Mi, Gi, Ti: 10G.", code="size-invalid"
    )
