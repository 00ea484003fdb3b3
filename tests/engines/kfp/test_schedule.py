"""Recurring runs that KFP can only make and delete, changed all the same: never twice, never none, nothing killed."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.engines.kfp.test_engine import DEFINITION, PLAN
from tidegate.cron import Cron
from tidegate.engines.kfp.backend import Recurrence, Recurring, Version
from tidegate.engines.kfp.memory import MemoryBackend
from tidegate.engines.kfp.schedule import KfpScheduler, Note, recurrence
from tidegate.engines.kfp.settings import KfpSettings
from tidegate.engines.schedule import Applied, Order
from tidegate.errors import ClusterError, ConfigError, Conflict, NotFound, UsageError
from tidegate.ir.load import Definition
from tidegate.plan.build import build
from tidegate.store.memory import MemoryStore
from tidegate.store.runs import RunRecord, Runs

SETTINGS = KfpSettings(experiment="sea")
NIGHTLY = Cron("0 3 * * *")


class Place:
    def __init__(self) -> None:
        self.now = 1_000.0
        self.backend, self.store = MemoryBackend(clock=self._later), MemoryStore("team")
        self.scheduler = KfpScheduler(self.backend, SETTINGS, self.store)

    def _later(self) -> float:
        self.now += 1
        return self.now

    def order(
        self, cron: Cron = NIGHTLY, *, settle: bool = False, image: str = "i", source: str = "", **given: Any
    ) -> Order:
        spec = {**DEFINITION.spec, "root": {**DEFINITION.spec["root"]}}
        if image != "i":
            executors = spec["deploymentSpec"]["executors"]
            own = {"container": {**executors["exec-own"]["container"], "image": image}}
            spec["deploymentSpec"] = {"executors": {**executors, "exec-own": own}}
        plan = build(spec)
        record = RunRecord("typed", "tidal", plan.digest, user="ann", commit="c0ffee")
        return Order("nightly", Definition(spec), plan, record, given, cron, settle, source)

    def apply(self, *args: Any, **kw: Any) -> Applied:
        return self.scheduler.apply(self.order(*args, **kw))

    @property
    def there(self) -> list[Recurring]:
        return list(self.backend.recurring(self.backend.experiment("sea")))

    @property
    def enabled(self) -> list[Recurring]:
        return [r for r in self.there if r.enabled]


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_schedule_is_a_recurring_run_with_six_fields_and_typed_parameters(place: Place) -> None:
    assert place.apply(n=3).action == "created"
    [made] = place.there
    assert (made.name, made.when, made.parameters, made.enabled) == (
        "nightly",
        Recurrence("0 0 3 * * *"),
        {"n": 3},
        True,
    )
    assert len(made.description) <= 255


def test_the_second_time_nothing_changes(place: Place) -> None:
    place.apply(n=3)
    before = place.there
    assert place.apply(n=3).action == "unchanged"
    assert place.there == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 4}, "parameter n"),
        ({"cron": Cron("30 3 * * *"), "n": 3}, "when it runs"),
        ({"cron": Cron("0 3 * * *", concurrency="Allow"), "n": 3}, "overlap"),
        ({"image": "other", "n": 3}, "the definition"),
        ({"source": "team", "n": 3}, "whose it is"),
    ],
)
def test_a_change_leaves_one_enabled_recurring_run_which_is_the_new_one(
    place: Place, change: dict[str, Any], said: str
) -> None:
    place.apply(n=3)
    [old] = place.there
    assert place.scheduler.compare(place.order(**change)).changes == (said,)
    assert place.there == [old]
    assert place.apply(**change).changes == (said,)
    [new] = place.there
    assert new.id != old.id
    assert new.enabled
    assert place.apply(**change).action == "unchanged"


def test_a_schedule_that_is_suspended_stays_so_until_it_is_settled(place: Place) -> None:
    place.apply(n=3)
    place.scheduler.suspend("nightly", True)
    assert place.apply(n=4).cron.suspended
    assert place.enabled == []
    assert place.apply(settle=True, n=4).changes == ("suspension",)
    assert [r.parameters for r in place.enabled] == [{"n": 4}]


def test_a_run_that_goes_on_is_not_ended_by_a_change_and_what_was_left_is_tidied_when_it_has(place: Place) -> None:
    place.apply(n=3)
    run = place.backend.fire(place.there[0].id)
    place.apply(n=4)
    assert [(r.parameters, r.enabled) for r in place.there] == [({"n": 3}, False), ({"n": 4}, True)]
    with pytest.raises(ClusterError):
        place.backend.fire(place.there[0].id)
    place.backend.tell(run.id, "SUCCEEDED")
    assert place.apply(n=4).action == "unchanged"
    assert [r.parameters for r in place.there] == [{"n": 4}]


def test_the_history_of_a_schedule_goes_beyond_its_changes(place: Place) -> None:
    runs = []
    for n in (1, 2, 3):
        place.apply(n=n)
        run = place.backend.fire(place.enabled[0].id)
        place.backend.tell(run.id, "SUCCEEDED")
        runs.append(run.id)
    assert [p.run_id for p in place.scheduler.history("nightly", 10)] == runs[::-1]
    assert [p.run_id for p in place.scheduler.history("nightly", 2)] == runs[:0:-1]


VERBS = ("upload", "recur", "enable", "remove", "recurring", "find_version", "experiment", "runs")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_whatever_breaks_off_nothing_is_enabled_twice_and_the_next_apply_mends_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, verb: str, number: int, done: bool
) -> None:
    place.apply(n=3)
    real, calls = getattr(place.backend, verb), [0]

    def broken(*args: Any, **kw: Any) -> Any:
        calls[0] += 1
        if calls[0] - 1 != number:
            return real(*args, **kw)
        if done:
            real(*args, **kw)
        raise ClusterError("the answer was lost", code="kfp-unreachable")

    monkeypatch.setattr(place.backend, verb, broken)
    try:
        place.apply(n=4)
    except ClusterError:
        assert len(place.enabled) <= 1
    monkeypatch.setattr(place.backend, verb, real)
    place.apply(n=4)
    assert [r.parameters for r in place.enabled] == [{"n": 4}]
    assert place.apply(n=4).action == "unchanged"
    assert len(place.there) == 1


def test_what_somebody_else_made_is_never_touched(place: Place) -> None:
    theirs = Recurring("", "nightly", place.backend.experiment("sea"), Version("p", "v", ""), Recurrence("0 0 1 * * *"))
    theirs = place.backend.recur(theirs)
    place.apply(n=3)
    place.apply(n=4)
    place.scheduler.remove("nightly")
    assert place.there == [theirs]
    with pytest.raises(NotFound, match="none is yet"):
        place.scheduler.suspend("nightly", True)


def test_a_schedule_with_a_run_that_goes_on_is_suspended_and_not_removed(place: Place) -> None:
    place.apply(n=3)
    run = place.backend.fire(place.there[0].id)
    with pytest.raises(Conflict, match=run.id):
        place.scheduler.remove("nightly")
    assert place.enabled == []
    place.backend.tell(run.id, "FAILED")
    assert place.scheduler.remove("nightly") == ()
    assert place.there == []


def test_a_run_now_has_the_schedule_s_parameters_and_those_that_are_given(place: Place) -> None:
    place.apply(n=3)
    run_id = place.scheduler.start("nightly", {"m": 1})
    assert place.backend.run(run_id).parameters == {"n": 3, "m": 1}
    assert Runs(place.store).read(run_id).plan_digest == PLAN.digest
    assert place.scheduler.plan("nightly").digest == PLAN.digest


def test_the_list_says_when_it_runs_next_and_whether_the_tree_differs(place: Place) -> None:
    place.apply(n=3)
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    [standing] = place.scheduler.every(now, PLAN)
    assert (standing.name, standing.expression, standing.zone, standing.drift) == ("nightly", "0 3 * * *", "UTC", False)
    assert standing.next == datetime(2026, 11, 27, 3, tzinfo=UTC)
    [standing] = place.scheduler.every(now, replace(PLAN, digest="sha256:other"))
    assert standing.drift
    [standing] = place.scheduler.every(now, replace(PLAN, name="other"))
    assert standing.drift is None


def test_schedules_of_a_file_that_are_not_in_it_any_more_are_known_by_their_source(place: Place) -> None:
    place.apply(n=3, source="team")
    assert place.scheduler.unwritten("team", set()) == ["nightly"]
    assert place.scheduler.unwritten("team", {"nightly"}) == []
    assert place.scheduler.unwritten("other", set()) == []


@pytest.mark.parametrize(
    ("cron", "made"),
    [
        (Cron("*/5 8-17 * * mon-fri"), Recurrence("0 */5 8-17 * * mon-fri")),
        (Cron("@daily"), Recurrence("0 0 0 * * *")),
        (Cron("0 3 * * *", concurrency="Allow"), Recurrence("0 0 3 * * *", concurrency=10)),
        (Cron("", every=3600), Recurrence(every=3600)),
    ],
)
def test_five_fields_become_six_with_seconds_first(cron: Cron, made: Recurrence) -> None:
    assert recurrence(cron) == made


@pytest.mark.parametrize(
    ("cron", "code"),
    [
        (Cron("0 3 * * *", "Europe/Berlin"), "kfp-timezone"),
        (Cron("0 3 * * *", concurrency="Replace"), "kfp-concurrency"),
        (Cron("0 0 3 * * *"), "cron-invalid"),
        (Cron("0 3 * * 7"), "cron-invalid"),
    ],
)
def test_what_cannot_be_said_to_kfp_is_refused_before_anything_is_sent(place: Place, cron: Cron, code: str) -> None:
    with pytest.raises(UsageError) as refused:
        place.apply(cron, n=3)
    assert refused.value.code == code
    assert place.there == []


def test_an_installation_may_read_cron_in_another_zone() -> None:
    assert recurrence(Cron("0 3 * * *", "Europe/Berlin"), "Europe/Berlin") == Recurrence("0 0 3 * * *")


def test_a_server_that_does_not_enable_what_it_made_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.backend, "enable", lambda *_: None)
    with pytest.raises(ClusterError, match="did not enable"):
        place.apply(n=3)


def test_a_change_that_kfp_refuses_is_said_and_leaves_what_was(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.apply(n=3)

    def refused(_: Recurring) -> Recurring:
        raise ClusterError("quota", code="kfp-refused")

    monkeypatch.setattr(place.backend, "recur", refused)
    with pytest.raises(ClusterError, match="quota"):
        place.apply(n=4)
    assert [r.parameters for r in place.enabled] == [{"n": 3}]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("verb", ["recur", "enable"])
@pytest.mark.parametrize("going", [False, True])
def test_of_two_people_who_apply_at_once_one_has_the_schedule_and_one_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, before: bool, verb: str, going: bool
) -> None:
    if before:
        place.apply(n=3)
        if going:
            place.backend.fire(place.there[0].id)
    real, told = getattr(place.backend, verb), list[str]()

    def raced(*args: Any) -> Any:
        monkeypatch.setattr(place.backend, verb, real)
        place.apply(n=5)
        return real(*args)

    monkeypatch.setattr(place.backend, verb, raced)
    try:
        place.apply(n=4)
    except (Conflict, NotFound) as e:
        told.append(e.code)
    assert len(place.enabled) == 1
    place.apply(n=6)
    assert [r.parameters for r in place.enabled] == [{"n": 6}]


def test_a_long_run_behind_many_short_ones_is_not_ended_either(place: Place) -> None:
    place.apply(Cron("0 3 * * *", concurrency="Allow"), n=3)
    [old] = place.there
    place.backend.fire(old.id)
    for _ in range(12):
        place.backend.tell(place.backend.fire(old.id).id, "SUCCEEDED")
    place.apply(Cron("0 3 * * *", concurrency="Allow"), n=4)
    assert old.id in {r.id for r in place.there}


def test_a_run_now_whose_answer_was_lost_is_started_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.apply(n=3)
    real = place.backend.start

    def lost(start: Any) -> Any:
        real(start)
        raise ClusterError("timed out", code="kfp-unreachable")

    monkeypatch.setattr(place.backend, "start", lost)
    monkeypatch.setattr("time.sleep", lambda _: None)
    run = place.scheduler.start("nightly", {})
    assert list(place.backend.starts) == [run]


def test_removing_takes_back_a_change_that_broke_off(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.apply(n=3)
    run = place.backend.fire(place.there[0].id)
    real = place.backend.enable
    monkeypatch.setattr(place.backend, "enable", lambda i, on: real(i, on) if not on else _broken())
    with pytest.raises(ClusterError):
        place.apply(n=4)
    monkeypatch.setattr(place.backend, "enable", real)
    with pytest.raises(Conflict, match=run.id):
        place.scheduler.remove("nightly")
    place.apply(n=4)
    assert place.enabled == []


def _broken() -> None:
    raise ClusterError("broke off", code="kfp-unreachable")


def test_a_note_of_long_names_fits(place: Place) -> None:
    note = Note("sha256:" + "0" * 64, "p" * 40, "ü" * 40, "利用者" * 10)
    assert len(note.text()) <= 255
    assert place


def test_without_a_store_that_pods_reach_one_is_asked_for(place: Place) -> None:
    place.apply(n=3)
    alone = KfpScheduler(place.backend, SETTINGS, None)
    with pytest.raises(ConfigError, match="no store is named"):
        alone.plan("nightly")


def test_whoever_only_looks_makes_no_experiment(place: Place) -> None:
    assert place.scheduler.compare(place.order(n=3)).action == "created"
    assert place.scheduler.every(datetime(2026, 11, 26, tzinfo=UTC)) == place.scheduler.unwritten("team", set()) == []
    for look in (place.scheduler.history, place.scheduler.suspend):
        with pytest.raises(NotFound):
            look("nightly", 1)
    assert place.backend.find_experiment("sea") is None
    place.apply(n=3)
    assert place.backend.find_experiment("sea")
