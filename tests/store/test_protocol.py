"""One protocol, three stores: the same promises of each."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidegate.errors import NotFound, UsageError
from tidegate.store.base import Entry, Store


def test_what_was_put_is_got(store: Store, tmp_path: Path) -> None:
    for data in (b"", b"x", bytes(range(256)) * 1000):
        store.put("a/b.c-d_e", data)
        assert store.get("a/b.c-d_e") == data
    assert b"".join(store.chunks("a/b.c-d_e")) == data


def test_a_key_is_created_once(store: Store, tmp_path: Path) -> None:
    assert store.put_new("k", b"mine")
    assert store.put_new("k", b"mine"), "equal bytes mean ours"
    assert not store.put_new("k", b"other")
    assert store.get("k") == b"mine"
    (tmp_path / "f").write_bytes(b"mine")
    assert store.put_file_new("k", tmp_path / "f")
    (tmp_path / "f").write_bytes(b"other")
    assert not store.put_file_new("k", tmp_path / "f")
    assert store.put_file_new("new", tmp_path / "f")
    assert store.get("new") == b"other"


def test_a_moved_key_is_at_its_new_place_only(store: Store, tmp_path: Path) -> None:
    store.put("a/b", b"x")
    store.put("c/d/e", b"old")
    store.move("a/b", "c/d/e")
    assert (store.get("c/d/e"), store.find("a/b")) == (b"x", None)
    with pytest.raises(NotFound):
        store.move("a/b", "f")
    assert store.find("f") is None


def test_an_entry_says_its_size_and_when_it_was_written(store: Store, tmp_path: Path) -> None:
    before = time.time()
    store.put("a/b", b"12345")
    entry = store.find("a/b")
    assert entry
    assert (entry.key, entry.size) == ("a/b", 5)
    assert before - 2 < entry.modified < time.time() + 2
    assert next(store.list("a")).modified == entry.modified


def test_a_missing_key_is_not_found_and_deleting_it_is_fine(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        store.get("none/at/all")
    with pytest.raises(NotFound):
        list(store.chunks("none"))
    assert not store.find("none")
    store.delete("none/at/all")
    store.put("there", b"")
    assert store.find("there")
    store.delete("there")
    assert not store.find("there")


def test_listing_is_in_order_whole_or_one_level(store: Store) -> None:
    for key in ("a/2", "a/1", "a/b/c", "ab", "z"):
        store.put(key, key.encode())
    assert [e.key for e in store.list("a")] == ["a/1", "a/2", "a/b/c"]
    assert set(store.list("a", recursive=False)) == {Entry("a/1", 3), Entry("a/2", 3), Entry("a/b/", 0)}
    assert {"a/1", "ab", "z"} <= {e.key for e in store.list("")}
    assert list(store.list("nothing")) == []


HOSTILE = [
    "",
    "/",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a//b",
    "a/",
    "./a",
    "a/.",
    "a\0b",
    "a b",
    "ä",
    "a\\b",
    "x" * 513,
    "%2e%2e/x",
]


@pytest.mark.parametrize("key", HOSTILE)
def test_a_hostile_key_touches_nothing(store: Store, key: str) -> None:
    for call in (
        store.get,
        store.find,
        store.delete,
        lambda k: store.move(k, "to"),
        lambda k: store.put(k, b"x"),
        lambda k: store.put_new(k, b"x"),
    ):
        with pytest.raises(UsageError):
            call(key)


def test_of_many_writers_racing_for_many_keys_each_key_has_one_winner(store: Store) -> None:
    keys, writers = [f"race/{i}" for i in range(20)], 8
    start = threading.Barrier(writers)

    def write(me: int) -> list[str]:
        start.wait()
        return [k for k in keys if store.put_new(k, f"writer {me}".encode())]

    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(write, range(writers)))
    assert sorted(k for w in won for k in w) == sorted(keys)
    for me, mine in enumerate(won):
        assert all(store.get(k) == f"writer {me}".encode() for k in mine)
