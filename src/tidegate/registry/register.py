"""Register a model: gather the evidence, ask the gate, write one record. Behind ``components/register``.

The order is: bytes into the store, evidence into the store, then the ledger record that refers to both; a crash between
leaves blobs that nothing refers to, never a version without evidence. The gate is asked again for every attempt to
write, so a champion that moved meanwhile is the one that was judged against.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import GateRefused, NotFound
from tidegate.project import user_name
from tidegate.registry import evaluation as evaluations
from tidegate.registry import gate
from tidegate.registry.evaluation import Evaluation
from tidegate.registry.model import Entry, ModelState, Registry, Version, may_serve
from tidegate.registry.policy import Policy, parse
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs, Content
from tidegate.store.open import open_store
from tidegate.store.runs import RunRecord, Runs

SHOWN = (
    "commit",
    "dirty",
    "pipeline",
    "step",
    "data_digest",
    "data_source",
    "pin",
    "revision",
    "metrics",
    "procedure",
    "profile",
)


@dataclass(frozen=True)
class Candidate:
    """What asks to be registered: files on this disk, the data's metadata, and the policy with its tightened bound."""

    name: str
    model: Path
    evaluation: Path
    data: Path
    data_metadata: Mapping[str, Any]
    policy: str
    tighten: float | None = None


@dataclass(frozen=True)
class Registration:
    """What came of it: version 0 and the reason where the model was kept out."""

    registered: bool
    version: int
    digest: str
    reason: str


def register(candidate: Candidate, store: Store | None = None) -> Registration:
    """Register a candidate that passes its gate; the same bytes again give the version that they already are.

    A step of a run makes one version: done again, by a watcher that took the run over, it gives that version, whatever
    bytes came out this time.

    Raises:
        GateRefused: the gate said no and the policy says ``on_refuse = "fail"``.
        PolicyError: the policy is for another model.
        ParameterError: ``tighten`` is looser than the policy.
    """
    store = store or open_store()
    policy = parse(candidate.policy).tightened(candidate.tighten)
    if policy.model != candidate.name:
        raise GateRefused(f"the policy is for {policy.model!r}, the model is {candidate.name!r}", code="policy-model")
    blobs, registry = Blobs(store), Registry(store)
    model = blobs.add(candidate.model)
    evaluation = evaluations.read(candidate.evaluation)
    blobs.add(candidate.evaluation)
    run = _run(store)
    evidence = _evidence(candidate, policy, evaluation, model, blobs.add_bytes, run, blobs)
    decision = _Decision(policy, evaluation, model, evidence, run.id if run else "")
    state, written = registry.transact(candidate.name, decision, actor=_actor(run), run=run.id if run else "")
    if known := decision.known:
        what = "these bytes are" if known.digest == model.digest else "this step of this run made"
        return Registration(True, known.version, known.digest, f"{what} already version {known.version}")
    if not written:
        return _refused(policy, decision.verdict, model)
    names = ", ".join(f"{candidate.name}@{a}" for a in state.names_of(len(state.versions)))
    reason = f"{decision.verdict.reason}; {names} is version {len(state.versions)} now"
    return Registration(True, len(state.versions), model.digest, reason)


class _Decision:
    """Asked with the present state for each attempt to write; remembers the last answer."""

    def __init__(
        self, policy: Policy, evaluation: Evaluation, model: Content, evidence: _Evidence, run: str = ""
    ) -> None:
        self._policy, self._evaluation, self._model, self._evidence = policy, evaluation, model, evidence
        self._run = run
        self.known: Version | None = None
        self.verdict = gate.judge(policy, evaluation, model.digest)

    def __call__(self, state: ModelState) -> Entry | None:
        self.known = state.by_step(self._run, str(self._evidence.body["step"]))
        if self.known:
            return None
        champion = state.champion()
        self.known = state.by_digest(self._model.digest)
        against = champion.digest if champion and champion != self.known else ""
        self.verdict = gate.judge(self._policy, self._evaluation, self._model.digest, against)
        if self.known and self._absolute_rules_hold():
            return None
        self.known = None
        if not self.verdict.passed:
            return None
        body = {
            "version": len(state.versions) + 1,
            "digest": self._model.digest,
            "kind": self._model.kind,
            "size": self._model.size,
            "evidence": self._evidence.store(self.verdict),
            "verdict": self.verdict.as_json(),
            "lineage": self._evidence.shown,
            "alias": self._policy.alias_among(state.aliases),
        }
        return Entry("version", body)

    def _absolute_rules_hold(self) -> bool:
        # bytes that are a version already need not beat a later champion to be that version still
        rules = Policy(self._policy.model, self._policy.require)
        return gate.judge(rules, self._evaluation, self._model.digest).passed


