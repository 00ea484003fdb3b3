"""The registry: versions, aliases and evidence of each model, as a fold over its ledger chain.

Rules of the fold (a chain that breaks one is damaged):

* ``version``: the next number, with a passing verdict on the same model digest; it may carry an alias, which then names
  it from the same record on. A version is never changed and never removed.
* ``alias``: an existing alias or a new one names an existing version. The record *is* the move.
* ``rollout``: the open rollout goes on, a new one starts, or it ends: see ``registry/rollouts.py``. One that promotes or
  takes a promoted version back moves the alias ``champion`` by itself.

Every 256 records a checkpoint (state and head) is derived, so that a cold reader needs it and at most 256 records;
``verify`` derives everything from record 0 again.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tidegate.errors import Conflict, Damaged, ModelRefused, NotFound, Trouble, UsageError
from tidegate.registry import rollouts
from tidegate.registry.ledger import ROOT, Head, Ledger, Record, check_name
from tidegate.registry.policy import check_alias
from tidegate.registry.rollouts import CHAMPION, Rollout
from tidegate.store.base import Store
from tidegate.store.runs import iso

CHECKPOINT_EVERY = 256
TRIES = 50
_REF = re.compile(r"(?P<name>[^@:]+)(?:@(?P<alias>[^@:]+)|:(?P<version>[1-9]\d*))?")


@dataclass(frozen=True)
class Version:
    """One registered version: the model's digest and what the gate had seen."""

    model: str
    version: int
    digest: str
    kind: str
    size: int
    evidence: str
    verdict: Mapping[str, Any]
    lineage: Mapping[str, Any]
    actor: str
    run: str
    created: str


@dataclass(frozen=True)
class ModelState:
    """What the chain says of one model."""

    name: str
    versions: Mapping[int, Version] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    head: Head = field(default_factory=Head)
    rollout: Rollout | None = None

    def by_digest(self, digest: str) -> Version | None:
        """The first version with these bytes."""
        return next((v for v in self.versions.values() if v.digest == digest), None)

    def by_step(self, run: str, step: str) -> Version | None:
        """The version that this step of this run made: a run may be done again by whoever takes it over."""
        made = (v for v in self.versions.values() if v.run == run and v.lineage.get("step") == step)
        return next(made, None) if run and step else None

    def champion(self) -> Version | None:
        """The version that the alias ``champion`` names."""
        return self.versions.get(self.aliases.get(CHAMPION, 0))

    def names_of(self, version: int) -> list[str]:
        """The aliases of a version."""
        return sorted(a for a, v in self.aliases.items() if v == version)


@dataclass(frozen=True)
class Entry:
    """A record to be: its kind and body."""

    kind: str
    body: Mapping[str, Any]


def fold(state: ModelState, record: Record) -> ModelState:
    """Return the state after one more record.

    Raises:
        Damaged: the record breaks a rule.
    """
    rules = {"version": _add_version, "alias": _set_alias, "rollout": _move_rollout}
    if record.kind not in rules:
        raise _illegal(record, f"is of the unknown kind {record.kind!r}")
    try:
        return replace(rules[record.kind](state, record), head=record.head)
    except (TypeError, KeyError, AttributeError) as e:
        raise _illegal(record, f"is no {record.kind} record") from e


def _set_alias(state: ModelState, record: Record) -> ModelState:
    alias, version = str(record.body["alias"]), record.body["version"]
    if version not in state.versions:
        raise _illegal(record, f"names the version {version!r}, which is not there")
    return replace(state, aliases={**state.aliases, alias: version})


def _add_version(state: ModelState, record: Record) -> ModelState:
    body = dict(record.body)
    alias = body.pop("alias", "")
    version = Version(model=record.model, actor=record.actor, run=record.run, created=record.time, **body)
    if version.version != len(state.versions) + 1:
        raise _illegal(record, f"is version {version.version} after {len(state.versions)}")
    if version.verdict.get("outcome") != "pass" or version.verdict.get("model") != version.digest:
        raise _illegal(record, "has no passing verdict on its own bytes")
    aliases = {**state.aliases, alias: version.version} if alias else state.aliases
    return replace(state, versions={**state.versions, version.version: version}, aliases=aliases)


