"""Run records: written by any engine, read the same, and one bad record hides no other."""

from __future__ import annotations

import math

import pytest

from tidegate.errors import Damaged, NotFound
from tidegate.store.memory import MemoryStore
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs, StepRecord, iso, new_run_id


@pytest.fixture
def runs() -> Runs:
    return Runs(MemoryStore())


def test_records_come_back_as_they_were_numbers_that_are_none_included(runs: Runs) -> None:
    record = RunRecord("r", "p", "d", {"x": math.inf, "n": 1, "big": 2**70, "nested": [{"a": [1, 1.0]}]}, user="ä")
    runs.create(record)
    assert runs.read("r") == record
    assert runs.outcome("r") is None
    runs.finish("r", OutcomeRecord("SUCCEEDED", {"parameters": {"m": math.nan}}))
    outcome = runs.outcome("r")
    assert outcome
    assert math.isnan(outcome.outputs["parameters"]["m"])


@pytest.mark.parametrize("path", ["outer/for-loop-1[2]/train", "../../etc/passwd", "a\0b", "ü" * 400, "", "a b/c:d"])
def test_a_steps_name_is_never_a_path(runs: Runs, path: str) -> None:
    runs.create(RunRecord("r", "p", "d"))
    runs.step("r", StepRecord(path, "SUCCEEDED"))
    assert [s.path for s in runs.steps("r")] == [path]
    assert all(e.key.startswith("runs/") for e in runs.store.list(""))


def test_steps_come_in_the_order_in_which_they_ended_and_a_retry_replaces(runs: Runs) -> None:
    runs.create(RunRecord("r", "p", "d"))
    for path, state, ended in (("b", "FAILED", 1.0), ("a", "SUCCEEDED", 2.0), ("b", "SUCCEEDED", 3.0)):
        runs.step("r", StepRecord(path, state, ended=ended))
    assert [(s.path, s.state) for s in runs.steps("r")] == [("a", "SUCCEEDED"), ("b", "SUCCEEDED")]


def test_ids_sort_by_time_and_the_newest_is_listed_first(runs: Runs) -> None:
    ids = [new_run_id(t) for t in (0, 1, 86_400 * 400)]
    assert ids == sorted(ids)
    for run_id in ids:
        runs.create(RunRecord(run_id, "p", "d"))
    assert [r.id for r in runs.list(2)] == ids[:0:-1]
    assert runs.last() == ids[-1]


def test_runs_that_somebody_else_named_are_listed_where_they_began(runs: Runs) -> None:
    began = 1_795_500_000
    runs.create(RunRecord("iris-x7k2p", "iris", "d", created=iso(began + 3)))
    ids = [new_run_id(began + 1), f"iris-{began + 2}", "iris-x7k2p", new_run_id(began + 4)]
    for run in (ids[3], ids[0], ids[1]):
        runs.create(RunRecord(run, "iris", "d"))
    assert [r.id for r in runs.list(9)] == ids[::-1]
    assert [r.id for r in runs.list(2)] == ids[:1:-1]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"id": 1}', b'{"unknown": 1}', b"\xff"])
def test_a_record_that_cannot_be_read_is_damage_and_hides_no_other(runs: Runs, text: bytes) -> None:
    runs.create(RunRecord("good", "p", "d"))
    runs.store.put("runs/bad/run.json", text)
    runs.store.put("runs/half/steps/x.json", b"{}")
    with pytest.raises(Damaged):
        runs.read("bad")
    assert [r.id for r in runs.list(10)] == ["good"]


@pytest.mark.parametrize("run_id", ["none", "../x", "", "a/b", "x" * 300])
def test_a_run_that_is_not_there_is_said(runs: Runs, run_id: str) -> None:
    with pytest.raises(NotFound):
        runs.read(run_id)
