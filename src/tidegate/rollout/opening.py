"""How a rollout begins: which version against which, by which rules, and what its evidence says of predictions."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tidegate.errors import Damaged, ModelRefused, NotFound, PolicyError, UsageError
from tidegate.registry import evaluation, policy, signature
from tidegate.registry.model import ModelState, Registry, Version, may_serve, split_reference
from tidegate.registry.rollout_policy import RolloutPolicy
from tidegate.registry.rollouts import WITHDRAWN
from tidegate.registry.signature import DATATYPES, Tensor
from tidegate.rollout.exposure import Live, Need, check
from tidegate.rollout.state import Plan, Target
from tidegate.rollout.trial import Table, rules_of, weights_of
from tidegate.store.blobs import Blobs

CHALLENGER = "challenger"


@dataclass(frozen=True)
class Opening:
    """A rollout that may begin.

    Attributes:
        plan: what it will do.
        table: rows of the evaluation by the champion's and the candidate's bin; None where there is none.
        notes: what a person should know before it begins.
    """

    plan: Plan
    table: Table | None
    notes: tuple[str, ...] = ()


def split(reference: str) -> tuple[str, str]:
    """Split ``NAME``, ``NAME:VERSION`` or ``NAME@ALIAS``; NAME alone means its challenger.

    Raises:
        NotFound: it is none of these.
    """
    name, ref = split_reference(reference)
    return name, ref if reference != name else CHALLENGER


def open_rollout(
    registry: Registry, name: str, ref: str, changes: Mapping[str, Any] | None = None, *, again: bool = False
) -> Opening:
    """Return the rollout of a version of a model against its champion.

    Args:
        registry: where they are.
        name: the model.
        ref: the candidate: a number or an alias.
        changes: rules in the place of the policy's, for this rollout; the ledger holds what was in force.
        again: also a version that was taken back the last time.

    Raises:
        NotFound: there is no such model or version.
        UsageError: there is no champion, it is the candidate itself, takes other inputs, was taken back the last time,
            or a rollout is open.
        ModelRefused: it may not be served.
    """
    state, candidate = registry.version(name, ref)
    champion = _champion(state, candidate)
    for version in (candidate, champion):
        may_serve(state, version)
    _check_last(state, candidate, again)
    unknown = _check_inputs(registry, champion, candidate)
    said, notes = _evidence(registry, candidate)
    rules, doubts = _rules(said, candidate) if not notes else (RolloutPolicy(), ())
    rules, notes = replace(rules, **(changes or {})), unknown + notes + doubts
    table = _table(said, champion)
    if table is None:
        notes += (f"predictions are not compared: the evidence of version {candidate.version} has no table of them "
                  f"against version {champion.version}",)  # fmt: skip
    name_ = f"{name}-v{candidate.version}-{secrets.token_hex(3)}"
    new, old = (Target(v.version, v.digest) for v in (candidate, champion))
    return Opening(Plan(name_, name, new, old, rules), table, notes)


def check_same(registry: Registry, plan: Plan, reference: str, changes: Mapping[str, Any]) -> None:
    """Going on with an open rollout is right for NAME alone and for its candidate, by the rules that it began with.

    Raises:
        NotFound: there is no such version.
        UsageError: another version or other rules are asked for (code ``rollout-open``).
    """
    name, ref = split(reference)
    is_said = reference in (name, f"{name}:{plan.candidate.version}")  # then no store is asked
    if not is_said and registry.version(name, ref)[1].version != plan.candidate.version:
        raise _open(plan, f"version {plan.candidate.version}, not {ref}", "One rollout of a model at a time.")
    if changes:
        allowed = "The rules that it began with, which the ledger holds."
        raise _open(plan, f"it has its own {', '.join(changes)}", allowed)


def _open(plan: Plan, found: str, allowed: str) -> UsageError:
    name = plan.model
    hint = f"tidegate rollout start {name} goes on with it; tidegate rollout abort {name} ends it"
    return UsageError(
        f"the rollout {plan.id} of {name} is open: {found}", allowed=allowed, hint=hint, code="rollout-open"
    )


def check_exposure(plan: Plan, now: Live) -> tuple[Need, ...]:
    """Return what each step needs, if live traffic gives it that before its deadline.

    Raises:
        UsageError: it does not (code ``rollout-undecidable``).
    """
    steps = [weights_of(plan.weights(i)) for i in range(len(plan.rules.steps))]
    return check(rules_of(plan.rules, 0), steps, now)


def _champion(state: ModelState, candidate: Version) -> Version:
    champion = state.champion()
    if champion is None:
        raise UsageError(
            f"{state.name} has no champion to compare version {candidate.version} with",
            allowed="A model with a version that is served.",
            hint=f"tidegate model promote {state.name}:{candidate.version}",
            code="rollout-no-champion",
        )
    if champion == candidate:
        raise UsageError(
            f"version {candidate.version} is the champion of {state.name} already",
            allowed=f"Another of its {len(state.versions)} versions.",
            hint=f"tidegate rollout start {state.name}:VERSION",
            code="rollout-champion",
        )
    return champion


def _check_last(state: ModelState, candidate: Version, again: bool) -> None:
    last = state.rollout
    if last and last.is_open:
        raise UsageError(
            f"the rollout {last.id} of {state.name} is open: version {last.candidate} against {last.stable}",
            allowed="One rollout of a model at a time.",
            hint=f"tidegate rollout status {state.name}, or: tidegate rollout abort {state.name}",
            code="rollout-open",
        )
    if last and last.event in WITHDRAWN and last.candidate == candidate.version and not again:
        raise UsageError(
            f"version {candidate.version} was taken back ({last.event}, {last.changed}): {last.reason}",
            allowed="A version that was not taken back the last time, or --again.",
            hint=f"tidegate rollout history {state.name}; then: tidegate rollout start "
            f"{state.name}:{candidate.version} --again",
            code="rollout-again",
        )


def _check_inputs(registry: Registry, champion: Version, candidate: Version) -> tuple[str, ...]:
    """Refuse a candidate that no request of today's clients suits; where nobody can tell, say so."""
    try:
        old, new = (_inputs(registry, version) for version in (champion, candidate))
    except (NotFound, Damaged, ModelRefused) as e:
        return (f"the inputs of both versions are not compared: {e.found}",)
    same = {n for n in old.keys() & new.keys() if _takes(new[n].datatype, old[n].datatype)}
    lost, come = ([t for n, t in some.items() if n not in same] for some in (old, new))
    if not lost and not come:
        return ()
    raise UsageError(
        f"version {candidate.version} takes {_names(come)} where the champion, version {champion.version}, has {_names(lost)}",
        allowed="The champion's inputs, of types that take its values: a server refuses all else, and clients would see that.",
        hint=f"register it under another name, and let clients move there: tidegate front {champion.model}-2",
        code="rollout-inputs",
    )


