"""What wakes ``tidegate watch`` before its next look: ``--listen`` and ``--notify``."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from tidegate.errors import ConfigError, UsageError
from tidegate.trigger.hint import Hints, Source, followed
from tidegate.trigger.minio import Listening
from tidegate.trigger.sqs import Queue
from tidegate.trigger.webhook import check_secret, parse_address, receiver

SECRET = "TIDEGATE_WEBHOOK_SECRET"


@dataclass(frozen=True)
class Wakers:
    """A receiver's address and secret, if one is asked for, and the sources of notifications."""

    address: tuple[str, int] | None
    secret: bytes
    sources: Sequence[Source]

    @contextmanager
    def hints(self) -> Iterator[Hints]:
        """Take what wakes the watcher while the block runs."""
        hints = Hints()
        with ExitStack() as stack:
            for source in self.sources:
                stack.enter_context(followed(source, hints, lambda what: click.echo(f"note: {what}", err=True)))
            if self.address:
                url = stack.enter_context(receiver(*self.address, self.secret, hints.give))
                click.echo(f"a webhook may call {url}", err=True)
            yield hints


def read_wakers(
    listen: str | None, secret_file: Path | None, notify: Sequence[str], references: Collection[str], *, once: bool
) -> Wakers:
    """Read what was typed; nothing is asked yet.

    Raises:
        UsageError: it says something that there is not, or nothing is there to be told of.
    """
    secret = os.environ.pop(SECRET, "")  # steps need not see it
    if (listen or notify) and once:
        found = "--once looks once: nothing wakes it"
        raise UsageError(found, allowed="--once, or --listen and --notify.", code="watch-once")
    if secret_file and not listen:
        found = "--secret-file is of webhooks, and none are listened to"
        raise UsageError(found, hint="--listen 127.0.0.1:8090", code="watch-what")
    sources = [s for what in notify for s in _sources(what, references)]
    address = parse_address(listen) if listen else None
    return Wakers(address, check_secret(_secret(secret_file, secret)) if address else b"", sources)


def _secret(file: Path | None, said: str) -> str:
    try:
        return file.read_text(encoding="utf-8") if file else said
    except (OSError, UnicodeDecodeError) as e:
        found = f"the secret of webhooks cannot be read from {file}: {e}"
        raise ConfigError(found, allowed="A text file.", code="webhook-secret") from e


def _sources(what: str, references: Collection[str]) -> list[Source]:
    kind, _, where = what.partition(":")
    if kind == "sqs":
        return [Queue(where)]
    if what != "minio":
        raise UsageError(
            f"{what!r} is nothing that notifies",
            allowed="sqs:URL of a queue, or minio; webhooks by --listen.",
            hint="--notify minio",
            code="notify-invalid",
        )
    if found := [Listening(r.partition("#")[0]) for r in references if r.startswith("s3://")]:
        return [*found]
    raise UsageError(
        "minio tells of buckets, and none is watched",
        allowed="--data PARAM=s3://BUCKET/PREFIX beside it.",
        code="notify-what",
    )
