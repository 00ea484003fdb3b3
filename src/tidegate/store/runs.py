"""Run records: what ran, step by step, written alike whichever engine ran it.

``runs/<id>/run.json`` is written first, one ``runs/<id>/steps/<name>.json`` a step, ``runs/<id>/outcome.json`` last.
Step paths are user text, so a step's key is a short slug and a hash of its path; the path is inside the record. Records
are JSON as Python writes it, with a checksum: NaN and the infinities stand as NaN, Infinity, -Infinity and read back as
they were.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tidegate.errors import Damaged, NotFound
from tidegate.store.base import Store

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_OURS = re.compile(r"\d{8}-\d{6}")
_BY_THE_CLOCK = re.compile(r"-(\d{10})$")  # Argo names what a schedule starts NAME-SECONDS


def iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_run_id(now: float | None = None) -> str:
    """A run id that sorts by time and collides with none: ``20261124-105825-3fa9c1``."""
    return f"{_moment(time.time() if now is None else now)}-{secrets.token_hex(3)}"


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%d-%H%M%S}"


@dataclass(frozen=True)
class RunRecord:
    """What a run is: its pipeline, parameters, input artifacts, and the code and environment it was made from."""

    id: str
    pipeline: str
    plan_digest: str
    parameters: dict[str, Any] = field(default_factory=dict)
    engine: str = "local"
    commit: str = ""
    dirty: str = ""
    environment: str = ""
    user: str = ""
    target: str = ""
    artifacts: dict[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=lambda: iso(time.time()))

    @property
    def origin(self) -> dict[str, str]:
        """Where it came from, as fields of a record: what a cluster is told, for runs that it starts by itself."""
        return {n: getattr(self, n) for n in ("commit", "dirty", "environment", "user", "target")}


@dataclass(frozen=True)
class StepRecord:
    """How one step ended: state, whether from the cache, seconds, cache key and its parts, inputs and outputs."""

    path: str
    state: str
    cached: bool = False
    seconds: float = 0.0
    key: str = ""
    parts: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    log: str = ""
    attempts: int = 1
    note: str = ""
    ended: float = field(default_factory=time.time)

    @property
    def started(self) -> float:
        """When it began, in seconds since the epoch; of a step that was tried again on a cluster, its last try."""
        return self.ended - self.seconds


@dataclass(frozen=True)
class OutcomeRecord:
    """How a run ended."""

    state: str
    outputs: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    seconds: float = 0.0
    finished: str = field(default_factory=lambda: iso(time.time()))


Record = TypeVar("Record", RunRecord, StepRecord, OutcomeRecord)


class Runs:
    """The run records of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def create(self, record: RunRecord) -> None:
        """Write a run's first record, and make it the last run."""
        self.store.put_new(f"{_folder(record.id)}/run.json", _text(record))
        self.store.put("runs/last", record.id.encode())

    def keep_plan(self, digest: str, spec: Mapping[str, Any], platforms: Mapping[str, Any] | None = None) -> None:
        """Keep the definition of a plan, once, to say later what changed since, and for pods that carry only its digest."""
        self.store.put_new(_plan_key(digest), json.dumps(spec, sort_keys=True).encode())
        if platforms:
            self.store.put_new(_plan_key(digest, "platforms."), json.dumps(platforms, sort_keys=True).encode())

    def plan(self, digest: str) -> dict[str, Any]:
        """Return the definition of a plan by its digest, empty where none was kept."""
        return self._kept(_plan_key(digest))

    def platforms(self, digest: str) -> dict[str, Any]:
        """Return the platform settings of a plan by its digest, empty where it has none."""
        return self._kept(_plan_key(digest, "platforms."))

    def _kept(self, key: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.store.get(key))
        except (NotFound, ValueError):
            return {}
        return found

    def read(self, run_id: str) -> RunRecord:
        """Return a run's record; raise ``NotFound``."""
        try:
            return self._read(f"{_folder(run_id)}/run.json", RunRecord)
        except NotFound:
            raise NotFound(
                f"there is no run {run_id!r} in {self.store.uri}", hint="tidegate runs ls", code="run-not-found"
            ) from None

    def name(self, name: str, run_id: str) -> None:
        """Let a run be found by the name that it was started under, where an engine gave it an id of its own."""
        self.store.put(_name_key(name), run_id.encode())

    def named(self, name: str) -> str:
        """Return the id of the run of this name; a name that none was given is an id."""
        try:
            return self.store.get(_name_key(name)).decode("ascii", "replace")
        except NotFound:
            return name

    def exists(self, run_id: str) -> bool:
        """Whether a run of this id was begun."""
        return self.store.find(f"{_folder(run_id)}/run.json") is not None

    def step(self, run_id: str, record: StepRecord) -> None:
        """Write the record of a step that ended, replacing that of an earlier try."""
        self.store.put(f"{_folder(run_id)}/steps/{_name(record.path)}.json", _text(record))

    def find_step(self, run_id: str, path: str) -> StepRecord | None:
        """Return the record of one step, None where it left none."""
        try:
            return self._read(f"{_folder(run_id)}/steps/{_name(path)}.json", StepRecord)
        except NotFound:
            return None

    def steps(self, run_id: str) -> list[StepRecord]:
        """Return the records of a run's steps in the order in which they ended."""
        entries = self.store.list(f"{_folder(run_id)}/steps")
        return sorted((self._read(e.key, StepRecord) for e in entries), key=lambda s: s.ended)

    def finish(self, run_id: str, record: OutcomeRecord) -> None:
        """Write how a run ended."""
        self.store.put(f"{_folder(run_id)}/outcome.json", _text(record))

    def reopen(self, run_id: str) -> None:
        """Take back how a run ended: it goes on."""
        self.store.delete(f"{_folder(run_id)}/outcome.json")

    def outcome(self, run_id: str) -> OutcomeRecord | None:
        """Return how a run ended, None while it has not."""
        try:
            return self._read(f"{_folder(run_id)}/outcome.json", OutcomeRecord)
        except NotFound:
            return None

    def list(self, limit: int) -> Iterator[RunRecord]:
        """Yield the newest runs first; a run whose record is missing or damaged hides no other."""
        folders = [e.key for e in self.store.list("runs", recursive=False) if e.key.endswith("/")]
        ids = [key.rstrip("/").rpartition("/")[2] for key in folders]
        for run_id in sorted(ids, key=lambda i: (self._began(i), i), reverse=True)[:limit]:
            with contextlib.suppress(NotFound, Damaged):
                yield self.read(run_id)

    def _began(self, run_id: str) -> str:
        """When a run began, as ids of ours say: by its id, or, where somebody else named it, by its record."""
        if found := _OURS.match(run_id):
            return found[0]
        if found := _BY_THE_CLOCK.search(run_id):
            return _moment(int(found[1]))
        try:
            return re.sub("[-:Z]", "", self.read(run_id).created).replace("T", "-")
        except (NotFound, Damaged):
            return ""

    def last(self) -> str:
        """Return the id of the run that was started last, empty where there is none."""
        try:
            last = self.store.get("runs/last").decode("ascii", "replace")
        except NotFound:
            return ""
        if not _ID.fullmatch(last):
            raise Damaged(f"runs/last is no run id: {last[:80]!r}", hint="Name the run; the next run writes it again.")
        return last

    def write_log(self, run_id: str, step: str, path: Path) -> str:
        """Keep what a step wrote; return the log's key, empty when it wrote nothing."""
        if not path.stat().st_size:
            return ""
        key = f"{_folder(run_id)}/logs/{_name(step)}.txt"
        self.store.put(key, path.read_bytes())
        return key

    def read_log(self, run_id: str, step: str) -> bytes:
        """Return what a step wrote; raise ``NotFound``."""
        return self.store.get(f"{_folder(run_id)}/logs/{_name(step)}.txt")

    def find_log(self, run_id: str, step: str) -> bytes:
        """Return what a step has written so far, nothing where it has not."""
        try:
            return self.read_log(run_id, step)
        except NotFound:
            return b""

    def _read(self, key: str, kind: type[Record]) -> Record:
        try:
            body = json.loads(self.store.get(key))
            checksum = body.pop("checksum", None)  # records of before 2026-11-24 have none
            record = kind(**body)
        except (ValueError, TypeError, AttributeError, RecursionError) as e:
            raise Damaged(f"the record {key} cannot be read: {e}") from e
        if checksum not in (None, _checksum(body)):
            raise Damaged(f"the record {key} is not what was written")
        return record


def _plan_key(digest: str, part: str = "") -> str:
    return f"plans/{digest.removeprefix('sha256:')}.{part}json"


def _name_key(name: str) -> str:
    return f"{_folder(name)}.id"


def _folder(run_id: str) -> str:
    if not _ID.fullmatch(run_id):
        raise NotFound(f"{run_id[:80]!r} is no run id", allowed="An id from `tidegate runs ls`, or last.")
    return f"runs/{run_id}"


def _name(path: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9-]+", "-", path).strip("-")[:60]
    return f"{slug or 'step'}-{hashlib.sha256(path.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _text(record: RunRecord | StepRecord | OutcomeRecord) -> bytes:
    body = json.loads(json.dumps(asdict(record)))  # as it will be read, so that the checksum is of that
    return json.dumps({**body, "checksum": _checksum(body)}, sort_keys=True).encode()


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
