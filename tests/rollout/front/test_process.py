"""Processes of a front: what they write is kept, and does not fill the disk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.servers import wait_until
from tidegate.rollout.front import process
from tidegate.rollout.front.process import is_alive, start


def test_a_long_log_is_put_aside_when_a_process_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MOST_LOG", 10)
    log, found = tmp_path / "stable.log", []
    for text in ("a" * 6, "b" * 6, "c" * 6, "d" * 12, "e"):
        started = start([sys.executable, "-c", f"print('{text}')"], log)
        wait_until(lambda p=started: not is_alive(p))  # type: ignore[misc]
        process.reap()
        found.append({p.name: p.read_text().split() for p in tmp_path.iterdir()})
    assert found[1] == {"stable.log": ["a" * 6, "b" * 6]}
    assert found[3] == {"stable.log": ["c" * 6, "d" * 12], "stable.log.1": ["a" * 6, "b" * 6]}
    assert found[4] == {"stable.log": ["e"], "stable.log.1": ["c" * 6, "d" * 12]}
