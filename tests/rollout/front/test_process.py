"""Processes of a front: what they write is kept, and does not fill the disk."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import wait_until
from tidegate.rollout.front import process
from tidegate.rollout.front.process import is_alive, put_aside, start, tell

TELLS = "import sys\nfor line in open(sys.argv[1]):\n    print(line, end='', flush=True)\n"


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A log, and the pipe by which the process that writes it is told what."""
    log, pipe = tmp_path / "stable.log", tmp_path / "pipe"
    os.mkfifo(pipe)
    started = start([sys.executable, "-S", "-E", "-c", TELLS, str(pipe)], log)
    yield log, pipe
    tell(started, signal.SIGKILL)
    wait_until(lambda: not is_alive(started))
    process.reap()


def grown(log: Path, size: int) -> None:
    wait_until(lambda: log.stat().st_size >= size)


def test_a_long_log_is_put_aside_while_a_process_goes_on_writing_it(
    told: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MOST_LOG", 10)
    log, pipe = told
    before = log.with_name("stable.log.1")
    with pipe.open("w") as out:
        for text, kept in (("a" * 8, ""), ("b" * 8, "a" * 8 + "b" * 8), ("c" * 20, "c" * 20)):
            size = log.stat().st_size
            print(text, file=out, flush=True)
            grown(log, size + len(text) + 1)
            put_aside(log)
            assert (before.read_text().replace("\n", "") if before.exists() else "") == kept
        print("d", file=out, flush=True)
        grown(log, 2)
    assert log.read_text() == "d\n", "from its beginning, and no hole before it"


def test_where_there_is_no_room_for_the_copy_a_long_log_is_emptied_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, to: Path) -> None:
        to.write_text("some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(process, "MOST_LOG", 10)
    monkeypatch.setattr(shutil, "copyfile", full)
    (tmp_path / "stable.log").write_text("a" * 11)
    put_aside(tmp_path / "stable.log")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"stable.log": ""}
    put_aside(tmp_path / "none.log")