@dataclass(frozen=True)
class _Evidence:
    body: Mapping[str, Any]
    add: Any

    @property
    def shown(self) -> dict[str, Any]:
        return {k: self.body[k] for k in SHOWN if self.body.get(k)}

    def store(self, verdict: gate.Verdict) -> str:
        text = json.dumps({**self.body, "verdict": verdict.as_json()}, sort_keys=True)
        digest: str = self.add(text.encode())
        return digest


def _evidence(
    candidate: Candidate,
    policy: Policy,
    evaluation: Evaluation,
    model: Content,
    add: Any,
    run: RunRecord | None,
    blobs: Blobs,
) -> _Evidence:
    metadata = candidate.data_metadata
    body = {
        "schema": "tidegate/evidence/1",
        "model": asdict(model),
        "data_digest": blobs.add(candidate.data).digest,
        "data_source": metadata.get("source", ""),
        "pin": metadata.get("pin", ""),
        "revision": metadata.get("revision", ""),
        "metrics": {k: v for k, v in evaluation.metrics.items() if v == v and abs(v) != float("inf")},
        "procedure": dict(evaluation.procedure),
        "evaluation": evaluation.digest,
        "profile": add(evaluation.profile.encode()) if evaluation.profile else "",
        "predictions": _predictions(evaluation),
        "policy": json.loads(policy.json()),
        "step": os.environ.get("TIDEGATE_STEP", ""),
    }
    if run:
        body |= {"run": run.id, "pipeline": run.pipeline, "commit": run.commit, "dirty": run.dirty}
        body |= {"environment": run.environment, "parameters": run.parameters, "plan": run.plan_digest}
    return _Evidence(body, add)


def _predictions(evaluation: Evaluation) -> dict[str, Any] | None:
    """How predictions moved from which champion's: what a rollout judges live predictions by."""
    compared = evaluation.comparison
    if compared is None or compared.predictions is None:
        return None
    return {"champion": compared.champion, **compared.predictions.as_json()}


def _run(store: Store) -> RunRecord | None:
    run_id = os.environ.get("TIDEGATE_RUN_ID", "")
    try:
        return Runs(store).read(run_id) if run_id else None
    except NotFound:
        return None


def _actor(run: RunRecord | None) -> str:
    return run.user if run and run.user else user_name()


def _refused(policy: Policy, verdict: gate.Verdict, model: Content) -> Registration:
    if policy.on_refuse == "keep":
        return Registration(False, 0, model.digest, verdict.reason)
    raise GateRefused(
        f"{policy.model} is not registered: {verdict.reason}",
        allowed=f"What policy.toml requires ({len(verdict.findings)} findings, verdict {verdict.outcome}).",
        hint="Improve the model or the data; the gate's bounds change only in policy.toml.",
    )


@dataclass(frozen=True)
class Champion:
    """A champion that was fetched: its profile's bytes, empty where it has none; version 0 for no champion."""

    version: int = 0
    digest: str = ""
    profile: bytes = b""


def fetch_champion(name: str, target: Path, store: Store | None = None) -> Champion:
    """Copy the champion of ``name`` to ``target``; for none, leave an empty folder."""
    store = store or open_store()
    state = Registry(store).state(name)
    version = state.champion()
    if version is None:
        target.mkdir(parents=True, exist_ok=True)
        return Champion()
    may_serve(state, version)
    Blobs(store).fetch(version.digest, target, kind=version.kind)
    profile = version.lineage.get("profile", "")
    return Champion(version.version, version.digest, Blobs(store).read_bytes(profile) if profile else b"")
