"""Bit rot: a single bit flipped anywhere in a store is never returned as good through the public classes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import LONG
from tests.crash.protocols import CACHE_KEY, OUTCOME, RUN, STEP, sources
from tidegate.errors import Damaged, NotFound
from tidegate.registry.ledger import Head, Ledger, Record
from tidegate.store.blobs import Blobs, Content, digest_path
from tidegate.store.cache import Cache, Hit, Miss
from tidegate.store.local import LocalStore
from tidegate.store.runs import Runs, StepRecord

FLIPS = 10_000 if LONG else 300
GOOD, SEEN = "good", "seen"


@dataclass
class Small:
    """A store after a small run: a file and a folder, a cache entry, a run's records, a chain of three."""

    store: LocalStore
    folder: Path
    file: Content
    model: Content
    head: Head
    hit: Hit
    records: tuple[Record, ...]
    steps: tuple[StepRecord, ...] = (STEP, StepRecord("gate", "FAILED", seconds=0.25, error={"n": 1.5}, ended=2.0))

    def read(self, part: str, out: Path) -> str:
        """Read a part through its public class: GOOD when it is what was written, SEEN when it was said to be bad."""
        try:
            found = PARTS[part](self, out)
        except (Damaged, NotFound):
            return SEEN
        return found if found in (GOOD, SEEN) else f"{found!r} was returned"


def small(root: Path) -> Small:
    store, folder = LocalStore(root / "s"), sources(root / "sources")
    blobs = Blobs(store)
    file, model = blobs.add(folder / "a"), blobs.add(folder)
    hit = Hit({"artifacts": [{"digest": c.digest, "kind": c.kind} for c in (file, model)], "n": 0.25}, "r1", "train")
    Cache(store).put(CACHE_KEY, hit.outputs, run=hit.run, step=hit.step)
    head, records = Head(), []
    for n in range(3):
        record = Ledger(store).append("m", head, "k", {"auc": 0.75, "n": n}, actor="a", run="r1", time="t")
        assert record
        records.append(record)
        head = record.head
    made = Small(store, folder, file, model, head, hit, tuple(records))
    Runs(store).create(RUN)
    for step in made.steps:
        Runs(store).step("r1", step)
    Runs(store).finish("r1", OUTCOME)
    return made


def same(found: Any, expected: Any) -> Any:
    return GOOD if found == expected else found


def fetched(content: Content) -> Callable[[Small, Path], Any]:
    def read(small: Small, out: Path) -> Any:
        Blobs(small.store).fetch(content.digest, out, kind=content.kind)
        return same(digest_path(out), content)

    return read


def looked_up(small: Small, out: Path) -> Any:
    entry = small.store.get(f"cache/{CACHE_KEY[:2]}/{CACHE_KEY[2:]}")
    found = Cache(small.store).lookup(CACHE_KEY, Blobs(small.store))
    if isinstance(found, Miss) and found.damaged:
        aside = small.store.get(f"damaged/cache/{CACHE_KEY[:2]}/{CACHE_KEY[2:]}")
        return SEEN if aside == entry and found.reason else "a miss that was not set aside"
    return same(found, small.hit)


def pointed_at(small: Small, out: Path) -> Any:
    """The last run: a name that leads to no record is no answer."""
    return same(Runs(small.store).read(Runs(small.store).last()), RUN)


def chained(small: Small, out: Path) -> Any:
    """A chain, by one who kept its head: nothing inside a chain can speak for its last record."""
    found = tuple(Ledger(small.store).records("m"))
    return same(found, small.records) if Ledger(small.store).holds("m", small.head) else SEEN


PARTS: dict[str, Callable[[Small, Path], Any]] = {
    "file": lambda s, out: fetched(s.file)(s, out),
    "folder": lambda s, out: fetched(s.model)(s, out),
    "cache": looked_up,
    "run": lambda s, out: same(Runs(s.store).read("r1"), RUN),
    "steps": lambda s, out: same(tuple(Runs(s.store).steps("r1")), s.steps),
    "outcome": lambda s, out: same(Runs(s.store).outcome("r1"), OUTCOME),
    "last": pointed_at,
    "ledger": chained,
}


