"""Garbage collection: what nothing needs goes; what anything needs, or may be about to need, stays."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import LONG
from tidegate.errors import Conflict, NotFound
from tidegate.store.base import Entry, Store
from tidegate.store.blobs import DIRECTORY, FILE, Blobs
from tidegate.store.cache import Cache, Hit
from tidegate.store.gc import DAY, Policy, Survey, choose, collect, remove_runs
from tidegate.store.local import LocalStore
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs, StepRecord

NOW = 1e9
LATER = time.time() + 2 * DAY
KEY = "ab" * 32


def blob(n: int, size: int = 10, age: float = 40 * DAY) -> tuple[str, Entry]:
    digest = f"sha256:{n:064x}"
    return digest, Entry(f"blobs/{n}", size, NOW - age)


def entry(n: int, age: float, *digests: str) -> tuple[Entry, frozenset[str]]:
    return Entry(f"cache/{n}", 1, NOW - age), frozenset(digests)


def test_old_entries_go_and_the_blobs_that_only_they_needed() -> None:
    blobs = dict([blob(1), blob(2), blob(3)])
    one, two, three = blobs
    entries = dict([entry(1, 31 * DAY, one, two), entry(2, DAY, two)])
    swept = choose(Survey(blobs, entries, frozenset([three])), Policy(), NOW)
    assert (swept.entries, swept.blobs, swept.bytes) == (("cache/1",), (one,), 10)


def test_the_oldest_entries_go_until_the_rest_fits() -> None:
    blobs = dict([blob(1), blob(2), blob(3)])
    entries = dict([entry(i, (4 - i) * DAY, d) for i, d in enumerate(blobs, 1)])
    assert choose(Survey(blobs, entries, frozenset()), Policy(size=20), NOW).entries == ("cache/1",)
    assert choose(Survey(blobs, entries, frozenset()), Policy(size=30), NOW).entries == ()
    assert len(choose(Survey(blobs, entries, frozenset(blobs)), Policy(size=5), NOW).blobs) == 0


def test_an_entry_whose_blobs_stay_anyway_frees_nothing_and_stays() -> None:
    blobs = dict([blob(1), blob(2), blob(3)])
    one, two, three = blobs
    entries = dict([entry(1, 4 * DAY, one), entry(2, 3 * DAY, two, three), entry(3, 2 * DAY, two)])
    swept = choose(Survey(blobs, entries, frozenset([one])), Policy(size=20), NOW)
    assert (swept.entries, swept.blobs) == (("cache/2",), (three,))
    assert choose(Survey(blobs, entries, frozenset([one])), Policy(size=0), NOW).entries == ("cache/2", "cache/3")


def test_what_is_young_stays() -> None:
    blobs = dict([blob(1, age=DAY / 2), blob(2, age=2 * DAY)])
    assert choose(Survey(blobs, {}, frozenset()), Policy(), NOW).blobs == (list(blobs)[1],)


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    for name in ("kept", "lost", "folder/a", "folder/b/c", "cached", "version"):
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "made"


def test_what_a_run_a_version_or_an_entry_refers_to_is_never_removed(store: Store, artifacts: Path) -> None:
    blobs, runs = Blobs(store), Runs(store)
    added = {p.name: blobs.add(p) for p in sorted(artifacts.iterdir())}
    runs.create(RunRecord("20260101-000000-aaaaaa", "p", "sha256:0"))
    outputs = {"artifacts": {n: [{"digest": added[n].digest, "kind": added[n].kind}] for n in ("kept", "folder")}}
    runs.step("20260101-000000-aaaaaa", StepRecord("a", "SUCCEEDED", outputs=outputs))
    store.put("ledger/m/000000000001.json", json.dumps({"model": added["version"].digest}).encode())
    Cache(store).put(KEY, {"artifacts": [{"digest": added["cached"].digest, "kind": FILE}]}, run="r", step="s")
    assert collect(store, Policy(), LATER, dry_run=True).blobs == (added["lost"].digest,)
    assert blobs.read_bytes(added["lost"].digest) == b"lost"
    swept = collect(store, Policy(), LATER)
    assert (swept.blobs, swept.bytes) == ((added["lost"].digest,), 4)
    blobs.check(added["folder"].digest, DIRECTORY)
    for name in ("kept", "version", "cached"):
        assert blobs.read_bytes(added[name].digest) == name.encode()
    with pytest.raises(NotFound):
        blobs.read_bytes(added["lost"].digest)
    assert not list(store.list("condemned"))


def test_a_leased_blob_stays_until_its_run_has_ended(store: Store, artifacts: Path) -> None:
    content = Blobs(store).add(artifacts / "lost")
    store.put(f"leases/{content.digest[7:]}/20260101-000000-aaaaaa", b"")
    assert not collect(store, Policy(), LATER).blobs
    Runs(store).finish("20260101-000000-aaaaaa", OutcomeRecord("SUCCEEDED"))
    assert collect(store, Policy(), LATER).blobs == (content.digest,)


def test_a_lease_of_a_run_that_was_killed_ends_too(store: Store, artifacts: Path) -> None:
    content = Blobs(store).add(artifacts / "lost")
    store.put(f"leases/{content.digest[7:]}/20260101-000000-aaaaaa", b"")
    assert collect(store, Policy(), LATER + 8 * DAY).blobs == (content.digest,)


def age(root: Path, days: float) -> None:
    for path in root.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                os.utime(path, (time.time() - days * DAY,) * 2)


def test_a_run_leases_old_blobs_before_it_relies_on_them(tmp_path: Path, artifacts: Path) -> None:
    store = LocalStore(tmp_path / "store")
    content = Blobs(store).add(artifacts / "folder")
    age(tmp_path / "store", 3)
    Blobs(store, run="20260101-000000-aaaaaa").check(content.digest, DIRECTORY)
    assert len(list(store.list("leases"))) == 3
    assert not collect(store, Policy(), time.time()).blobs


def test_an_entry_in_use_is_written_again_so_that_it_does_not_grow_old(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    Cache(store).put(KEY, {"artifacts": []}, run="r", step="s")
    age(tmp_path / "store", 40)
    assert isinstance(Cache(store).lookup(KEY, Blobs(store)), Hit)
    assert not collect(store, Policy(), time.time()).entries


def test_a_collection_that_was_killed_is_finished_by_the_next(store: Store, artifacts: Path) -> None:
    blobs = Blobs(store)
    wanted, unwanted = blobs.add(artifacts / "kept"), blobs.add(artifacts / "lost")
    for digest in (wanted.digest, unwanted.digest):
        key = f"blobs/sha256/{digest[7:9]}/{digest[9:]}"
        store.move(key, f"condemned/{key}")
    assert blobs.read_bytes(wanted.digest) == b"kept", "readers still find what is condemned"
    store.put("ledger/m/000000000001.json", json.dumps({"model": wanted.digest}).encode())
    collect(store, Policy(), time.time())
    assert blobs.read_bytes(wanted.digest) == b"kept"
    assert not list(store.list("condemned"))
    with pytest.raises(NotFound):
        blobs.read_bytes(unwanted.digest)


def test_collections_racing_with_runs_never_take_what_a_record_refers_to(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    files = [tmp_path / f"f{i}" for i in range(6)]
    for i, file in enumerate(files):
        file.write_text(f"content {i}")
        Blobs(store).add(file)
    age(tmp_path / "store", 3)
    over, problems = threading.Event(), []
    young = threading.Lock()  # what a run has just made is young until its record is written

    def collects() -> None:
        while not over.is_set():
            with contextlib.suppress(Conflict):
                collect(store, Policy(grace=DAY), time.time())

    def runs(me: int) -> None:
        chance = random.Random(me)
        for n in range(40 if not LONG else 1000):
            run_id = f"20260101-{n:06d}-{me:06x}"
            with young:
                content = Blobs(store, run_id).add(chance.choice(files))
                record = StepRecord("s", "SUCCEEDED", outputs={"artifacts": {"a": [{"digest": content.digest}]}})
                Runs(store).step(run_id, record)
                Runs(store).finish(run_id, OutcomeRecord("SUCCEEDED"))
            try:
                Blobs(store).read_bytes(content.digest)
            except NotFound as e:
                problems.append(e)
            if chance.random() < 0.5:  # the run is forgotten, and what it made is old
                for key in list(store.list(f"runs/{run_id}")):
                    store.delete(key.key)
                with young:
                    age(tmp_path / "store" / "blobs", 3)

    collectors = [threading.Thread(target=collects) for _ in range(2)]
    workers = [threading.Thread(target=runs, args=(i,)) for i in range(3)]
    for thread in (*collectors, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    over.set()
    for thread in collectors:
        thread.join()
    assert not problems


def test_the_command_says_what_would_go_and_what_went(tmp_path: Path, artifacts: Path) -> None:
    store = LocalStore(tmp_path / "store")
    Blobs(store).add(artifacts / "lost")
    age(tmp_path / "store", 3)

    def gc(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tidegate", "cache", "gc", "--store", str(tmp_path / "store"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "1 blobs (0.0 MB) would go" in gc("--dry-run").stdout
    assert json.loads(gc("--json", "--older-than", "12h", "--max-size", "10Gi").stdout) == {
        "cache_entries": 0,
        "blobs": 1,
        "bytes": 4,
    }
    for words in (["--older-than", "soon"], ["--max-size", "big"], ["--grace", "-1d"]):
        said = gc(*words)
        assert said.returncode == 2
        assert "A number and" in said.stderr


def test_a_forgotten_run_lets_its_blobs_go_and_one_that_made_a_version_stays(store: Store, artifacts: Path) -> None:
    one, two = "20260101-000000-aaaaaa", "20260101-000001-bbbbbb"
    blobs = Blobs(store)
    for run, name in ((one, "lost"), (two, "version")):
        Runs(store).create(RunRecord(run, "p", "sha256:0"))
        digest = blobs.add(artifacts / name).digest
        Runs(store).step(run, StepRecord("a", "SUCCEEDED", outputs={"artifacts": {"a": [{"digest": digest}]}}))
    store.put("ledger/m/000000000001.json", json.dumps({"run": two}).encode())
    assert not collect(store, Policy(), LATER).blobs
    assert remove_runs(store, [one, two]) == ([one], [two])
    assert [r.id for r in Runs(store).list(10)] == [two]
    assert len(collect(store, Policy(), LATER).blobs) == 1
    assert Runs(store).steps(two)


def test_there_is_one_collection_at_a_time_and_a_dead_one_is_in_nobodys_way(store: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    for pid, going in ((os.getpid(), True), (process.pid, False)):
        process.wait()
        store.put("gc/claim", json.dumps({"host": socket.gethostname(), "pid": pid, "nonce": "x"}).encode())
        if going:
            with pytest.raises(Conflict):
                collect(store, Policy(), LATER)
        else:
            collect(store, Policy(), LATER)
    assert not store.find("gc/claim")
