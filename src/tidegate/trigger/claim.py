"""Claims: of any number of watchers one at a time does a piece of work, and one outcome of it is kept.

*Work* is a hash of a pipeline, its parameters and its data. In the store, under ``claims/<work>/``:

* ``<epoch>`` is made by ``put_new`` with a random nonce; whoever made it holds the work.
* ``<epoch>.beat`` is written again and again by the holder while it works, other bytes each time.
* ``done`` is made by ``put_new`` with the outcome; from then on nobody claims the work.

A lease is over when a watcher saw the same heartbeat for ``lease`` seconds of *its own* monotonic clock, or when the
holder released it; the next epoch is then free for whoever makes it first. Clocks of machines are never compared. A
holder gives its work up, and marks nothing, as soon as a later epoch is there or as its own clock says that its last
heartbeat began ``HOLD`` of a lease ago: nobody saw that heartbeat before it began, so nobody can have taken over yet.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tidegate.errors import Damaged, NotFound
from tidegate.store.base import Store

HOLD = 0.75  # of a lease; the rest is for ending the run
RELEASED = b"released"
_EPOCH = re.compile(r"\d{6}")


@dataclass(frozen=True)
class Done:
    """How a piece of work ended: its run, the run's state, and the epoch in which."""

    run_id: str
    state: str
    epoch: int
    watcher: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(frozen=True)
class View:
    """What stands in the store about a piece of work: the latest epoch (0: none yet), its heartbeat, the outcome."""

    epoch: int = 0
    beat: bytes = b""
    done: Done | None = None


@dataclass(frozen=True)
class Sighting:
    """A view, and since when a watcher has seen nothing else, by its own clock."""

    view: View
    since: float


def sighted(before: Sighting | None, view: View, now: float) -> Sighting:
    """Return what is seen now: since before, where it is what was seen then."""
    return before if before and before.view == view else Sighting(view, now)


def is_free(seen: Sighting, now: float, lease: float) -> bool:
    """Whether the next epoch may be made."""
    view = seen.view
    return not view.done and (not view.epoch or view.beat == RELEASED or now - seen.since >= lease)


def work_of(pipeline: str, parameters: Mapping[str, Any], data: Mapping[str, str]) -> str:
    """The hash of a pipeline's digest, its parameters and the identities of its data by parameter."""
    return hashlib.sha256(json.dumps([pipeline, parameters, data], sort_keys=True).encode()).hexdigest()


def run_id_of(name: str, work: str) -> str:
    """The id of the one run of a piece of work, which names an object of Kubernetes too."""
    return f"{slug(name)}-{work[:16]}"


def slug(name: str) -> str:
    """A pipeline's name in at most 40 of a-z, 0-9 and '-'."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "run"


class Claims:
    """The claims of a store, as one watcher sees them.

    Args:
        store: where they are.
        lease: seconds.
        clock: seconds that only grow, of this machine.
        watcher: who claims, for people to read.
    """

    def __init__(self, store: Store, lease: float, clock: Callable[[], float], watcher: str = "") -> None:
        self.store, self.lease, self.clock, self.watcher = store, lease, clock, watcher
        self._seen: dict[str, Sighting] = {}

    def look(self, work: str) -> View:
        """Read what stands in the store, and remember since when it has."""
        view = self._view(work)
        self._seen[work] = sighted(self._seen.get(work), view, self.clock())
        return view

    def _view(self, work: str) -> View:
        names = [e.key.rpartition("/")[2] for e in self.store.list(f"claims/{work}")]
        epoch = max((int(n) for n in names if _EPOCH.fullmatch(n)), default=0)
        done = self._done(work) if "done" in names else None
        return View(epoch, self._get(beat_key(work, epoch)) if epoch and not done else b"", done)

    def _done(self, work: str) -> Done:
        try:
            return Done(**json.loads(self.store.get(done_key(work))))
        except (ValueError, TypeError) as e:
            raise Damaged(f"the outcome {done_key(work)} cannot be read: {e}") from e

    def _get(self, key: str) -> bytes:
        try:
            return self.store.get(key)
        except NotFound:
            return b""

    def take(self, work: str) -> Lease | None:
        """Claim a piece of work that is free; None where another holds it, was first, or has done it."""
        now = self.clock()
        view = self.look(work)
        if not is_free(self._seen[work], now, self.lease):
            return None
        lease = Lease(self, work, view.epoch + 1, self.clock())
        if not self.store.put_new(epoch_key(work, lease.epoch), lease.body()):
            return None
        if self._view(work).done:  # marked between the look and the claim
            return None
        return lease

    def holder(self, work: str) -> str:
        """The name of the watcher that claimed a piece of work last, empty where it gave none."""
        said = self._get(epoch_key(work, self.look(work).epoch))
        try:
            return str(json.loads(said)["watcher"])
        except (ValueError, KeyError, TypeError):
            return ""

    def forget(self, work: str) -> None:
        """Forget since when a piece of work has been seen as it is: it is done."""
        self._seen.pop(work, None)


@dataclass
class Lease:
    """A piece of work that is held.

    Attributes:
        claims: the holder's.
        work: what.
        epoch: which of its holders this is.
        good: when the last heartbeat that landed in time began, by the holder's own clock.
        lost: whether somebody else may hold the work by now.
    """

    claims: Claims
    work: str
    epoch: int
    good: float
    lost: bool = False
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    def body(self) -> bytes:
        """The claim as it is written; its nonce makes equal bytes ours."""
        return json.dumps({"watcher": self.claims.watcher, "nonce": self.nonce}).encode()

    @property
    def left(self) -> float:
        """Seconds after which the work has to be given up unless a heartbeat lands."""
        return self.good + HOLD * self.claims.lease - self.claims.clock()

    def is_held(self) -> bool:
        """Whether it is held still, as far as this machine's clock tells; once lost it stays lost."""
        self.lost = self.lost or self.left <= 0
        return not self.lost

    def beat(self) -> bool:
        """Write a heartbeat; say whether the work is still held."""
        began, store = self.claims.clock(), self.claims.store
        if self.is_held() and store.find(epoch_key(self.work, self.epoch + 1)):
            self.lost = True
        if self.is_held():
            store.put(beat_key(self.work, self.epoch), f"{self.nonce} {secrets.token_hex(4)}".encode())
        if self.is_held():
            self.good = began
        return not self.lost

    def release(self) -> None:
        """Give the work back undone: whoever sees it may go on at once."""
        if self.is_held():
            self.claims.store.put(beat_key(self.work, self.epoch), RELEASED)
            self.lost = True

    def mark(self, run_id: str, state: str, data: Mapping[str, str]) -> Done | None:
        """Keep an outcome, if the work is held still and has none; return the one that is kept, None where none is."""
        if self.beat():
            done = Done(run_id, state, self.epoch, self.claims.watcher, dict(data))
            self.claims.store.put_new(done_key(self.work), json.dumps(asdict(done), sort_keys=True).encode())
        return self.claims.look(self.work).done


def epoch_key(work: str, epoch: int) -> str:
    """Where a holder's claim stands."""
    return f"claims/{work}/{epoch:06d}"


def beat_key(work: str, epoch: int) -> str:
    """Where a holder's heartbeat stands."""
    return f"{epoch_key(work, epoch)}.beat"


def done_key(work: str) -> str:
    """Where the outcome stands."""
    return f"claims/{work}/done"
