"""Garbage collection: cache entries that are old, blobs that nothing refers to.

What a run, a version, a ledger record or any other record of the store refers to is never removed; nor is what is
younger than the grace time, since its record may be still to come; nor what a run that is going has leased: whoever
finds an old blob in its place writes ``leases/<digest>/<run>`` before relying on it.

A blob is removed in two steps. It is moved to ``condemned/``, where readers still find it and writers do not. Then all
references and leases are read again: one that was written meanwhile brings it back, else it is gone. A collection that
was killed in between is finished by the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tidegate.errors import Conflict, NotFound
from tidegate.store.base import Entry, Store
from tidegate.store.blobs import Blobs, blob_key, condemned

DAY = 86400.0
LEASE_SECONDS = 7 * DAY
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
_BLOB = re.compile(r"(?:condemned/)?blobs/sha256/([0-9a-f]{2})/([0-9a-f]{62})")
_CLAIM = "gc/claim"
_NO_RECORDS = {"gc", "blobs", "cache", "leases", "condemned", "damaged", "probe", "tmp"}


@dataclass(frozen=True)
class Policy:
    """What to remove.

    Attributes:
        age: cache entries older than this, in seconds.
        size: the bytes that blobs may take; the oldest cache entries go until they fit. None: any.
        grace: blobs younger than this stay, in seconds.
    """

    age: float = 30 * DAY
    size: float | None = None
    grace: float = DAY


@dataclass(frozen=True)
class Survey:
    """What is in a store: blobs by digest, cache entries with the blobs that each refers to, blobs that records need."""

    blobs: Mapping[str, Entry]
    entries: Mapping[Entry, frozenset[str]]
    needed: frozenset[str]


@dataclass(frozen=True)
class Sweep:
    """What is removed: keys of cache entries, digests of blobs, their bytes."""

    entries: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    bytes: int = 0


def collect(store: Store, policy: Policy, now: float, *, dry_run: bool = False) -> Sweep:
    """Remove what a policy lets go; return what was removed, or would be.

    Raises:
        Conflict: another collection is going on this store (code ``gc-going``).
    """
    if dry_run:
        return choose(survey(store), policy, now)
    with _alone(store):
        _finish(store, now)
        return _carry_out(store, choose(survey(store), policy, now), now)


def _carry_out(store: Store, chosen: Sweep, now: float) -> Sweep:
    for key in chosen.entries:
        store.delete(key)
    for digest in chosen.blobs:
        with contextlib.suppress(NotFound):
            store.move(blob_key(digest), condemned(blob_key(digest)))
    removed = _finish(store, now)
    return Sweep(chosen.entries, tuple(removed), sum(removed.values()))


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Hold the store's one claim to collect; that of a process which is gone, or of yesterday, does not count."""
    mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "nonce": secrets.token_hex(8)}).encode()
    found = store.find(_CLAIM)
    if found and (time.time() - found.modified > DAY or _is_gone(store)):
        store.delete(_CLAIM)
    if not store.put_new(_CLAIM, mine):
        hint = "Wait for it; it is in the store under " + _CLAIM
        raise Conflict("another collection is going on this store", hint=hint, code="gc-going")
    try:
        yield
    finally:
        store.delete(_CLAIM)


def _is_gone(store: Store) -> bool:
    try:
        said = json.loads(store.get(_CLAIM))
        if said["host"] != socket.gethostname():
            return False
        os.kill(said["pid"], 0)
    except (ProcessLookupError, NotFound):
        return True
    except PermissionError:
        return False
    return False


def choose(found: Survey, policy: Policy, now: float) -> Sweep:
    """Decide what goes: the entries that are too old or do not fit, oldest first, then the blobs nothing needs."""
    entries = sorted(found.entries, key=lambda e: e.modified)
    gone = [e for e in entries if now - e.modified > policy.age]
    gone += _beyond(found, entries[len(gone) :], policy.size) if policy.size is not None else []
    needed = found.needed.union(*(found.entries[e] for e in set(entries) - set(gone)))
    blobs = [d for d, e in found.blobs.items() if d not in needed and now - e.modified > policy.grace]
    return Sweep(tuple(e.key for e in gone), tuple(blobs), sum(found.blobs[d].size for d in blobs))


