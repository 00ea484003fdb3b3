"""Schedules that a store serves: what their runs will read, and where they are, so that no two name their runs alike.

``schedules/<namespace>/<name>.json``. Garbage collection keeps the blobs that a record names.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from tidegate.errors import Damaged, NotFound, UsageError
from tidegate.store.base import Store
from tidegate.store.runs import iso

KFP = "kfp."  # how namespaces begin that are experiments of KFP, whose runs have ids of KFP's own


@dataclass(frozen=True)
class ScheduleRecord:
    """A schedule: where it is, whose it is, the parameters that are blobs, by name.

    Attributes:
        before: what the engine called it before.
        enabling: a change was begun after which it is enabled.
    """

    name: str
    namespace: str
    pipeline: str
    user: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    applied: str = field(default_factory=lambda: iso(time.time()))
    before: Sequence[str] = ()
    enabling: bool = False


class Schedules:
    """The schedules of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def put(self, record: ScheduleRecord) -> None:
        """Write the record of a schedule, replacing that of an earlier state."""
        self.store.put(_key(record.namespace, record.name), json.dumps(asdict(record), sort_keys=True).encode())

    def find(self, namespace: str, name: str) -> ScheduleRecord | None:
        """Return the record of a schedule, None where there is none."""
        try:
            return ScheduleRecord(**json.loads(self.store.get(_key(namespace, name))))
        except NotFound:
            return None
        except (ValueError, TypeError) as e:
            raise Damaged(f"the record {_key(namespace, name)} cannot be read: {e}") from e

    def remove(self, namespace: str, name: str) -> None:
        """Forget a schedule; absent is fine."""
        self.store.delete(_key(namespace, name))

    def check_name(self, namespace: str, name: str) -> None:
        """Refuse a name that a schedule of another namespace has: runs are named after schedules.

        Raises:
            UsageError: one has (code ``schedule-taken``).
        """
        for entry in self.store.list("schedules"):
            _, there, file = entry.key.split("/")
            if file == f"{name}.json" and there != namespace and not there.startswith(KFP):
                raise UsageError(
                    f"{self.store.uri} serves a schedule {name!r} of the namespace {there}",
                    allowed="One schedule of a name in one store: their runs would have the same ids.",
                    hint="--name, or --store with a prefix of its own",
                    code="schedule-taken",
                )


def _key(namespace: str, name: str) -> str:
    return f"schedules/{namespace}/{name}.json"
