"""Why a trigger started runs and why it did not: ``triggers/<name>/log/<time>-<number>-<nonce>.json``.

Each run's start and end is written, and each *change* of the reason for not starting. Looks that change nothing are
counted, and their number goes into the next record.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from tidegate.errors import NotFound, UsageError
from tidegate.store.base import Store

STARTED, ENDED, WAITING = "started", "ended", "waiting"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")


@dataclass(frozen=True)
class Happening:
    """One thing that happened.

    Attributes:
        kind: ``started``, ``ended`` or ``waiting``.
        reason: a code: how the run ended, or why none starts.
        detail: the same for people.
        run_id: of the run, if any.
        watcher: who says so.
        looks: how many looks changed nothing before it.
        at: when, in seconds since the epoch of that machine's clock.
    """

    kind: str
    reason: str = ""
    detail: str = ""
    run_id: str = ""
    watcher: str = ""
    looks: int = 0
    at: float = 0.0


def check_name(name: str) -> str:
    """Return the name of a trigger.

    Raises:
        UsageError: it is none (code ``trigger-name``).
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a trigger cannot be called {name[:80]!r}",
            allowed="a-z, 0-9 and '-', 52 characters at most.",
            hint="--name",
            code="trigger-name",
        )
    return name


class History:
    """What happened to one trigger."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name, self._written = store, check_name(name), 0

    def write(self, happening: Happening) -> None:
        """Add a record; none is ever changed."""
        stamp = datetime.fromtimestamp(happening.at, UTC).strftime("%Y%m%dT%H%M%S.%f")
        self._written += 1  # keeps the order within one moment
        key = f"triggers/{self.name}/log/{stamp}-{self._written:06d}-{secrets.token_hex(4)}.json"
        self.store.put_new(key, json.dumps(asdict(happening), sort_keys=True).encode())

    def newest(self) -> Iterator[Happening]:
        """Yield the records, the newest first; one that cannot be read hides no other."""
        for entry in reversed([*self.store.list(f"triggers/{self.name}/log")]):
            try:
                yield Happening(**json.loads(self.store.get(entry.key)))
            except (NotFound, ValueError, TypeError):
                continue

    def last_start(self) -> float | None:
        """When the last run started, None where none ever did."""
        return next((h.at for h in self.newest() if h.kind == STARTED), None)


def names(store: Store) -> list[str]:
    """The triggers that a store knows."""
    return sorted(e.key.split("/")[1] for e in store.list("triggers", recursive=False) if e.key.endswith("/"))
