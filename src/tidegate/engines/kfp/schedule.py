"""Schedules on KFP: recurring runs, which KFP can make and delete and not change, changed all the same.

One name is one schedule. A change makes the new recurring run disabled, stops the old one, starts the new one, sees that
it is enabled, and only then deletes the old: whatever breaks off in between, nothing runs twice, and the next ``apply``
finds what was left and goes on. What is ours says so in its description; what is not is never touched.

KFP deletes the runs that go on together with their recurring run, and shows them as running ever after (2.14: the
ScheduledWorkflow owns its Workflows). So one with such runs is only disabled, and deleted when they have ended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tidegate.cron import NAMED, Cron, next_moments, parse, zone
from tidegate.engines.kfp import support
from tidegate.engines.kfp.backend import FINAL, Backend, BackendRun, Recurrence, Recurring, Start, Version
from tidegate.engines.kfp.prepare import Prepared, prepare
from tidegate.engines.kfp.settings import KfpSettings
from tidegate.engines.kfp.start import check_parameters, settle, started_once, version, version_prefix
from tidegate.engines.schedule import Applied, Order, Past, Standing, no_schedule
from tidegate.errors import ClusterError, ConfigError, Conflict, NotFound, Trouble, UsageError
from tidegate.plan.build import build
from tidegate.plan.model import Plan
from tidegate.project import user_name
from tidegate.store.base import Store
from tidegate.store.runs import RunRecord, Runs, iso, new_run_id
from tidegate.store.schedules import KFP, ScheduleRecord, Schedules

ALL = 1_000_000
MOST = 10  # runs of a recurring run at a time; KFP's own limit
REMEMBERED = 20  # recurring runs that a schedule was before
LONGEST_NAME = 40  # of a pipeline or a project in a note
MARK = "tidegate"
NO_VERSION = Version("", "", "")


@dataclass(frozen=True)
class Note:
    """What we write into the description of a recurring run, for which KFP has 255 characters.

    Attributes:
        plan: the digest of what it runs.
        pipeline: its name, the beginning of it.
        source: the project whose file it is written in.
        user: who made it.
    """

    plan: str
    pipeline: str
    source: str = ""
    user: str = ""

    def text(self) -> str:
        """The note as a description."""
        said = {MARK: self.plan, "pipeline": self.pipeline, "source": self.source, "user": self.user[:16]}
        return json.dumps(said, separators=(",", ":"), ensure_ascii=False)


def note_of(recurring: Recurring) -> Note | None:
    """Read what we wrote, None where it is not ours."""
    try:
        said = json.loads(recurring.description)
        return Note(said[MARK], said["pipeline"], said["source"], said["user"])
    except (ValueError, TypeError, KeyError):
        return None


def recurrence(cron: Cron, installed: str = "UTC") -> Recurrence:
    """When a recurring run starts, in KFP's terms: six fields, seconds first, in the zone of the installation.

    Raises:
        UsageError: it cannot be said to KFP.
    """
    if cron.concurrency == "Replace":
        raise UsageError(
            "KFP cannot end a run so that the next may start: concurrency is 'replace'",
            allowed="forbid, by which the next run waits for the end of the one before; or allow.",
            hint='--concurrency forbid, or concurrency = "forbid" in schedules.toml',
            code="kfp-concurrency",
        )
    most = 1 if cron.concurrency == "Forbid" else MOST
    if cron.every:
        return Recurrence(every=cron.every, concurrency=most)
    parse(cron.schedule)
    if zone(cron.timezone).key != zone(installed).key:
        raise UsageError(
            f"this installation of KFP reads cron in {installed}, the schedule is of {cron.timezone}",
            allowed="The installation's zone: KFP knows one for all.",
            hint=f"--timezone {installed}, or set [tool.tidegate.kfp] timezone where the installation has another",
            code="kfp-timezone",
        )
    return Recurrence(f"0 {NAMED.get(cron.schedule, cron.schedule)}", concurrency=most)


@dataclass(frozen=True)
class Found:
    """A schedule as it stands: its recurring run, what we wrote there, and others of its name that are left over."""

    recurring: Recurring
    note: Note
    left: tuple[Recurring, ...] = ()

    @property
    def name(self) -> str:
        """The schedule's name."""
        return self.recurring.name

    def cron(self, installed: str) -> Cron:
        """When it runs, in the zone of the installation."""
        when = self.recurring.when
        return Cron(when.cron.partition(" ")[2], installed, every=when.every)