def flips(root: Path, count: int, seed: int) -> Iterator[tuple[Path, bytes, bytes]]:
    """Files below ``root`` with their bytes and those with one bit changed."""
    rng = random.Random(seed)
    paths = sorted(p for p in root.rglob("*") if p.is_file() and p.name != ".gitignore" and p.stat().st_size)
    for _ in range(count):
        path = rng.choice(paths)
        good = path.read_bytes()
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        yield path, good, bytes(bad)


def test_a_bit_flipped_anywhere_in_a_store_is_never_returned_as_good(tmp_path: Path) -> None:
    made = small(tmp_path)
    wrong, seen = [], 0
    for number, (path, good, bad) in enumerate(flips(made.store.root, FLIPS, 1)):
        path.write_bytes(bad)
        said = {part: made.read(part, tmp_path / f"out-{part}-{number}") for part in PARTS}
        seen += SEEN in said.values()
        where = path.relative_to(made.store.root)
        wrong += [f"{where} {bad!r}: {part}: {s}" for part, s in said.items() if s not in (GOOD, SEEN)]
        path.write_bytes(good)
        for out in tmp_path.glob("out-*"):
            remove(out)
        put_back(made)
    assert wrong == []
    assert seen > FLIPS * 0.95, "a flip that changes no value, as in the case of an exponent, is rare"


def remove(path: Path) -> None:
    for p in sorted(path.rglob("*"), reverse=True):
        p.rmdir() if p.is_dir() else p.unlink()
    path.rmdir() if path.is_dir() else path.unlink()


def put_back(made: Small) -> None:
    """Write again what a lookup set aside."""
    if Cache(made.store).lookup(CACHE_KEY, Blobs(made.store)) == Miss():
        Cache(made.store).put(CACHE_KEY, made.hit.outputs, run=made.hit.run, step=made.hit.step)


def test_adding_the_same_bytes_mends_a_flipped_blob(tmp_path: Path) -> None:
    made = small(tmp_path)
    for path, _, bad in flips(made.store.root / "blobs", FLIPS // 10, 2):
        path.write_bytes(bad)
        assert Blobs(made.store).add(made.folder) == made.model
        assert made.read("folder", tmp_path / "out") == GOOD
        assert (made.store.root / "damaged" / path.relative_to(made.store.root)).read_bytes() == bad
        remove(tmp_path / "out")


@pytest.mark.parametrize("part", PARTS)
def test_what_was_not_flipped_is_read_as_it_was(tmp_path: Path, part: str) -> None:
    assert small(tmp_path).read(part, tmp_path / "out") == GOOD


def test_records_of_before_there_were_checksums_are_still_read(tmp_path: Path) -> None:
    import json
    from dataclasses import asdict

    store = LocalStore(tmp_path)
    store.put("runs/r1/run.json", json.dumps(asdict(RUN)).encode())
    store.put("runs/r1/outcome.json", json.dumps(asdict(OUTCOME)).encode())
    assert Runs(store).read("r1") == RUN
    assert Runs(store).outcome("r1") == OUTCOME


def test_a_record_whose_parameters_have_numbers_for_names_is_no_damage(tmp_path: Path) -> None:
    """JSON makes them text, and sorts them as text."""
    store = LocalStore(tmp_path)
    Runs(store).step("r1", StepRecord("s", "SUCCEEDED", outputs={"parameters": {9: "a", 10: "b"}}))  # type: ignore[dict-item]
    assert Runs(store).steps("r1")[0].outputs == {"parameters": {"9": "a", "10": "b"}}
    Cache(store).put(CACHE_KEY, {"parameters": {9: "a", 10: "b"}}, run="r", step="s")
    assert Cache(store).lookup(CACHE_KEY, Blobs(store)) == Hit({"parameters": {"9": "a", "10": "b"}}, "r", "s")