def remove_runs(store: Store, runs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Forget runs, so that a collection may take what only they refer to.

    Returns:
        The runs that were removed, and those that stay because a record of the ledger names them.
    """
    ledger = b"".join(store.get(e.key) for e in store.list("ledger"))
    kept = [run for run in runs if run.encode() in ledger]
    removed = [run for run in runs if run not in kept]
    for run in removed:
        records = [e.key for e in store.list(f"runs/{run}")]
        for key in sorted(
            records, key=lambda k: k.endswith("/run.json")
        ):  # the run itself last: a rest can be removed again
            store.delete(key)
    return removed, kept


def _beyond(found: Survey, entries: Sequence[Entry], size: float) -> list[Entry]:
    """The oldest entries that must go for the blobs to fit; one whose blobs stay anyway frees nothing, so it stays."""
    holders = Counter(d for e in entries for d in found.entries[e] - found.needed)
    total = sum(found.blobs[d].size for d in {*holders, *found.needed} if d in found.blobs)
    gone: list[Entry] = []
    for entry in entries:
        if total <= size or not (alone := found.entries[entry] - found.needed):
            continue
        gone.append(entry)
        holders.subtract(alone)
        total -= sum(found.blobs[d].size for d in alone if not holders[d] and d in found.blobs)
    return gone


def survey(store: Store) -> Survey:
    """Read what is in a store."""
    blobs = {d: e for e in store.list("blobs") if (d := _digest(e.key))}
    entries = {e: _closed(store, _mentioned(store, e)) for e in store.list("cache")}
    return Survey(blobs, entries, _needed(store))


def _needed(store: Store) -> frozenset[str]:
    folders = [e.key.rstrip("/") for e in store.list("", recursive=False) if e.key.endswith("/")]
    records = (e for f in folders if f not in _NO_RECORDS for e in store.list(f) if "/logs/" not in e.key)
    return _closed(store, frozenset().union(*(_mentioned(store, e) for e in records)))


def _mentioned(store: Store, entry: Entry) -> frozenset[str]:
    try:
        return frozenset(d.decode() for d in _DIGEST.findall(store.get(entry.key)))
    except NotFound:  # removed meanwhile
        return frozenset()


def _closed(store: Store, digests: frozenset[str]) -> frozenset[str]:
    """The blobs, and those that they list where they are directories."""
    blobs = Blobs(store)
    return digests.union(*(blobs.members(d) for d in digests))


def _finish(store: Store, now: float) -> dict[str, int]:
    """Bring back what is wanted of what was condemned, remove the rest; return what was removed with its bytes."""
    waiting = {d: e for e in store.list("condemned") if (d := _digest(e.key))}
    leased = set(_leases(store, now))
    if not waiting:
        return {}
    wanted = _needed(store).union(leased, *(_closed(store, _mentioned(store, e)) for e in store.list("cache")))
    removed = {}
    for digest, entry in waiting.items():
        if digest in wanted and not store.find(blob_key(digest)):
            store.move(entry.key, blob_key(digest))
        else:
            store.delete(entry.key)
            removed[digest] = entry.size
    return {d: size for d, size in removed.items() if d not in wanted}


def _leases(store: Store, now: float) -> Iterator[str]:
    """The digests that runs which are going have leased; leases of others are removed."""
    for entry in list(store.list("leases")):
        _, digest, run = entry.key.split("/")
        if now - entry.modified > LEASE_SECONDS or store.find(f"runs/{run}/outcome.json"):
            store.delete(entry.key)
        yield f"sha256:{digest}"


def _digest(key: str) -> str:
    found = _BLOB.fullmatch(key)
    return f"sha256:{found[1]}{found[2]}" if found else ""