@dataclass(frozen=True)
class KfpScheduler:
    """The schedules of an experiment.

    Attributes:
        backend: where they are.
        settings: names there.
        store: the store of their runs; None where only KFP is asked.
    """

    backend: Backend
    settings: KfpSettings
    store: Store | None

    @property
    def place(self) -> str:
        """The experiment."""
        return f"the experiment {self.settings.experiment}"

    def rehearse(self, order: Order) -> Applied:
        """Check an order as far as that goes without a cluster; nothing is sent."""
        self._check(order, "")
        return Applied(order.name, self.place, "checked", order.cron, _texts(order.parameters))

    def compare(self, order: Order) -> Applied:
        """What ``apply`` would do; nothing is sent."""
        before = self._find(order.name)
        made = self.backend.find_version(order.plan.name, version_prefix(self._prepared(order)))
        wanted = self._wanted(order, before, made, self._experiment or "")
        return _applied(self, order, before, wanted)

    def apply(self, order: Order) -> Applied:
        """Make a schedule what is wanted, whether it is there or not.

        Raises:
            UsageError: something that cannot be said to KFP.
            ClusterError: KFP did not enable it.
        """
        store = self._shared()
        before = self._find(order.name)
        self._check(order, self.backend.version())
        Runs(store).keep_plan(order.plan.digest, order.definition.spec, order.definition.platforms)
        made = version(self.backend, order.plan, self._prepared(order), order.record.commit)
        wanted = self._wanted(order, before, made, self.backend.experiment(self.settings.experiment))
        applied = _applied(self, order, before, wanted)
        if applied.action == "unchanged" and before:
            self._tidy(before.left)
            return applied
        if before and set(applied.changes) == {"suspension"}:
            self._tidy(before.left)
            self._enable(before.recurring.id, wanted.enabled)
        else:
            self._replace(before, wanted)
        return applied

    def _shared(self) -> Store:
        """The store of the runs; raise ``ConfigError`` where there is none that pods reach."""
        if self.store:
            return self.store
        raise ConfigError(
            "no store is named that pods can reach",
            allowed="A bucket: s3://, gs:// or az://.",
            hint="--store s3://BUCKET/PREFIX, or TIDEGATE_STORE",
            code="store-not-shared",
        )

    def _record(self, name: str) -> ScheduleRecord:
        record = Schedules(self.store).find(self._namespace, name) if self.store else None
        return record or ScheduleRecord(name, self._namespace, "")

    def _is_enabled(self, found: Found) -> bool:
        """Whether a schedule is enabled, or would be, had its last change not broken off."""
        return found.recurring.enabled or self._record(found.name).enabling

    def _remember(self, record: ScheduleRecord) -> None:
        if self.store:
            Schedules(self.store).put(record)

    @property
    def _namespace(self) -> str:
        return KFP + hashlib.sha256(self.settings.experiment.encode()).hexdigest()[:12]

    def _check(self, order: Order, server: str) -> None:
        support.check(order.plan, server)
        check_parameters(order.parameters)
        recurrence(order.cron, self.settings.timezone)

    def _prepared(self, order: Order) -> Prepared:
        definition = order.definition
        return prepare(definition.spec, definition.platforms, self.settings, origin=order.record.origin)

    def _wanted(self, order: Order, before: Found | None, made: Version | None, experiment: str) -> Recurring:
        """The recurring run that an order asks for; ``made`` is None where its version is not there yet."""
        record, settings = order.record, self.settings
        stays = before and not order.settle
        enabled = self._is_enabled(before) if before and stays else not order.cron.suspended
        source = order.source[:LONGEST_NAME] or (before.note.source if before else "")
        note = Note(order.plan.digest, order.plan.name[:LONGEST_NAME], source, record.user)
        when = recurrence(order.cron, settings.timezone)
        return Recurring(
            "", order.name, experiment, made or NO_VERSION, when, enabled, order.parameters, settings.service_account,
            note.text(),
        )  # fmt: skip

    def _replace(self, before: Found | None, wanted: Recurring) -> None:
        record, old = self._record(wanted.name), (before.recurring, *before.left) if before else ()
        ids = (before.recurring.id, *record.before)[:REMEMBERED] if before else ()
        self._remember(replace(record, before=tuple(dict.fromkeys(ids)), enabling=wanted.enabled))
        new = self._make(replace(wanted, enabled=False), [each.id for each in old])
        for each in old:
            self._disable(each)
        self._enable(new.id, wanted.enabled)
        self._settle_with_others(new)
        self._remember(replace(self._record(wanted.name), enabling=False))
        self._tidy(old)

    def _make(self, wanted: Recurring, known: Collection[str]) -> Recurring:
        """Make a recurring run once: after an answer that was lost, one that is like it and was not there before is it."""
        try:
            return self.backend.recur(wanted)
        except ClusterError as e:
            if e.code == "cluster-denied":
                raise
            there = [r for r in self.backend.recurring(wanted.experiment) if r.id not in known]
            like = [
                r for r in there if replace(r, id="", created=0.0, trouble="", service_account="") == _alike(wanted, r)
            ]
            if not like:
                raise
            return max(like, key=_age)

    def _settle_with_others(self, new: Recurring) -> None:
        """Of several that were made at once the newest is the schedule; the others are disabled.

        Raises:
            Conflict: ours is not the newest (code ``schedule-changed``).
        """
        there = [r for r in self.backend.recurring(new.experiment) if r.name == new.name and note_of(r)]
        newest = max(there, key=_age, default=new)
        for each in there:
            if each.id != newest.id:
                self._disable(each)
        if newest.id != new.id:
            raise _changed(new.name)

    def _disable(self, recurring: Recurring) -> None:
        if recurring.enabled:
            with suppress(NotFound):  # somebody else deleted it
                self.backend.enable(recurring.id, False)

    def _enable(self, recurring_id: str, enabled: bool) -> None:
        try:
            self.backend.enable(recurring_id, enabled)
        except NotFound as e:
            raise _changed(recurring_id) from e
        found = next((r for r in self._recurring() if r.id == recurring_id), None)
        if not found or found.enabled != enabled:
            raise ClusterError(
                f"KFP did not {'enable' if enabled else 'disable'} the recurring run {recurring_id}",
                allowed="A recurring run that nobody else changes.",
                hint="Type the command again.",
                code="kfp-schedule",
            )

    def _tidy(self, left: Collection[Recurring]) -> None:
        """Delete what a schedule was before, or only disable it while runs of it go on."""
        for each in left:
            self._disable(each)
            if not self._going(each):
                self.backend.remove(each.id)

    def _going(self, recurring: Recurring) -> list[str]:
        return [run.id for run in self.backend.runs(recurring.id, ALL) if run.state not in FINAL]

    def unwritten(self, source: str, written: Collection[str]) -> Sequence[str]:
        """The schedules of a project's file that are not written in it any more."""
        return [f.name for f in self._all() if f.note.source == source[:LONGEST_NAME] and f.name not in written]

    def every(self, now: datetime, plan: Plan | None = None) -> Sequence[Standing]:
        """What there is, compared with a plan where one is given."""
        return [self._standing(found, now, plan) for found in self._all()]

    def _standing(self, found: Found, now: datetime, plan: Plan | None) -> Standing:
        note, recurring, cron = found.note, found.recurring, found.cron(self.settings.timezone)
        upcoming = next(iter(next_moments(cron, now, 1)), None) if recurring.enabled else None
        drift = None if not plan or plan.name[:LONGEST_NAME] != note.pipeline else plan.digest != note.plan
        return Standing(
            found.name, note.pipeline, _said(cron), cron.timezone, not recurring.enabled, recurring.trouble, upcoming,
            next(iter(self._past(found, 1)), None), drift,
        )  # fmt: skip

    def history(self, name: str, limit: int) -> Sequence[Past]:
        """The runs of a schedule, newest first; how those ended that nobody watched is written down."""
        return self._past(self._get(name), limit)

    def _past(self, found: Found, limit: int) -> list[Past]:
        ids = (found.recurring.id, *self._record(found.name).before)
        runs = [run for each in ids for run in self.backend.runs(each, limit)]
        newest = sorted(runs, key=lambda r: r.created, reverse=True)[:limit]
        for run in newest:
            self._settle(run)
        return [_past_of(run) for run in newest]

    def _settle(self, run: BackendRun) -> None:
        if not self.store or run.state not in FINAL:
            return
        runs = Runs(self.store)
        with suppress(Trouble, NotFound):  # one run that cannot be told hides no other
            if runs.exists(run.id) and not runs.outcome(run.id):
                settle(run.id, self.store, self.backend, self.settings)

    def suspend(self, name: str, suspended: bool) -> Standing:
        """Suspend or resume a schedule; return it as it was."""
        found = self._get(name)
        if found.recurring.enabled == suspended:
            self._enable(found.recurring.id, not suspended)
        for each in found.left:  # two people's, made at once
            self._disable(each)
        self._remember(replace(self._record(name), enabling=False))
        cron = found.cron(self.settings.timezone)
        return Standing(name, found.note.pipeline, _said(cron), cron.timezone, not found.recurring.enabled)

    def plan(self, name: str) -> Plan:
        """What a schedule runs; raise ``NotFound`` where the store does not know it."""
        store = self._shared()
        digest = self._get(name).note.plan
        spec = Runs(store).plan(digest)
        if not spec:
            raise NotFound(
                f"the store {store.uri} does not have what the schedule {name} runs",
                allowed="The store that it was made with.",
                hint="tidegate schedule apply FILE --engine kfp",
                code="schedule-broken",
            )
        return build(spec, Runs(store).platforms(digest))

    def start(self, name: str, parameters: Mapping[str, Any]) -> str:
        """Start a run of a schedule now, with these parameters over its own; return its id."""
        store = self._shared()
        found, run = self._get(name), new_run_id()
        given = {**found.recurring.parameters, **parameters}
        check_parameters(given)
        recurring = found.recurring
        wanted = Start(f"{name}-{run}", recurring.experiment, recurring.version, given, recurring.service_account)
        started = started_once(self.backend, wanted)
        record = RunRecord(started.id, found.note.pipeline, found.note.plan, given, "kfp", user=user_name())
        with suppress(Trouble):  # its first pod of ours writes one too
            Runs(store).create(record)
        return started.id

    def remove(self, name: str) -> Sequence[str]:
        """Remove a schedule; one with runs that go on is only suspended.

        Raises:
            Conflict: runs go on (code ``schedule-runs``).
        """
        found = self._get(name)
        recurring = (found.recurring, *found.left)
        self._remember(replace(self._record(name), enabling=False))
        for each in recurring:
            self._disable(each)
        if going := [run for each in recurring for run in self._going(each)]:
            raise Conflict(
                f"the schedule {name} is suspended and not removed: KFP would end its run {going[0]} with it",
                allowed="One without runs that go on.",
                hint=f"tidegate runs stop {going[0]}, or type this again when it has ended",
                code="schedule-runs",
            )
        self._tidy(recurring)
        return ()

    def _get(self, name: str) -> Found:
        if found := self._find(name):
            return found
        raise no_schedule(name, self.place, [f.name for f in self._all()], " --engine kfp")

    @property
    def _experiment(self) -> str | None:
        """Its id, None where nothing has made it yet: looking makes none."""
        return self.backend.find_experiment(self.settings.experiment)

    def _recurring(self) -> Iterable[Recurring]:
        experiment = self._experiment
        return self.backend.recurring(experiment) if experiment else ()

    def _find(self, name: str) -> Found | None:
        return next((f for f in self._all() if f.name == name), None)

    def _all(self) -> list[Found]:
        """The schedules, in the order of their names; of several of a name the enabled, else the newest, is it."""
        found: dict[str, list[tuple[Recurring, Note]]] = {}
        for each in self._recurring():
            if note := note_of(each):
                found.setdefault(each.name, []).append((each, note))
        return [_chosen(found[name]) for name in sorted(found)]


