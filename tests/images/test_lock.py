import multiprocessing
import os
from pathlib import Path

import pytest

from tidegate.author.images import Family, read_lock
from tidegate.errors import ConfigError
from tidegate.images.lock import update

DIGEST = "sha256:" + "a" * 64
FAMILY = Family(f"localhost:5000/it@{DIGEST}", DIGEST, {"components.grade:grade": DIGEST})


def test_what_was_written_is_read_and_what_was_there_stays(tmp_path: Path) -> None:
    update(tmp_path, {"train": FAMILY})
    update(tmp_path, {"base": Family(f"h.example/b@{DIGEST}")})
    assert read_lock(tmp_path).families == {"train": FAMILY, "base": Family(f"h.example/b@{DIGEST}")}


def test_hostile_names_of_code_are_data(tmp_path: Path) -> None:
    hostile = {'a"]\n[family.x]\nimage = "y': DIGEST, "ü\x7f\x01\U0001f600\\": DIGEST}
    update(tmp_path, {"train": Family("", "", hostile)})
    assert read_lock(tmp_path).families == {"train": Family("", "", hostile)}


def test_a_lock_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update(tmp_path, {"train": FAMILY})
    before = (tmp_path / "images.lock").read_bytes()

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        update(tmp_path, {"base": FAMILY})
    assert (tmp_path / "images.lock").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["images.lock"]


def test_a_lock_that_cannot_be_read_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "images.lock").write_text("version = 1\n[family")
    with pytest.raises(ConfigError):
        update(tmp_path, {"base": FAMILY})
    assert (tmp_path / "images.lock").read_text() == "version = 1\n[family"


def _update(root: Path, name: str) -> None:
    update(root, {name: FAMILY})


def test_of_builds_at_the_same_time_none_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    at_once = [context.Process(target=_update, args=(tmp_path, f"f{i}")) for i in range(4)]
    for p in at_once:
        p.start()
    for p in at_once:
        p.join()
    assert sorted(read_lock(tmp_path).families) == ["f0", "f1", "f2", "f3"]
