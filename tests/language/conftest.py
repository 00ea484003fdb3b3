"""A runner per test: every case runs on the local engine, and, compiled to Argo, on a simulated cluster.

The second takes some minutes for all cases; without TIDEGATE_LONG every ``STRIDE``th case runs there.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from conftest import LONG
from tests.engines.argo.simulated import SimulatedEngine, on_argo  # noqa: F401
from tests.language.kit import Runner

STRIDE = 8
REFUSED: dict[str, str] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each case that runs a pipeline its engines."""
    if "run" in metafunc.fixturenames:
        name = metafunc.definition.nodeid
        chosen = LONG or zlib.crc32(name.encode()) % STRIDE == 0
        metafunc.parametrize("run", ["local", "argo"] if chosen else ["local"], indirect=True)


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Runner:
    """Compile a kfp pipeline and run it by value."""
    if request.param == "argo":
        request.getfixturevalue("on_argo")
    return Runner(tmp_path)


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every container's command run on this machine."""
    monkeypatch.setenv("TIDEGATE_IMAGES", '{"*": "host"}')
