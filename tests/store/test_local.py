"""The local store and the disk: what is acknowledged is durable, what fails leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.disks import small_disk
from tidegate.errors import Damaged, NotFound, StoreError
from tidegate.store.disk import RealDisk
from tidegate.store.local import LocalStore


class Recorder(RealDisk):
    """The real disk, writing down what it is asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in ("create", "write", "fsync", "link", "rename", "mkdir", "fsync_folder"):
            self.calls.append(name)
        return super().__getattribute__(name)


def test_bytes_are_durable_before_their_name_and_the_name_before_the_answer(tmp_path: Path) -> None:
    disk = Recorder()
    store = LocalStore(tmp_path / "s", disk)
    store.put("first", b"x")  # which also makes the store
    disk.calls.clear()
    store.put_new("a/b", b"x")
    assert disk.calls == ["create", "write", "fsync", "mkdir", "fsync_folder", "fsync_folder", "link", "fsync_folder"]
    disk.calls.clear()
    store.put("a/b", b"y")
    assert disk.calls == ["create", "write", "fsync", "rename", "fsync_folder"]


def test_a_full_file_system_is_said_and_what_was_there_stays(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "128k") as small:
        store = LocalStore(small)
        store.put_new("old", b"old")
        with pytest.raises(StoreError, match="No space left"):
            store.put_new("big", b"x" * 400_000)
        assert store.get("old") == b"old"
        assert not store.find("big")
        assert store.put_new("small", b"fits")


THROUGH_A_LINK: list[Callable[[LocalStore], object]] = [
    lambda s: s.get("a/k"),
    lambda s: s.get("linked/k"),
    lambda s: s.put("linked/new", b"x"),
    lambda s: s.put_new("linked/new", b"x"),
    lambda s: s.delete("linked/k"),
    lambda s: s.find("linked/k"),
    lambda s: list(s.list("linked/sub")),
]


@pytest.mark.parametrize("read", THROUGH_A_LINK)
def test_a_link_planted_in_the_store_is_not_followed(tmp_path: Path, read: Callable[[LocalStore], object]) -> None:
    store = LocalStore(tmp_path / "s")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "k").write_bytes(b"secret")
    store.put("a/other", b"x")
    (tmp_path / "s" / "a" / "k").symlink_to(tmp_path / "outside" / "k")
    (tmp_path / "s" / "linked").symlink_to(tmp_path / "outside")
    with pytest.raises((Damaged, NotFound)):
        read(store)
    assert [p.name for p in (tmp_path / "outside").iterdir()] == ["k"]
    assert [entry.key for entry in store.list("")] == ["a/other"]


WRITER = """
import sys, pathlib
from tidegate.store.local import LocalStore
store = LocalStore(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
i = 0
while True:
    if store.put_new(f"k/{i}", b"x" * 50_000):
        print(i, flush=True)
    i += 1
"""


def test_a_killed_writer_loses_nothing_that_it_acknowledged_and_leaves_nothing_half(tmp_path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout
        said = [writer.stdout.readline().strip() for _ in range(30)]
        writer.kill()
        said += writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        store = LocalStore(tmp_path)
        for number in [s for s in said if s.isdecimal()]:
            assert store.get(f"k/{number}") == b"x" * 50_000
        assert {e.size for e in store.list("k")} == {50_000}
        for entry in list(store.list("k")):
            store.delete(entry.key)


def test_what_killed_writers_left_long_ago_is_swept(tmp_path: Path) -> None:
    LocalStore(tmp_path).put("k", b"x")
    old, fresh = tmp_path / "tmp" / "old", tmp_path / "tmp" / "fresh"
    old.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(old, (0, 0))
    LocalStore(tmp_path).put("k", b"y")
    assert not old.exists()
    assert fresh.exists()


def test_reading_makes_nothing_and_the_first_write_makes_the_store(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "some" / "store")
    with pytest.raises(NotFound):
        store.get("a/k")
    with pytest.raises(NotFound):
        list(store.chunks("a/k"))
    assert (store.find("a/k"), list(store.list("")), list(store.list("a"))) == (None, [], [])
    store.delete("a/k")
    assert list(tmp_path.iterdir()) == []
    store.put("a/k", b"x")
    assert {f.name for f in (tmp_path / "some" / "store").iterdir()} == {".gitignore", "tmp", "a"}


READING: list[Callable[[LocalStore], object]] = [
    lambda s: s.get("a/k"),
    lambda s: s.find("a/k"),
    lambda s: list(s.list("")),
    lambda s: list(s.list("a")),
]


@pytest.mark.parametrize("read", READING)
def test_a_file_is_no_store_without_keys(tmp_path: Path, read: Callable[[LocalStore], object]) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="cannot open the store"):
            read(LocalStore(root))
