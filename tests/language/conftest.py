"""A runner per test: every case runs on the local engine, and, compiled to Argo, on a simulated cluster.

On the cluster a case gives what the test wants and, step by step, what it gives here: states, inputs, outputs, digests,
errors. That takes minutes for all cases; without TIDEGATE_LONG every ``STRIDE``th case runs there.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import LONG
from tests.engines.argo.simulated import Simulation
from tests.language.kit import Runner
from tidegate.engines.local import engine
from tidegate.engines.local.process import Launcher

STRIDE = 5
# what a simulated cluster has not: a container runtime with its volumes, and time
LOCAL_ONLY = {
    "test_without_a_map_and_without_containers_the_run_is_refused_before_it_starts": "clusters have containers",
    "test_a_containerised_python_component_runs_in_the_folder_that_stands_for_its_image": "it runs in its image there",
    "test_the_workspace_is_one_folder_for_the_whole_run": "a claim mounted into every pod",
    "test_a_custom_path_is_read_back_by_the_consumer_and_kept": "of somebody else's image only the shared folder is read",
    "test_the_pauses_between_tries_grow_by_the_factor": "Argo waits",
    "test_a_task_that_takes_longer_than_its_time_limit_fails_in_time": "Kubernetes looks at the clock",
}
# these give paths and moments of their own run
OWN_VALUES = {
    "test_uri_and_metadata_of_artifacts_stand_in_the_command",
    "test_the_whole_executor_input_can_be_an_argument",
    "test_parallelism_limits_how_many_iterations_are_at_work",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each case that runs a pipeline its engines."""
    if "run" in metafunc.fixturenames:
        name = metafunc.definition.nodeid
        chosen = LONG or zlib.crc32(name.encode()) % STRIDE == 0
        chosen = chosen and metafunc.function.__name__ not in LOCAL_ONLY
        chosen = chosen and not metafunc.module.__name__.endswith("test_command_line")  # a process of its own
        metafunc.parametrize("run", ["local", "argo"] if chosen else ["local"], indirect=True)


class OneServer(Launcher):
    """A launcher of many runs: to start a fork server takes longer than most of these runs, and is tested elsewhere."""

    def close(self) -> None:
        """Let it be there for the next run."""


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    made = OneServer()
    yield made
    Launcher.close(made)


@pytest.fixture
def run(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    launcher: Launcher,
) -> Runner:
    """Compile a kfp pipeline and run it by value."""
    monkeypatch.setattr(engine, "Launcher", lambda: launcher)
    monkeypatch.chdir(tmp_path)  # no repository, of which each run asks git what it is a version of
    beside = tmp_path_factory.mktemp("beside")
    simulation = Simulation(beside / "cluster") if request.param == "argo" else None
    return Runner(tmp_path, beside, simulation, request.function.__name__ in OWN_VALUES)


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every container's command run on this machine."""
    monkeypatch.setenv("TIDEGATE_IMAGES", '{"*": "host"}')
