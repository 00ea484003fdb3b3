"""Blobs and cache: no flipped bit is ever returned."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tidegate.errors import Damaged, NotFound, UsageError
from tidegate.store.blobs import Blobs, digest_path
from tidegate.store.cache import Cache, Hit, Miss
from tidegate.store.memory import MemoryStore

KEY = "0123456789abcdef" * 4


@pytest.fixture
def blobs() -> Blobs:
    return Blobs(MemoryStore())


def folder(root: Path) -> Path:
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "a").write_bytes(b"A")
    (root / "sub" / "b c").write_bytes(b"B" * 3000)
    (root / "sub" / "deep" / "ä\udcff").write_bytes(b"")
    return root


def test_files_and_folders_come_back_as_they_were(blobs: Blobs, tmp_path: Path) -> None:
    source = folder(tmp_path / "in")
    content = blobs.add(source)
    assert content == digest_path(source)
    blobs.fetch(content.digest, tmp_path / "out", kind=content.kind)
    assert digest_path(tmp_path / "out") == content
    assert (tmp_path / "out" / "sub" / "b c").read_bytes() == b"B" * 3000
    one = blobs.add(source / "a")
    assert (one.kind, one.size) == ("file", 1)
    blobs.fetch(one.digest, tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == b"A"


def test_the_digest_of_a_folder_is_that_of_its_sorted_manifest(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "f").write_bytes(b"hello")
    import hashlib

    line = f"{hashlib.sha256(b'hello').hexdigest()} 5 f\n"
    expected = "sha256:" + hashlib.sha256(line.encode()).hexdigest()
    assert digest_path(tmp_path / "x").digest == expected


@pytest.mark.parametrize("plant", ["symlink", "fifo"])
def test_links_and_devices_in_a_folder_are_refused(blobs: Blobs, tmp_path: Path, plant: str) -> None:
    import os

    source = folder(tmp_path / "in")
    if plant == "symlink":
        (source / "link").symlink_to("/etc/passwd")
    else:
        os.mkfifo(source / "fifo")
    with pytest.raises(UsageError, match="no regular file"):
        blobs.add(source)


def test_a_flipped_bit_is_never_returned(blobs: Blobs, tmp_path: Path) -> None:
    content = blobs.add(folder(tmp_path / "in"))
    store, rng = blobs.store, random.Random(1)
    keys = [e.key for e in store.list("blobs") if e.size]
    for i in range(300):
        key = rng.choice(keys)
        good = store.get(key)
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        store.put(key, bytes(bad))
        with pytest.raises((Damaged, NotFound)):
            blobs.fetch(content.digest, tmp_path / f"out{i}", kind=content.kind)
        assert not (tmp_path / f"out{i}").exists()
        store.put(key, good)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_adding_good_bytes_mends_a_damaged_blob_and_keeps_the_damage_aside(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"good")
    content = blobs.add(tmp_path / "f")
    (key,) = [e.key for e in blobs.store.list("blobs")]
    blobs.store.put(key, b"evil")
    assert blobs.add(tmp_path / "f") == content
    assert blobs.read_bytes(content.digest) == b"good"
    assert blobs.store.get(f"damaged/{key}") == b"evil"


@pytest.mark.parametrize("line", ["../../etc/passwd", "/etc/passwd", "a/../../b"])
def test_a_manifest_that_leaves_its_folder_is_damage(blobs: Blobs, tmp_path: Path, line: str) -> None:
    inner = blobs.add_bytes(b"x")
    manifest = blobs.add_bytes(f"{inner[7:]} 1 {line}\n".encode())
    with pytest.raises(Damaged):
        blobs.fetch(manifest, tmp_path / "out", kind="directory")
    assert list(tmp_path.iterdir()) == []


def cached(cache: Cache, blobs: Blobs, tmp_path: Path) -> str:
    (tmp_path / "model").write_bytes(b"weights")
    content = blobs.add(tmp_path / "model")
    artifact = {"output": "model", "digest": content.digest, "kind": content.kind}
    cache.put(KEY, {"parameters": {"n": 1}, "artifacts": [artifact]}, run="r", step="s")
    return content.digest


def test_a_hit_says_what_was_made_and_by_whom(blobs: Blobs, tmp_path: Path) -> None:
    cache = Cache(blobs.store)
    assert cache.lookup(KEY, blobs) == Miss()
    cached(cache, blobs, tmp_path)
    hit = cache.lookup(KEY, blobs)
    assert isinstance(hit, Hit)
    assert (hit.outputs["parameters"], hit.run, hit.step) == ({"n": 1}, "r", "s")


def test_a_flipped_bit_in_an_entry_or_its_blobs_is_a_miss_that_is_set_aside(blobs: Blobs, tmp_path: Path) -> None:
    cache, rng = Cache(blobs.store), random.Random(2)
    cached(cache, blobs, tmp_path)
    for key in [e.key for e in blobs.store.list("") if not e.key.startswith("damaged")]:
        good = blobs.store.get(key)
        for _ in range(100):
            bad = bytearray(good)
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            blobs.store.put(key, bytes(bad))
            entry = blobs.store.get(f"cache/{KEY[:2]}/{KEY[2:]}")
            found = cache.lookup(KEY, blobs)
            assert isinstance(found, Miss)
            assert found.damaged
            assert blobs.store.get(f"damaged/cache/{KEY[:2]}/{KEY[2:]}") == entry
            blobs.store.put(key, good)
            cached(cache, blobs, tmp_path)


def test_an_entry_of_another_key_is_no_hit(blobs: Blobs, tmp_path: Path) -> None:
    cache = Cache(blobs.store)
    cached(cache, blobs, tmp_path)
    other = "f" * 64
    blobs.store.put(f"cache/ff/{other[2:]}", blobs.store.get(f"cache/{KEY[:2]}/{KEY[2:]}"))
    found = cache.lookup(other, blobs)
    assert isinstance(found, Miss)
    assert found.damaged


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", json.dumps({"checksum": 1}).encode(), b"\xff\xfe"])
def test_an_entry_that_cannot_be_read_is_a_miss(blobs: Blobs, text: bytes) -> None:
    cache = Cache(blobs.store)
    blobs.store.put(f"cache/{KEY[:2]}/{KEY[2:]}", text)
    found = cache.lookup(KEY, blobs)
    assert isinstance(found, Miss)
    assert found.damaged