def _changed(name: str) -> Conflict:
    return Conflict(
        f"somebody else changed the schedule {name} at the same time: theirs stands",
        allowed="One change at a time.",
        hint="tidegate schedule ls --engine kfp, and type this again",
        code="schedule-changed",
    )


def _age(recurring: Recurring) -> tuple[float, str]:
    return recurring.created, recurring.id


def _alike(wanted: Recurring, there: Recurring) -> Recurring:
    """What is wanted as the server would tell of it: a version has no name there."""
    version = replace(wanted.version, name=there.version.name)
    return replace(wanted, id="", created=0.0, trouble="", service_account="", version=version)


def _chosen(found: list[tuple[Recurring, Note]]) -> Found:
    first, *others = sorted(found, key=lambda f: (f[0].enabled, f[0].created), reverse=True)
    return Found(*first, tuple(recurring for recurring, _ in others))


def _said(cron: Cron) -> str:
    return cron.said if cron.every else cron.schedule


def _past_of(run: BackendRun) -> Past:
    seconds = run.finished - run.created if run.finished else None
    return Past(run.id, run.state, iso(run.created) if run.created else "", seconds)


def _applied(scheduler: KfpScheduler, order: Order, before: Found | None, wanted: Recurring) -> Applied:
    changes = _changes(before, wanted) if before else ()
    action = "created" if not before else "updated" if changes else "unchanged"
    cron = replace(order.cron, suspended=not wanted.enabled)
    return Applied(order.name, scheduler.place, action, cron, _texts(order.parameters), changes)


def _changes(before: Found, wanted: Recurring) -> tuple[str, ...]:
    old, new = before.recurring, note_of(wanted)
    assert new
    found = {
        "the pipeline": before.note.pipeline != new.pipeline,
        "the definition": old.version.id != wanted.version.id,
        "when it runs": replace(old.when, concurrency=0) != replace(wanted.when, concurrency=0),
        "overlap": old.when.concurrency != wanted.when.concurrency,
        "suspension": old.enabled != wanted.enabled,
        "the service account": bool(wanted.service_account) and old.service_account != wanted.service_account,
        "whose it is": before.note.source != new.source,
    }
    parameters = sorted({*old.parameters, *wanted.parameters})
    changed = [f"parameter {n}" for n in parameters if old.parameters.get(n) != wanted.parameters.get(n)]
    return (*(what for what, differs in found.items() if differs), *changed)


def _texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {n: v if isinstance(v, str) else json.dumps(v) for n, v in parameters.items()}
