"""A run on KFP, on a backend in memory: started once whatever breaks off, watched to its end, told as everywhere."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tidegate.engines.base import Arguments
from tidegate.engines.kfp.backend import BackendRun, Detail, Start
from tidegate.engines.kfp.engine import DETACH, KfpEngine
from tidegate.engines.kfp.memory import MemoryBackend
from tidegate.engines.kfp.settings import KfpSettings
from tidegate.engines.kfp.start import Submission, begin, resume, settle
from tidegate.engines.kfp.tree import node_id
from tidegate.errors import ClusterError, Conflict, DefinitionError, ParameterError, WatchLost
from tidegate.ir.load import Definition
from tidegate.plan.build import build
from tidegate.plan.events import CANCELED, FAILED, RUNNING, SKIPPED, SUCCEEDED, Event, Notice, StepFinished, StepLog
from tidegate.store.memory import MemoryStore
from tidegate.store.runs import RunRecord, Runs, StepRecord

SETTINGS = KfpSettings(experiment="sea")


def spec(**root: Any) -> dict[str, Any]:
    """Two steps: ``own``, a component of ours, then ``theirs``."""
    own = {"command": ["python", "-m", "tidegate.author.step"], "args": ["--function_to_execute", "m:f"], "image": "i"}
    number = {"parameters": {"Output": {"parameterType": "NUMBER_INTEGER"}}}
    return {
        "pipelineInfo": {"name": "tidal"},
        "components": {
            "comp-own": {"executorLabel": "exec-own", "outputDefinitions": number},
            "comp-theirs": {"executorLabel": "exec-theirs", "outputDefinitions": number},
        },
        "deploymentSpec": {
            "executors": {
                "exec-own": {"container": own},
                "exec-theirs": {"container": {"image": "x", "command": ["w"]}},
            }
        },
        "root": {
            "inputDefinitions": {"parameters": {"n": {"parameterType": "NUMBER_INTEGER", "defaultValue": 1}}},
            "outputDefinitions": {
                "parameters": {"a": number["parameters"]["Output"], "b": number["parameters"]["Output"]}
            },
            "dag": {
                "tasks": {
                    "own": {"componentRef": {"name": "comp-own"}, "cachingOptions": {"enableCache": True}},
                    "theirs": {"componentRef": {"name": "comp-theirs"}, "dependentTasks": ["own"]},
                },
                "outputs": {
                    "parameters": {
                        n: {"valueFromParameter": {"producerSubtask": t, "outputParameterKey": "Output"}}
                        for n, t in (("a", "own"), ("b", "theirs"))
                    }
                },
            },
            **root,
        },
    }


DEFINITION = Definition(spec())
PLAN = build(DEFINITION.spec)


def node(task: str, state: str, *, driver: str = "SUCCEEDED", error: str = "") -> list[Detail]:
    below = node_id("w", f"w.root.{task}.executor")
    return [
        Detail(f"{task}-driver", driver, started=1.0, ended=2.0, pods=(node_id("w", f"w.root.{task}"),)),
        Detail(task, state, started=2.0, ended=9.0, pods=(below,) if state != "SKIPPED" else (), error=error),
    ]


ROOT = Detail("w", "RUNNING", pods=(node_id("w", "w.root-driver"),))


class Place:
    def __init__(self) -> None:
        self.backend, self.store, self.events, self.now = MemoryBackend(), MemoryStore("team"), list[Event](), 0.0
        self.runs, self.plays = Runs(self.store), list[Callable[[str], None]]()

    def begin(self, **how: Any) -> KfpEngine:
        record = RunRecord("typed", "tidal", PLAN.digest, {"n": 2}, "kfp", commit="c0ffee00aa")
        return begin(DEFINITION, PLAN, record, self.store, self.backend, SETTINGS, Submission(**how))

    def watch(self, engine: KfpEngine, *plays: Callable[[str], None], interrupted: str = "stop") -> Any:
        """Watch a run, playing KFP between two looks."""
        todo = list(plays)

        def pause(seconds: float) -> None:
            self.now += seconds
            if todo:
                todo.pop(0)(engine.record.id)

        watched = KfpEngine(
            engine.store, engine.backend, engine.record, engine.link, logs=True, interrupted=lambda: interrupted,
            before=engine.before, clock=lambda: self.now, pause=pause,
        )  # fmt: skip
        return watched.run(PLAN, Arguments(), self.events.append)

    def tell(self, state: str, *nodes: Sequence[Detail]) -> Callable[[str], None]:
        return lambda run_id: self.backend.tell(run_id, state, [ROOT, *(d for n in nodes for d in n)])

    def record(self, run_id: str, state: str = SUCCEEDED, **more: Any) -> None:
        outputs = {"parameters": {"Output": 7}, "artifacts": {}}
        self.runs.step(run_id, StepRecord("own", state, seconds=1.5, outputs=outputs, **more))

    def finished(self) -> dict[str, StepFinished]:
        return {e.step: e for e in self.events if isinstance(e, StepFinished)}

    def notices(self) -> list[str]:
        return [e.text for e in self.events if isinstance(e, Notice)]


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_run_is_told_from_the_records_of_our_steps_and_from_kfp_for_the_others(place: Place) -> None:
    engine = place.begin()
    place.record(engine.record.id)
    done = place.watch(
        engine,
        place.tell("RUNNING", node("own", "RUNNING")),
        place.tell("RUNNING", node("own", "SUCCEEDED"), node("theirs", "RUNNING")),
        place.tell("SUCCEEDED", node("own", "SUCCEEDED"), node("theirs", "SUCCEEDED")),
    )
    assert (done.state, done.run_id, done.parameters) == (SUCCEEDED, engine.record.id, {"a": 7})
    assert {s: (f.state, f.seconds) for s, f in place.finished().items()} == {
        "own": (SUCCEEDED, 1.5),
        "theirs": (SUCCEEDED, 8.0),
    }
    assert "known to Kubeflow Pipelines only: b" in place.notices()


def test_what_kfp_served_from_its_own_cache_is_told_as_cached(place: Place) -> None:
    engine = place.begin()
    place.record(engine.record.id)
    place.watch(engine, place.tell("SUCCEEDED", node("own", "SUCCEEDED"), node("theirs", "SKIPPED")))
    assert (place.finished()["theirs"].state, place.finished()["theirs"].cached) == (SUCCEEDED, True)


def test_a_failed_step_of_ours_says_why_and_what_never_ran_is_skipped(place: Place) -> None:
    engine = place.begin()
    place.record(engine.record.id, FAILED, error={"code": "step-failed", "message": "ValueError: n"})
    done = place.watch(engine, place.tell("FAILED", node("own", "FAILED")))
    assert (done.state, done.error) == (FAILED, {"code": "step-failed", "message": "ValueError: n", "step": "own"})
    assert place.finished()["theirs"].state == SKIPPED


def test_a_failure_of_which_only_kfp_knows_names_the_step_and_where_to_look(place: Place) -> None:
    engine = place.begin()
    place.record(engine.record.id)
    done = place.watch(
        engine, place.tell("FAILED", node("own", "SUCCEEDED"), node("theirs", "FAILED", error="OOMKilled"))
    )
    assert done.error
    assert (done.error["code"], done.error["message"], done.error["step"]) == ("kfp-step-failed", "OOMKilled", "theirs")
    assert engine.record.id in done.error["hint"]


def test_a_step_of_ours_that_failed_without_a_record_points_to_the_store_also_where_kfp_tells_of_it_late(
    place: Place,
) -> None:
    engine = place.begin()
    done = place.watch(
        engine, place.tell("RUNNING", node("own", "RUNNING")), place.tell("FAILED", node("own", "RUNNING")),
        place.tell("FAILED", node("own", "FAILED")),
    )  # fmt: skip
    assert done.error
    assert (done.error["code"], done.error["step"]) == ("kfp-step-failed", "own")
    assert "left no record in" in done.error["message"]


def test_a_step_that_succeeded_without_a_record_means_two_stores(place: Place) -> None:
    engine = place.begin()
    with pytest.raises(WatchLost) as lost:
        place.watch(engine, place.tell("RUNNING", node("own", "SUCCEEDED")))
    assert lost.value.code == "kfp-store-differs"


def test_what_a_step_writes_is_passed_on_line_by_line_once(place: Place, tmp_path: Path) -> None:
    engine = place.begin()
    key = f"runs/{engine.record.id}/logs"
    assert key
    log = [b"one\ntw", b"one\ntwo\n"]

    def write(run_id: str) -> None:
        (tmp_path / "log").write_bytes(log.pop(0))
        place.runs.write_log(run_id, "own", tmp_path / "log")
        place.tell("RUNNING", node("own", "RUNNING"))(run_id)

    place.record(engine.record.id)
    place.watch(engine, write, write, place.tell("SUCCEEDED", node("own", "SUCCEEDED"), node("theirs", "SUCCEEDED")))
    assert [e.line for e in place.events if isinstance(e, StepLog)] == ["one", "two"]


def test_ctrl_c_ends_the_run_or_leaves_it(place: Place) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    engine = place.begin()
    left = place.watch(engine, interrupt, interrupted=DETACH)
    assert (left.state, place.backend.run(engine.record.id).state) == (RUNNING, "PENDING")
    ended = place.watch(engine, interrupt)
    assert (ended.state, place.backend.run(engine.record.id).state) == (CANCELED, "FAILED")


def test_a_backend_that_is_away_for_a_while_is_waited_for_and_one_that_denies_us_is_not(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = place.begin()
    place.record(engine.record.id)
    answers = [ClusterError("no answer", code="kfp-unreachable")] * 3
    real = place.backend.run

    def away(run_id: str) -> BackendRun:
        if answers:
            raise answers.pop()
        return real(run_id)

    monkeypatch.setattr(place.backend, "run", away)
    assert place.watch(
        engine, place.tell("SUCCEEDED", node("own", "SUCCEEDED"), node("theirs", "SUCCEEDED"))
    ).state == SUCCEEDED  # fmt: skip
    assert sum("does not answer" in n for n in place.notices()) == 3
    answers.append(ClusterError("401", code="cluster-denied"))
    with pytest.raises(WatchLost, match="can no longer be watched"):
        place.watch(engine)


def test_a_run_that_somebody_deleted_is_said_to_be_lost(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = place.begin()
    monkeypatch.setattr(place.backend, "_runs", {})
    with pytest.raises(WatchLost, match="does not know it"):
        place.watch(engine)


def test_a_version_is_made_once_for_a_definition_and_named_by_its_digest_and_commit(place: Place) -> None:
    first, second = place.begin(), place.begin()
    one, two = (place.backend.starts[e.record.id].version for e in (first, second))
    assert one == two
    assert one.name.endswith("-c0ffee00")
    assert len(place.backend.packages) == 1


def test_a_start_whose_answer_was_lost_starts_nothing_twice(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = place.backend.start

    def lost(start: Start) -> BackendRun:
        real(start)
        raise ClusterError("timed out", code="kfp-unreachable")

    monkeypatch.setattr(place.backend, "start", lost)
    monkeypatch.setattr("time.sleep", lambda _: None)
    engine = place.begin()
    assert list(place.backend.starts) == [engine.record.id]
    assert place.runs.read(engine.record.id).parameters == {"n": 2}


def test_a_run_of_a_name_that_was_begun_is_gone_on_with(place: Place) -> None:
    first = place.begin()
    assert place.begin(again=True).record.id == first.record.id
    assert place.runs.named("typed") == first.record.id, "whoever knows only the name finds the run by it"
    assert place.backend.retried == []
    place.backend.tell(first.record.id, "FAILED")
    assert place.begin(again=True).record.id == first.record.id
    assert place.backend.retried == [first.record.id]


def test_only_a_run_that_did_not_succeed_is_resumed(place: Place) -> None:
    engine = place.begin()
    place.backend.tell(engine.record.id, "FAILED")
    resume(engine.record, PLAN, place.store, place.backend, SETTINGS, Submission())
    assert place.backend.retried == [engine.record.id]
    place.backend.tell(engine.record.id, "SUCCEEDED")
    with pytest.raises(Conflict, match="succeeded"):
        resume(engine.record, PLAN, place.store, place.backend, SETTINGS, Submission())


def test_what_had_succeeded_before_a_run_was_resumed_is_told_apart(place: Place) -> None:
    engine = place.begin()
    place.record(engine.record.id)
    place.tell("FAILED", node("own", "SUCCEEDED"), node("theirs", "FAILED"))(engine.record.id)
    resumed = resume(engine.record, PLAN, place.store, place.backend, SETTINGS, Submission())
    ends = place.tell("SUCCEEDED", node("own", "SUCCEEDED"), node("theirs", "SUCCEEDED"))
    assert [(s.step, s.kept, s.cached) for s in place.watch(resumed, ends).steps] == [
        ("own", True, True),
        ("theirs", False, False),
    ]
    again = place.begin()
    place.tell("FAILED", node("theirs", "SUCCEEDED"), node("own", "FAILED"))(again.record.id)
    resumed = resume(again.record, PLAN, place.store, place.backend, SETTINGS, Submission())
    place.record(again.record.id)
    assert {s.step: s.kept for s in place.watch(resumed, ends).steps} == {"own": False, "theirs": True}


def test_how_a_run_ended_that_nobody_watched_is_written_when_somebody_looks(place: Place) -> None:
    engine = place.begin()
    assert settle(engine.record.id, place.store, place.backend, SETTINGS) is None
    place.record(engine.record.id)
    place.tell("SUCCEEDED", node("own", "SUCCEEDED"), node("theirs", "SUCCEEDED"))(engine.record.id)
    settle(engine.record.id, place.store, place.backend, SETTINGS)
    outcome = place.runs.outcome(engine.record.id)
    assert outcome
    assert (outcome.state, outcome.outputs["parameters"]) == (SUCCEEDED, {"a": 7})


@pytest.mark.parametrize(
    ("root", "settings", "code"),
    [
        ({"inputDefinitions": {"artifacts": {"x": {"artifactType": {"schemaTitle": "system.Model"}}}}}, {}, "kfp-root-artifact"),
        ({}, {"pipelineConfig": {"activeDeadlineSeconds": 60}}, "kfp-active-deadline-seconds"),
        ({}, {"pipelineConfig": {"workspace": {"size": "1Gi"}}}, "kfp-workspace"),
        ({}, {"deploymentSpec": {"executors": {"exec-own": {"securityContext": {"runAsUser": 1}}}}}, "kfp-security-context"),
    ],
)  # fmt: skip
def test_what_the_backend_cannot_do_is_refused_with_its_code_and_later_servers_may_know_it(
    place: Place, root: dict[str, Any], settings: dict[str, Any], code: str
) -> None:
    definition = Definition(spec(**root), {"kubernetes": settings})
    plan = build(definition.spec, definition.platforms)
    record = RunRecord("typed", "tidal", plan.digest, {})
    with pytest.raises(DefinitionError) as refused:
        begin(definition, plan, record, place.store, place.backend, SETTINGS, Submission())
    assert refused.value.code == code
    assert not place.backend.packages
    if settings:
        begin(definition, plan, record, place.store, MemoryBackend("2.17.0"), SETTINGS, Submission())


@pytest.mark.parametrize("value", [float("nan"), 2**60, "x" * 200_000])
def test_a_parameter_that_kfp_would_change_is_refused_before_anything_is_sent(place: Place, value: Any) -> None:
    record = RunRecord("typed", "tidal", PLAN.digest, {"n": value})
    with pytest.raises(ParameterError, match="the parameter 'n'"):
        begin(DEFINITION, PLAN, record, place.store, place.backend, SETTINGS, Submission())
    assert not place.backend.packages


def test_ctrl_c_after_the_end_is_the_end_and_before_an_end_that_does_not_come_the_run_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    engine = place.begin()
    monkeypatch.setattr(place.backend, "terminate", lambda _: None)
    assert place.watch(engine, interrupt).state == RUNNING
    place.record(engine.record.id)
    place.tell("SUCCEEDED", node("own", "SUCCEEDED"), node("theirs", "SUCCEEDED"))(engine.record.id)
    late = place.watch(engine, interrupt)
    assert late.state == SUCCEEDED


def test_a_name_that_another_run_has_is_refused(place: Place) -> None:
    place.begin()
    other = RunRecord("typed", "tidal", PLAN.digest, {"n": 3}, "kfp")
    with pytest.raises(Conflict, match="other parameters"):
        begin(DEFINITION, PLAN, other, place.store, place.backend, SETTINGS, Submission(again=True))