def _move_rollout(state: ModelState, record: Record) -> ModelState:
    before = state.aliases.get(CHAMPION, 0)
    try:
        rollout, champion = rollouts.fold(state.rollout, before, record.body, record.time)
    except rollouts.Illegal as e:
        raise _illegal(record, str(e)) from e
    if rollout.candidate not in state.versions:
        raise _illegal(record, f"is of the version {rollout.candidate}, which is not there")
    aliases = {**state.aliases, CHAMPION: champion} if champion != before else state.aliases
    return replace(state, aliases=aliases, rollout=rollout)


def _illegal(record: Record, why: str) -> Damaged:
    return Damaged(f"ledger record {record.model}/{record.seq} {why}", code="ledger-damaged")


def may_serve(state: ModelState, version: Version) -> None:
    """Say whether a version may be served: the one place where approvals, signatures and revocations belong.

    Raises:
        ModelRefused: it is not registered, or no gate passed on its bytes.
    """
    if state.versions.get(version.version) != version:
        raise ModelRefused(f"{version.model} version {version.version} is not what the ledger says")
    if version.verdict.get("outcome") != "pass" or version.verdict.get("model") != version.digest:
        raise ModelRefused(
            f"{version.model} version {version.version} has no passing verdict on its own bytes",
            allowed="A version whose bytes passed the gate.",
        )


