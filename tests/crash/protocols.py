"""What the crash tests do to a store, protocol by protocol, and what a store shows through its public classes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tidegate.errors import NotFound
from tidegate.registry.ledger import Head, Ledger
from tidegate.store.blobs import DIRECTORY, FILE, Blobs, digest_path
from tidegate.store.cache import Cache, Hit, Miss
from tidegate.store.local import LocalStore
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs, StepRecord

# one write: does it when called, and returns what each name it wrote should show from now on (None: nothing)
Shown = dict[str, str | None]
Write = Callable[[LocalStore], Shown]

EITHER = "k/here or there/k"
CACHE_KEY = "0123456789abcdef" * 4
RUN = RunRecord("r1", "p", "sha256:plan", {"n": 1}, created="2026-01-01T00:00:00Z")
STEP = StepRecord("train", "SUCCEEDED", outputs={"parameters": {"auc": 0.5}}, ended=1.0)
OUTCOME = OutcomeRecord("SUCCEEDED", {"auc": 0.5}, finished="2026-01-01T00:00:01Z")


def put(key: str, value: str) -> Write:
    return lambda store: store.put(key, value.encode()) or {key: value}


def put_new(key: str, value: str) -> Write:
    def write(store: LocalStore) -> Shown:
        if store.put_new(key, value.encode()):
            return {key: value}
        try:
            return {key: store.get(key).decode()}  # the loser builds on what the winner wrote
        except NotFound:  # taken away meanwhile
            return {}

    return write


def put_file_new(key: str, path: Path) -> Write:
    def write(store: LocalStore) -> Shown:
        ours = store.put_file_new(key, path)
        return {key: path.read_text() if ours else store.get(key).decode()}

    return write


def delete(key: str) -> Write:
    return lambda store: store.delete(key) or {key: None}


def move(value: str) -> list[Write]:
    """Move a value there and back; EITHER says that at no time it was at neither place."""

    def moved(here: str, there: str) -> Write:
        def write(store: LocalStore) -> Shown:
            if store.find(here) is None:  # a try that failed came this far
                store.move(there, here)
            store.move(here, there)
            return {here: None, there: value, EITHER: value}

        return write

    def begin(store: LocalStore) -> Shown:
        return {**put("k/here", value)(store), EITHER: value}

    return [begin, moved("k/here", "there/k"), moved("there/k", "k/here")]


def add(path: Path) -> Write:
    """Add a blob; what is in a folder is acknowledged with it."""

    def write(store: LocalStore) -> Shown:
        content = Blobs(store).add(path)
        inside = [digest_path(p) for p in path.rglob("*") if p.is_file()]
        return dict.fromkeys([f"{c.kind} {c.digest}" for c in [content, *inside]], "whole")

    return write


def cache(run: str) -> Write:
    def write(store: LocalStore) -> Shown:
        digest = Blobs(store).add_bytes(b"weights")
        artifacts = [{"output": "model", "digest": digest, "kind": FILE}]
        Cache(store).put(CACHE_KEY, {"artifacts": artifacts}, run=run, step="s")
        return {"cache": run, f"file {digest}": "whole"}

    return write


def create(run_id: str = "r1") -> Write:
    record = RunRecord(**{**vars(RUN), "id": run_id})
    return lambda store: Runs(store).create(record) or {f"run {run_id}": repr(record), "last": run_id}


def step(record: StepRecord = STEP) -> Write:
    return lambda store: Runs(store).step("r1", record) or {f"step {record.path}": repr(record)}


def finish(record: OutcomeRecord = OUTCOME) -> Write:
    return lambda store: Runs(store).finish("r1", record) or {"outcome": repr(record)}


def append(store: LocalStore) -> Shown:
    """Append to the chain m after reading all of it; what was read is acknowledged with it."""
    ledger = Ledger(store)
    while True:
        read = list(ledger.records("m"))
        head = read[-1].head if read else Head()
        if record := ledger.append("m", head, "k", {"n": head.seq}, actor="a", run="r", time="t"):
            return {f"record {r.seq}": r.hash for r in [*read, record]}


def sources(folder: Path) -> Path:
    """Make what the blobs are added from."""
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("A" * 40)
    (folder / "sub" / "b").write_text("B" * 30)
    return folder


def protocols(folder: Path) -> dict[str, list[Write]]:
    """Every protocol of the store as the writes of one writer, from the sources in a folder."""
    return {
        "put": [put("k/one", "first")],
        "put at the top": [put("one", "first")],
        "put deep": [put("k/a/b/c", "first"), put("k/a/b/d", "second")],
        "put again": [put("k/one", f"value {i}") for i in range(5)],
        "put_new": [put_new("k/one", "first"), put_new("k/one", "other"), put_new("k/two", "second")],
        "put_file_new": [put_file_new("k/one", folder / "a"), put_file_new("k/one", folder / "sub" / "b")],
        "delete": [put("k/one", "first"), delete("k/one"), delete("k/one"), put_new("k/one", "second")],
        "move": move("first"),
        "blob of a file": [add(folder / "a"), add(folder / "a")],
        "blob of a folder": [add(folder)],
        "cache": [cache("r1"), cache("r2")],
        "runs": [create(), step(), step(StepRecord("train", "FAILED", ended=2.0)), finish(), create("r2")],
        "ledger": [append, append, append],
    }


def seen(store: LocalStore) -> Shown:
    """All that a store shows; what is damaged, half there or cannot be read says so as a name of its own."""
    try:
        return dict(_seen(store))
    except Exception as e:
        return {"trouble": repr(e)}


def _seen(store: LocalStore) -> Iterator[tuple[str, str]]:
    for entry in store.list(""):
        if entry.key.startswith("blobs/"):
            yield from _blob(store, "sha256:" + "".join(entry.key.split("/")[2:]))
        elif not entry.key.startswith(("cache/", "runs/", "ledger/")):
            yield entry.key, store.get(entry.key).decode()
        if entry.key in ("k/here", "there/k"):
            yield EITHER, store.get(entry.key).decode()
    found = Cache(store).lookup(CACHE_KEY, Blobs(store))
    if found != Miss():
        yield "cache", found.run if isinstance(found, Hit) else found.reason
    yield from _runs(Runs(store))
    for record in Ledger(store).records("m"):
        yield f"record {record.seq}", record.hash


def _blob(store: LocalStore, digest: str) -> Iterator[tuple[str, str]]:
    data = Blobs(store).read_bytes(digest)
    yield f"{FILE} {digest}", "whole"
    if hashlib.sha256(b"A" * 40).hexdigest().encode() in data:
        Blobs(store).check(digest, DIRECTORY)
        yield f"{DIRECTORY} {digest}", "whole"


def _runs(runs: Runs) -> Iterator[tuple[str, str]]:
    for entry in runs.store.list("runs", recursive=False):
        run_id = entry.key.rstrip("/").rpartition("/")[2]
        if entry.key.endswith("/"):
            try:
                yield f"run {run_id}", repr(runs.read(run_id))
            except NotFound:  # its folder was made, its record not yet
                continue
    for record in runs.steps("r1"):
        yield f"step {record.path}", repr(record)
    if outcome := runs.outcome("r1"):
        yield "outcome", repr(outcome)
    if last := runs.last():
        yield "last", last
