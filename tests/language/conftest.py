"""A runner per test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.language.kit import Runner


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """Compile a kfp pipeline and run it by value."""
    return Runner(tmp_path)


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every container's command run on this machine."""
    monkeypatch.setenv("TIDEGATE_IMAGES", '{"*": "host"}')
