"""Shared by every test: the long and the cluster switch, and an environment in which nothing of the developer's leaks in."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# a busy machine is no failure
settings.register_profile("tidegate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tidegate")

# every process of thousands would compile our modules again
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# the other cores are the other workers': threads that wait for each other spin, and a fit of a second takes a minute
os.environ.setdefault("OMP_NUM_THREADS", "1")

LONG = os.environ.get("TIDEGATE_LONG") == "1"
CLUSTER = os.environ.get("TIDEGATE_TEST_CLUSTER") == "1"


# nohup, and shells for what runs in the background, let us ignore what tests send to processes of theirs
for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in list(os.environ):
        if name.startswith(("TIDEGATE_", "MLFLOW_", "METAFLOW_")) and name not in (
            "TIDEGATE_LONG",
            "TIDEGATE_TEST_CLUSTER",
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path_factory.getbasetemp() / "no-settings"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave the modules of all tests out of every look of the garbage collector: they stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)  # after they were shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the long setting, and what needs a cluster, unless asked for; begin with what takes longest."""
    items.sort(key=lambda item: not item.get_closest_marker("early"))
    for item in items:
        if item.get_closest_marker("long") and not LONG:
            item.add_marker(pytest.mark.skip(reason="the long setting: TIDEGATE_LONG=1"))
        if item.get_closest_marker("cluster") and not CLUSTER:
            item.add_marker(pytest.mark.skip(reason="needs a cluster: TIDEGATE_TEST_CLUSTER=1 KUBECONFIG=…"))
