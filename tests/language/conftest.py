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
# what a simulated cluster has not: a container runtime with its volumes, and time
LOCAL_ONLY = {
    "test_without_a_map_and_without_containers_the_run_is_refused_before_it_starts": "clusters have containers",
    "test_a_containerised_python_component_runs_in_the_folder_that_stands_for_its_image": "it runs in its image there",
    "test_the_workspace_is_one_folder_for_the_whole_run": "a claim mounted into every pod",
    "test_the_pauses_between_tries_grow_by_the_factor": "Argo waits",
    "test_a_task_that_takes_longer_than_its_time_limit_fails_in_time": "Kubernetes looks at the clock",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each case that runs a pipeline its engines."""
    if "run" in metafunc.fixturenames:
        name = metafunc.definition.nodeid
        chosen = LONG or zlib.crc32(name.encode()) % STRIDE == 0
        chosen = chosen and metafunc.function.__name__ not in LOCAL_ONLY
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
