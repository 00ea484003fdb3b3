"""Limits of steps: memory and cores."""

import os
from pathlib import Path

import pytest
from kfp import dsl

from tests.engines.project import Project
from tidegate.engines.local.limits import amount
from tidegate.errors import DefinitionError


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def use(megabytes: int) -> int:
    import time

    held = b"x" * (megabytes << 20)
    time.sleep(0.5)
    return len(held) >> 20


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def cores() -> list:
    import os

    return [len(os.sched_getaffinity(0)), int(os.environ["OMP_NUM_THREADS"])]


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def collects() -> bool:
    import gc

    return gc.isenabled()


@dsl.pipeline(name="memory")
def memory(megabytes: int, limit: str = "200M") -> int:
    return use(megabytes=megabytes).set_memory_limit(limit).output


def test_a_step_beyond_its_memory_limit_is_ended_and_told_so(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert project.run_traced(memory, megabytes=1).parameters == {"Output": 1}
    error = project.run_traced(memory, megabytes=400).error
    assert error
    assert error["code"] == "step-memory"
    assert "its limit is 191 MiB" in error["message"]


def test_a_limit_may_be_a_parameter(tmp_path: Path) -> None:
    assert Project(tmp_path).run_traced(memory, megabytes=250, limit="1Gi").parameters == {"Output": 250}


def test_a_cpu_limit_is_a_limit_of_cores_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    @dsl.pipeline(name="cpu")
    def cpu() -> list:
        return cores().set_cpu_limit("500m").output

    assert Project(tmp_path).run_traced(cpu).parameters == {"Output": [1, 1]}
    assert len(os.sched_getaffinity(0)) == os.cpu_count()


def test_what_a_step_no_longer_needs_is_collected(tmp_path: Path) -> None:
    @dsl.pipeline(name="garbage")
    def garbage() -> bool:
        return collects().output

    assert Project(tmp_path).run_traced(garbage).parameters == {"Output": True}


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", 0.5), ("2", 2), ("1G", 1e9), ("1Gi", 2**30), ("64Ki", 65536), ("1.5M", 1.5e6), ("1e3", 1000)],
)
def test_amounts_are_read_as_kubernetes_writes_them(text: str, value: float) -> None:
    assert amount(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "much", "-1", "1Zi", "1 G B", "nan", "1e999"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match="is no amount"):
        amount(text)
