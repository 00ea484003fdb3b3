"""A rollout's journal: its state and trial on this machine, whole and durable, so that another controller goes on.

It is a store of its own (on a disk: temporary file, fsync, rename, fsync of the folder), beside the front whose traffic
the rollout moves. A journal that cannot be read is as good as none: then nothing is known of what the judge has used,
and the rollout is taken back.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tidegate.errors import Conflict, NotFound
from tidegate.registry.rollout_policy import RolloutPolicy
from tidegate.rollout import trial as trials
from tidegate.rollout.state import Order, Plan, State, Target
from tidegate.rollout.trial import Trial
from tidegate.store.base import Store

STATE, ORDER = "rollout.json", "order.json"
SCHEMA = 1


@dataclass(frozen=True)
class Journal:
    """The journal in a store."""

    store: Store

    def save(self, state: State, trial: Trial) -> bool:
        """Keep a rollout as it is now; True when it is kept.

        Raises:
            StoreError: it may not be kept.
        """
        body = {"schema": SCHEMA, "state": _state_json(state), "trial": trials.as_json(trial)}
        text = json.dumps(body, separators=(",", ":")).encode()
        self.store.put(STATE, hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
        return True

    def load(self) -> tuple[State, Trial] | None:
        """Return what was kept last; None where there is none that can be read."""
        try:
            sha256, _, text = self.store.get(STATE).partition(b"\n")
            body = json.loads(text)
            if hashlib.sha256(text).hexdigest().encode() != sha256 or body["schema"] != SCHEMA:
                return None
            return _state(body["state"]), trials.from_json(body["trial"])
        except (NotFound, ValueError, KeyError, TypeError, AttributeError):
            return None

    def order(self, rollout: str, order: Order) -> None:
        """Leave what a person wants of a rollout."""
        self.store.put(ORDER, json.dumps({"id": rollout, **asdict(order)}).encode())

    def ordered(self, rollout: str) -> Order | None:
        """Return what a person wants of a rollout, None where nobody said anything."""
        try:
            body = json.loads(self.store.get(ORDER))
            return Order(body["kind"], body["by"], body["reason"]) if body["id"] == rollout else None
        except (NotFound, ValueError, KeyError, TypeError):
            return None


class Lock:
    """Who is in charge of a front's rollouts on this machine; the system releases it when its holder dies.

    Args:
        folder: of the front.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rollout.lock"
        self._fd = -1

    def take(self) -> bool:
        """Take it; False where another process holds it."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        self._fd = fd
        return True

    def release(self) -> None:
        """Give it back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def holder(self) -> int:
        """The number of the process that took it last, 0 where none did."""
        with suppress(OSError, ValueError):
            return int(self._path.read_text() or 0)
        return 0

    def demand(self, name: str) -> None:
        """Take it.

        Raises:
            Conflict: another process holds it (code ``rollout-controlled``).
        """
        if not self.take():
            raise Conflict(
                f"the process {self.holder()} is in charge of the rollout of {name}",
                allowed="One controller at a time.",
                hint=f"tidegate rollout watch {name}, or: tidegate rollout abort {name}",
                code="rollout-controlled",
            )


def _state_json(state: State) -> dict[str, Any]:
    kept = [f.name for f in fields(state) if f.name not in ("at", "sights", "is_lost")]
    return {**{name: getattr(state, name) for name in kept}, "plan": asdict(state.plan)}


def _state(body: Mapping[str, Any]) -> State:
    plan = dict(body["plan"])
    rules = {**plan["rules"], "steps": tuple(plan["rules"]["steps"])}
    plan |= {
        "rules": RolloutPolicy(**rules),
        "candidate": Target(**plan["candidate"]),
        "stable": Target(**plan["stable"]),
    }
    return State(**{**body, "plan": Plan(**plan)})
