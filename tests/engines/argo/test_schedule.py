"""Schedules: one name is one schedule, what is not ours stays as it is, and runs stay when a schedule goes."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tidegate.cron import Cron, next_moments
from tidegate.engines.argo.argument import referenced
from tidegate.engines.argo.cluster import CRON_WORKFLOW, WORKFLOW, WORKFLOW_TEMPLATE
from tidegate.engines.argo.control import MAX_INLINE
from tidegate.engines.argo.memory import MemoryCluster
from tidegate.engines.argo.packed import Packed
from tidegate.engines.argo.past import history
from tidegate.engines.argo.schedule import (
    Order,
    apply,
    differs,
    every,
    find,
    remove,
    rows,
    run_name,
    start,
    suspend,
)
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.schedule import Applied, schedule_name
from tidegate.errors import NotFound, UsageError
from tidegate.plan.build import build
from tidegate.store.blobs import blob_key
from tidegate.store.gc import DAY, Policy, collect
from tidegate.store.memory import MemoryStore
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs

NS = "pipelines"
NIGHTLY = Cron("0 3 * * *", "Europe/Berlin")
SETTINGS = ArgoSettings(image="registry.example/tidegate@sha256:" + "0" * 64)


def definition(image: str = "one") -> dict[str, Any]:
    component = {
        "executorLabel": "exec-work",
        "inputDefinitions": {"parameters": {"n": {"parameterType": "NUMBER_INTEGER"}}},
    }
    task = {
        "componentRef": {"name": "comp-work"},
        "taskInfo": {"name": "work"},
        "inputs": {"parameters": {"n": {"componentInputParameter": "n"}}},
    }
    parameters = {
        "n": {"parameterType": "NUMBER_INTEGER", "defaultValue": 1},
        "text": {"parameterType": "STRING", "isOptional": True},
    }
    return {
        "pipelineInfo": {"name": "tidal"},
        "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": {"work": task}}, "inputDefinitions": {"parameters": parameters}},
        "components": {"comp-work": component},
        "deploymentSpec": {"executors": {"exec-work": {"container": {"image": image, "command": ["true"]}}}},
    }


class Place:
    """A cluster with a store, and somebody who applies schedules there."""

    def __init__(self) -> None:
        self.cluster, self.store = MemoryCluster(), MemoryStore("schedules")

    def apply(
        self, name: str = "tidal", *, cron: Cron = NIGHTLY, settle: bool = False, image: str = "one", **given: Any
    ) -> Applied:
        packed = Packed(definition(image), {}, {"commit": "abc", "user": "me"})
        return apply(Order(name, packed, SETTINGS, given, cron, settle), self.cluster, self.store)

    def fired(self, run: str, name: str = "tidal", *, ended: bool = False) -> str:
        """A Workflow as Argo makes one of a CronWorkflow."""
        cron = self.cluster.find(CRON_WORKFLOW, name, NS)
        assert cron
        owner = {"kind": "CronWorkflow", "name": name, "uid": cron["metadata"]["uid"]}
        status = {"phase": "Succeeded", "startedAt": "2026-11-24T03:00:00Z", "finishedAt": "2026-11-24T03:01:30Z"}
        body = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": cron["spec"]["workflowSpec"]}
        meta = {
            "name": run,
            "namespace": NS,
            "labels": cron["spec"]["workflowMetadata"]["labels"],
            "ownerReferences": [owner],
        }
        self.cluster.create({**body, "metadata": meta, "status": status if ended else {"phase": "Running"}})
        return run

    def sent(self, name: str = "tidal") -> Mapping[str, str]:
        return find(self.cluster, NS, name).parameters

    def collect(self, now: float) -> None:
        collect(self.store, Policy(grace=DAY), now)


@pytest.fixture
def place() -> Place:
    return Place()


def test_the_same_name_twice_is_one_schedule_changed_in_place(place: Place) -> None:
    assert place.apply(n=1, text="kept").action == "created"
    assert place.apply(n=1, text="kept").action == "unchanged"
    again = place.apply(n=2, text="kept", cron=replace(NIGHTLY, schedule="@hourly"))
    assert (again.action, again.changes) == ("updated", ("when it runs", "parameter n"))
    assert [s.name for s in every(place.cluster, NS)] == ["tidal"]
    assert place.sent() == {"n": "2", "text": '"kept"'}
    assert find(place.cluster, NS, "tidal").expression == "@hourly"


def test_a_parameter_that_is_no_longer_given_is_gone(place: Place) -> None:
    place.apply(n=1, text="x")
    assert place.apply(text="x").changes == ("parameter n",)
    place.apply()
    assert place.sent() == {}


def test_both_objects_and_every_run_carry_our_labels(place: Place) -> None:
    place.apply()
    found = find(place.cluster, NS, "tidal")
    assert found.template
    for labels in (
        found.cron["metadata"]["labels"],
        found.template["metadata"]["labels"],
        found.spec["workflowMetadata"]["labels"],
    ):
        assert labels["app.kubernetes.io/managed-by"] == "tidegate"
        assert labels["tidegate.dev/pipeline"] == "tidal"
    assert found.packed.origin == {"commit": "abc", "user": "me"}


@pytest.mark.parametrize("kind", [CRON_WORKFLOW, WORKFLOW_TEMPLATE])
def test_a_foreign_object_is_never_changed_or_removed(place: Place, kind: Any) -> None:
    theirs = {
        "apiVersion": kind.api,
        "kind": kind.name,
        "metadata": {"name": "tidal", "namespace": NS},
        "spec": {"theirs": True},
    }
    before = place.cluster.create(theirs)
    for change in (
        place.apply,
        lambda: remove(place.cluster, NS, "tidal", place.store),
        lambda: suspend(place.cluster, NS, "tidal", True),
        lambda: find(place.cluster, NS, "tidal"),
    ):
        with pytest.raises(UsageError) as refused:
            change()
        assert refused.value.code == "schedule-foreign"
    assert place.cluster.find(kind, "tidal", NS) == before
    assert [*every(place.cluster, NS)] == []
    assert [*place.store.list("")] == []


def test_suspension_survives_an_apply_unless_said_otherwise(place: Place) -> None:
    place.apply()
    suspend(place.cluster, NS, "tidal", True)
    assert place.apply(n=5).cron.suspended
    assert find(place.cluster, NS, "tidal").suspended
    place.apply(n=5, settle=True)
    assert not find(place.cluster, NS, "tidal").suspended
    place.apply(n=5, cron=replace(NIGHTLY, suspended=True), settle=True)
    assert find(place.cluster, NS, "tidal").suspended


def test_a_schedule_that_is_removed_leaves_its_runs_and_names_those_that_go_on(place: Place) -> None:
    place.apply()
    place.fired("tidal-1795500000", ended=True)
    going = place.fired("tidal-1795586400")
    assert remove(place.cluster, NS, "tidal", place.store) == (going,)
    assert {w["metadata"]["name"] for w in place.cluster.list(WORKFLOW, NS)} == {"tidal-1795500000", going}
    assert place.cluster.find(CRON_WORKFLOW, "tidal", NS) is None
    assert place.cluster.find(WORKFLOW_TEMPLATE, "tidal", NS) is None
    with pytest.raises(NotFound, match="no schedule 'tidal'"):
        remove(place.cluster, NS, "tidal", place.store)


def test_a_name_that_is_not_there_is_answered_with_those_that_are(place: Place) -> None:
    place.apply("morning")
    with pytest.raises(NotFound) as refused:
        suspend(place.cluster, NS, "evening", True)
    assert "morning" in refused.value.allowed


@pytest.mark.parametrize("name", ["Tidal", "a_b", "-a", "a-", "a" * 53, "a.b"])
def test_a_name_that_kubernetes_has_not_is_refused_and_not_bent(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        schedule_name(name, "tidal")
    assert schedule_name("", "My Pipeline " + "x" * 80) == "my-pipeline-" + "x" * 40


def test_one_store_serves_one_schedule_of_a_name_since_runs_are_named_after_it(place: Place) -> None:
    place.apply()
    order = Order("tidal", Packed(definition(), {}), replace(SETTINGS, namespace="other"), {}, NIGHTLY)
    with pytest.raises(UsageError) as refused:
        apply(order, place.cluster, place.store)
    assert refused.value.code == "schedule-taken"
    assert [*every(place.cluster, "other")] == []
    apply(replace(order, name="tidal-2"), place.cluster, place.store)


def test_a_value_too_long_to_travel_is_a_blob_that_lives_as_long_as_its_schedule(place: Place) -> None:
    text = "x" * (MAX_INLINE + 1)
    place.apply(text=text)
    digest = referenced(place.sent()["text"])
    now = datetime.now(UTC).timestamp()
    place.collect(now + 300 * DAY)
    assert json.loads(place.store.get(blob_key(digest))) == text
    remove(place.cluster, NS, "tidal", place.store)
    place.collect(now + 300 * DAY)
    assert place.store.find(blob_key(digest)) is None


@pytest.mark.parametrize("change", ["removed", "changed"])
def test_a_run_that_has_not_read_its_long_value_keeps_it_when_the_schedule_is(
    place: Place, change: str, monkeypatch: Any
) -> None:
    place.apply(text="x" * (MAX_INLINE + 1))
    digest = referenced(place.sent()["text"])
    run = place.fired("tidal-1795586400")
    now = datetime.now(UTC).timestamp() + 2 * DAY
    monkeypatch.setattr("tidegate.store.blobs.time.time", lambda: now)  # the blob is old
    if change == "removed":
        remove(place.cluster, NS, "tidal", place.store)
    else:
        place.apply()
    place.collect(now)
    assert place.store.find(blob_key(digest))
    Runs(place.store).finish(run, OutcomeRecord("SUCCEEDED"))
    for days in (2, 4):
        place.collect(now + days * DAY)
    assert place.store.find(blob_key(digest)) is None


def test_a_schedule_that_somebody_removed_by_hand_or_whose_blobs_are_gone_can_be_removed(place: Place) -> None:
    place.apply(text="x" * (MAX_INLINE + 1))
    place.fired("tidal-1795586400")
    place.store.delete(blob_key(referenced(place.sent()["text"])))
    for kind in (CRON_WORKFLOW, WORKFLOW_TEMPLATE):
        place.cluster.delete(kind, "tidal", NS, alone=True)
    assert remove(place.cluster, NS, "tidal", place.store) == ("tidal-1795586400",)
    assert [*place.store.list("schedules")] == []


def test_the_template_stays_until_argo_has_seen_every_run(place: Place) -> None:
    place.apply()
    start(place.cluster, find(place.cluster, NS, "tidal"), {}, "tidal-1795586401")
    seen = []

    def look(_: float) -> None:
        seen.append(place.cluster.find(WORKFLOW_TEMPLATE, "tidal", NS))
        if len(seen) == 2:
            place.cluster.patch(WORKFLOW, "tidal-1795586401", NS, {"status": {"phase": "Running"}})

    remove(place.cluster, NS, "tidal", place.store, look)
    assert len(seen) == 2
    assert all(seen)


def test_a_run_right_now_has_the_parameters_of_its_schedule_and_those_given(place: Place) -> None:
    place.apply(n=1, text="kept")
    found = find(place.cluster, NS, "tidal")
    start(place.cluster, found, {"n": "7"}, run_name("tidal", 1_795_586_400))
    (run,) = place.cluster.list(WORKFLOW, NS)
    assert run["spec"]["workflowTemplateRef"] == {"name": "tidal"}
    assert run["spec"]["arguments"]["parameters"] == [{"name": "n", "value": "7"}, {"name": "text", "value": '"kept"'}]
    assert run["metadata"]["ownerReferences"][0]["uid"] == found.cron["metadata"]["uid"]
    assert run["metadata"]["labels"]["workflows.argoproj.io/cron-workflow"] == "tidal"
    assert [p.run_id for p in history(place.cluster, NS, "tidal", None)] == ["tidal-1795586401"]


def test_a_run_right_now_never_takes_the_name_of_one_by_the_clock() -> None:
    assert all(int(run_name("a", second).rpartition("-")[2]) % 60 for second in range(1_795_586_390, 1_795_586_520))


def test_history_has_workflows_and_what_only_the_store_remembers_newest_first(place: Place) -> None:
    place.apply()
    place.fired("tidal-1795489200", ended=True)  # 03:00 UTC
    runs = Runs(place.store)
    for run in ("tidal-1795402800", "tidal-1795316400", "tidal-again-1795489200", "20261120-030000-abcdef"):
        runs.create(RunRecord(run, "tidal", "sha256:0"))
    runs.finish("tidal-1795402800", OutcomeRecord("FAILED", seconds=12.0))
    found = history(place.cluster, NS, "tidal", runs)
    assert [(p.run_id, p.state, p.seconds) for p in found] == [
        ("tidal-1795489200", "SUCCEEDED", 90.0),
        ("tidal-1795402800", "FAILED", 12.0),
        ("tidal-1795316400", "UNKNOWN", None),
    ]
    assert [p.run_id for p in history(place.cluster, NS, "tidal", runs, 1)] == ["tidal-1795489200"]


def test_a_row_has_the_next_moment_the_last_run_and_what_argo_complains_of(place: Place) -> None:
    place.apply()
    place.fired("tidal-1795586400")
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    (row,) = rows(place.cluster, NS, None, now)
    assert row.next == datetime(2026, 11, 25, 2, tzinfo=UTC)
    assert row.last
    assert (row.last.run_id, row.last.state) == ("tidal-1795586400", "RUNNING")
    conditions = {"conditions": [{"type": "SpecError", "message": "no such template", "status": "True"}]}
    place.cluster.patch(CRON_WORKFLOW, "tidal", NS, {"spec": {"suspend": True}, "status": conditions})
    (row,) = rows(place.cluster, NS, None, now)
    assert row.next is None
    assert row.schedule.trouble == "no such template"


def test_a_schedule_whose_definition_is_not_the_working_trees_is_told(place: Place) -> None:
    place.apply()
    plan = build(definition(), {})
    assert differs(find(place.cluster, NS, "tidal"), plan) is False
    assert differs(find(place.cluster, NS, "tidal"), build(definition("two"), {})) is True
    assert differs(find(place.cluster, NS, "tidal"), replace(plan, name="another")) is None
    assert place.apply(image="two").changes == ("the definition",)
    place.cluster.delete(WORKFLOW_TEMPLATE, "tidal", NS)
    assert differs(find(place.cluster, NS, "tidal"), plan) is True
    with pytest.raises(NotFound) as refused:
        _ = find(place.cluster, NS, "tidal").packed
    assert refused.value.code == "schedule-broken"


def test_the_next_moments_are_in_the_schedules_own_zone() -> None:
    found = next_moments(NIGHTLY, datetime(2026, 3, 28, tzinfo=UTC))
    assert [m.isoformat() for m in found] == [
        "2026-03-28T03:00:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T03:00:00+02:00",
    ]