class Registry:
    """The models of a store.

    Args:
        store: where the ledger is.
        now: seconds since the epoch; the clock's seam.
    """

    def __init__(self, store: Store, now: Callable[[], float] = time.time) -> None:
        self.store, self.ledger, self._now = store, Ledger(store), now

    def models(self) -> list[str]:
        """Return the names of all models."""
        return sorted({str(r.body["name"]) for r in self.ledger.records(ROOT) if r.kind == "model"})

    def state(self, name: str) -> ModelState:
        """Return what the chain says of a model now; an unknown one has no versions.

        Raises:
            Damaged: the chain is.
        """
        state = self._checkpoint(check_name(name))
        start = state.head.seq
        for record in self.ledger.records(name, state.head):
            state = fold(state, record)
        if state.head.seq - start >= CHECKPOINT_EVERY:
            with suppress(Trouble):  # derived: a reader who may not write reads on
                self.store.put(_checkpoint_key(name), _checkpoint_text(state))
        return state

    def verify(self, name: str) -> ModelState:
        """Derive a model's state from record 0 and hold the checkpoint against it.

        Raises:
            Damaged: the chain is, or a whole checkpoint says something else.
        """
        state, seen = ModelState(check_name(name)), self._checkpoint(name)
        at = {-1: state}
        for record in self.ledger.records(name):
            state = fold(state, record)
            at[record.seq] = state if record.seq == seen.head.seq else at[-1]
        self.ledger.check_end(name, state.head)
        if seen.head.seq >= 0 and at.get(seen.head.seq) != seen:
            raise Damaged(f"the checkpoint of {name} is not what its chain says", code="ledger-damaged")
        return state

    def version(self, name: str, ref: str | int = "champion") -> tuple[ModelState, Version]:
        """Return a version by number or alias, with the state it is in.

        Raises:
            NotFound: no such model, alias or version.
        """
        state = self.state(name)
        if not state.versions:
            known = ", ".join(self.models()) or "none"
            raise NotFound(
                f"no version of {name!r} is registered",
                allowed=f"Models in {self.store.uri}: {known}.",
                hint="tidegate model ls; another store: --store URI",
            )
        number = int(ref) if str(ref).isdecimal() else state.aliases.get(str(ref), 0)
        if number not in state.versions:
            what = f"version {ref}" if str(ref).isdecimal() else f"alias {ref!r}"
            there = f"{len(state.versions)} version(s), aliases {', '.join(sorted(state.aliases)) or 'none'}"
            raise NotFound(
                f"{name} has no {what}",
                allowed=f"It has {there}.",
                hint=f"tidegate model show {name}:{len(state.versions)}",
            )
        return state, state.versions[number]

    def promote(self, name: str, ref: str | int, alias: str, *, actor: str) -> tuple[ModelState, bool]:
        """Let an alias name a version; return the new state, and False when it already did.

        Raises:
            ModelRefused: the version may not be served.
            UsageError: no alias can be called that, or a rollout is open, which alone moves the champion.
        """
        check_alias(alias)
        _, wanted = self.version(name, ref)

        def move(state: ModelState) -> Entry | None:
            may_serve(state, state.versions[wanted.version])
            if state.aliases.get(alias) == wanted.version:
                return None
            if alias == CHAMPION and state.rollout and state.rollout.is_open:
                raise _rollout_is_open(state.rollout, name)
            return Entry("alias", {"alias": alias, "version": wanted.version})

        return self.transact(name, move, actor=actor)

    def transact(
        self, name: str, decide: Callable[[ModelState], Entry | None], *, actor: str, run: str = ""
    ) -> tuple[ModelState, bool]:
        """Decide on the present state and write the decision, deciding again whenever another writer was first.

        Args:
            name: the model.
            decide: returns the record to write, or None for nothing; may be called several times.
            actor: who.
            run: the run in which, if any.

        Returns:
            The state after it, and whether a record was written.

        Raises:
            Conflict: other writers were first every time.
        """
        for _ in range(TRIES):
            state = self.state(name)
            entry = decide(state)
            if entry is None:
                return state, False
            if state.head.seq < 0:
                self._create(name, actor)
            record = self.ledger.append(
                name, state.head, entry.kind, entry.body, actor=actor, run=run, time=iso(self._now())
            )
            if record:
                return fold(state, record), True
        raise Conflict(f"{TRIES} times another writer of {name} was first", hint="Run the same command again.")

    def _create(self, name: str, actor: str) -> None:
        for _ in range(TRIES):
            head = Head()
            for record in self.ledger.records(ROOT):
                if record.body.get("name") == name:
                    return
                head = record.head
            if self.ledger.append(ROOT, head, "model", {"name": name}, actor=actor, run="", time=iso(self._now())):
                return
        raise Conflict(f"{TRIES} times another writer of the ledger was first", hint="Run the same command again.")

    def _checkpoint(self, name: str) -> ModelState:
        """The newest checkpoint that is whole and of this chain, else the empty state: it is derived, so it may be lost."""
        try:
            sha256, _, text = self.store.get(_checkpoint_key(name)).partition(b"\n")
            if hashlib.sha256(text).hexdigest().encode() != sha256:
                return ModelState(name)
            body = json.loads(text)
            versions = {int(n): Version(**v) for n, v in body["versions"].items()}
            rollout = Rollout(**body["rollout"]) if body.get("rollout") else None
            state = ModelState(name, versions, body["aliases"], Head(**body["head"]), rollout)
        except (NotFound, ValueError, KeyError, TypeError, AttributeError):
            return ModelState(name)
        return state if self.ledger.holds(name, state.head) else ModelState(name)


def split_reference(text: str) -> tuple[str, str]:
    """Split ``NAME``, ``NAME@ALIAS`` or ``NAME:VERSION`` into the name and what to ask ``Registry.version`` for.

    Raises:
        NotFound: it is none of these.
    """
    found = _REF.fullmatch(text)
    if not found:
        raise NotFound(
            f"{text!r} is no model reference", allowed="NAME, NAME@ALIAS or NAME:VERSION.", code="model-reference"
        )
    return found["name"], found["alias"] or found["version"] or "champion"


def _rollout_is_open(rollout: Rollout, name: str) -> UsageError:
    return UsageError(
        f"the rollout {rollout.id} of {name} is open: version {rollout.candidate} against {rollout.stable}",
        allowed="While a rollout is open only it moves the alias champion.",
        hint=f"tidegate rollout status {name}, or: tidegate rollout abort {name}",
        code="rollout-open",
    )


def _checkpoint_text(state: ModelState) -> bytes:
    """A state and the sha256 of it in the line before."""
    text = json.dumps(asdict(state), sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def _checkpoint_key(name: str) -> str:
    return f"checkpoints/{name}.json"