def _takes(new: str, old: str) -> bool:
    """Whether a server takes all values of one datatype for another: it casts where only precision is lost."""
    if new == old or {"BYTES", "BOOL"} & {new, old}:
        return new == old
    kind = DATATYPES[new]
    return np.can_cast(DATATYPES[old], kind, "same_kind" if np.dtype(kind).kind == "f" else "safe")


def _inputs(registry: Registry, version: Version) -> dict[str, Tensor]:
    text = Blobs(registry.store).read_file(version.digest, signature.FILE)
    return {t.name: t for t in signature.parse_signature(text).inputs}


def _names(some: list[Tensor]) -> str:
    said = ", ".join(f"{t.name!r} ({t.datatype})" for t in some[:5])
    return said + (f" and {len(some) - 5} more" if len(some) > 5 else "") or "nothing"


def _evidence(registry: Registry, version: Version) -> tuple[dict[str, Any], tuple[str, ...]]:
    try:
        return dict(json.loads(Blobs(registry.store).read_bytes(version.evidence))), ()
    except (NotFound, Damaged, ValueError, TypeError):
        text = f"the evidence of version {version.version} cannot be read: the default rules apply"
        return {}, (text,)


def _rules(evidence: dict[str, Any], version: Version) -> tuple[RolloutPolicy, tuple[str, ...]]:
    try:
        return policy.parse(json.dumps(evidence.get("policy"))).rollout or RolloutPolicy(), ()
    except PolicyError as e:
        what = f"the policy in the evidence of version {version.version} cannot be read"
        return RolloutPolicy(), (f"{what} ({e.found}): the default rules apply",)


def _table(evidence: dict[str, Any], champion: Version) -> Table | None:
    said = evidence.get("predictions")
    if not isinstance(said, dict) or said.get("champion") != champion.digest:
        return None
    try:
        return evaluation.transition(said).table
    except UsageError:
        return None
