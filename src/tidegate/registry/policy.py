"""policy.toml: what must hold for a model to be registered, read strictly.

::

    schema = 1
    model = "iris"
    on_refuse = "fail"            # or "keep": not being better is no incident
    alias = "challenger"          # what a version that passes is called; this is the default
    first = "champion"            # what it is called while no version has that name; as `alias` by default

    [[require]]
    metric = "accuracy"
    above = 0.95                  # or at_least, below, at_most
    parameter = "min_accuracy"    # a run parameter of this name may tighten the bound, never loosen it

    [champion]                    # held against the champion on the same rows
    better = "accuracy"           # must beat it on this metric
    confidence = 0.95             # one-sided exact McNemar test
    max_prediction_shift = 0.2    # this share of predictions, at most, may leave the champion's bins (total variation)

    [rollout]                     # how a version gets live traffic: ``registry/rollout_policy.py``
    steps = [5, 25, 50, 100]

The policy travels as canonical JSON in the constant input ``policy`` of the register component.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tidegate.errors import ParameterError, PolicyError, UsageError
from tidegate.registry import rollout_policy
from tidegate.registry.rollout_policy import RolloutPolicy

SCHEMA = "tidegate/policy/1"
MARK = f'"schema":"{SCHEMA}"'
OPERATORS = {"above": "above", "at_least": "at least", "below": "below", "at_most": "at most"}
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
ALIAS = re.compile(r"(?!latest$|v\d+$)[a-z][a-z0-9_-]{0,62}")  # MLflow keeps latest, v1, v2 ... for itself
_METRIC = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,99}")


@dataclass(frozen=True)
class Rule:
    """A bound on one metric; ``parameter`` names the run parameter that may tighten it."""

    metric: str
    operator: str
    bound: float
    parameter: str = ""

    def holds(self, value: float) -> bool:
        """Whether a finite value meets the bound."""
        return {
            "above": value > self.bound,
            "at_least": value >= self.bound,
            "below": value < self.bound,
            "at_most": value <= self.bound,
        }[self.operator]

    def looser(self, bound: float) -> bool:
        """Whether another bound would let more models pass."""
        return bound < self.bound if self.operator in ("above", "at_least") else bound > self.bound


@dataclass(frozen=True)
class Better:
    """The candidate must beat the champion on ``metric``, on the same rows, with this one-sided confidence."""

    metric: str
    confidence: float


@dataclass(frozen=True)
class Policy:
    """A checked policy."""

    model: str
    require: tuple[Rule, ...]
    champion: Better | None = None
    on_refuse: str = "fail"
    alias: str = "challenger"
    first: str = ""
    max_prediction_shift: float | None = None
    rollout: RolloutPolicy | None = None

    def json(self) -> str:
        """Canonical JSON: the same policy gives the same text."""
        rules = [
            {"metric": r.metric, r.operator: r.bound, **({"parameter": r.parameter} if r.parameter else {})}
            for r in self.require
        ]
        body: dict[str, Any] = {"schema": SCHEMA, "model": self.model, "on_refuse": self.on_refuse, "alias": self.alias}
        if self.first:
            body["first"] = self.first
        if self.champion:
            body["champion"] = {"better": self.champion.metric, "confidence": self.champion.confidence}
        if self.max_prediction_shift is not None:
            body["champion"] = {**body.get("champion", {}), "max_prediction_shift": self.max_prediction_shift}
        if self.rollout:
            body["rollout"] = self.rollout.as_json()
        return json.dumps({**body, "require": rules}, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """``sha256:`` of the canonical JSON."""
        return "sha256:" + hashlib.sha256(self.json().encode()).hexdigest()

    def alias_among(self, aliases: Container[str]) -> str:
        """What a version that passes is called where ``aliases`` are given already."""
        return self.first if self.first and self.first not in aliases else self.alias

    def tightened(self, bound: float | None) -> Policy:
        """Return the policy with the bound of its parameter's rule moved, towards stricter only.

        Raises:
            ParameterError: the bound is looser than the file's, no number, or the policy has no parameter.
        """
        if bound is None:
            return self
        if not any(r.parameter for r in self.require):
            raise ParameterError(f"the policy of {self.model} has no parameter to tighten", code="policy-parameter")
        return replace(self, require=tuple(_tighten(r, bound) if r.parameter else r for r in self.require))


def _tighten(rule: Rule, bound: float) -> Rule:
    if not _finite(bound):
        raise ParameterError(f"{rule.parameter} is {bound!r}", allowed="A finite number.", code="parameter-type")
    if rule.looser(bound):
        stricter = "lower" if rule.operator in ("above", "at_least") else "higher"
        raise ParameterError(
            f"{rule.parameter}={bound:g} is looser than the policy's {rule.bound:g} "
            f"({rule.metric} {OPERATORS[rule.operator]} {rule.bound:g})",
            allowed=f"A run parameter may only tighten a gate: nothing {stricter} than {rule.bound:g}.",
            hint="Change policy.toml, in a commit that is reviewed.",
            code="policy-loosened",
        )
    return replace(rule, bound=float(bound))


def check_parameters(policy: Policy, parameters: Mapping[str, Any]) -> None:
    """Refuse, before a run starts, run parameters that would loosen the policy.

    Raises:
        ParameterError: see ``Policy.tightened``.
    """
    for rule in policy.require:
        if rule.parameter and parameters.get(rule.parameter) is not None:
            _tighten(rule, parameters[rule.parameter])


def policy(path: Path | str) -> str:
    """Read and check a policy.toml; return it as the canonical JSON that a pipeline passes to ``register``."""
    return read(Path(path)).json()


def read(path: Path) -> Policy:
    """Read and check a policy.toml.

    Raises:
        PolicyError: it cannot be read, or says something we do not know.
    """
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PolicyError(f"there is no policy at {path}", hint="See pipelines/iris/policy.toml for one.") from None
    except (OSError, ValueError, RecursionError) as e:
        raise PolicyError(f"{path} cannot be read: {e}") from e
    if repr(body.pop("schema", None)) != "1":  # neither true nor 1.0
        raise PolicyError(f"{path} has no `schema = 1`", allowed="schema = 1")
    return _policy(body, str(path))


def parse(text: str) -> Policy:
    """Read a policy back from its JSON.

    Raises:
        PolicyError: it is none.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise PolicyError(f"the policy is no JSON: {e}") from e
    if not isinstance(body, dict) or body.pop("schema", None) != SCHEMA:
        raise PolicyError("the policy has another schema", allowed=SCHEMA)
    return _policy(body, "the policy")


def _policy(body: Mapping[str, Any], where: str) -> Policy:
    _known(body, {"model", "on_refuse", "alias", "first", "require", "champion", "rollout"}, where)
    rules = body.get("require", [])
    if not isinstance(rules, list):
        raise PolicyError(f"{where}: require is no list", allowed="[[require]] tables.")
    champion = body.get("champion", {})
    _known(champion, {"better", "confidence", "max_prediction_shift"}, f"{where}, champion")
    if "champion" in body and not {"better", "max_prediction_shift"} & champion.keys():
        raise PolicyError(f"{where}, champion requires nothing", allowed="`better`, `max_prediction_shift` or both.")
    made = Policy(
        _name(body, "model", where),
        tuple(_rule(r, f"{where}, require {i + 1}") for i, r in enumerate(rules)),
        _better(champion, f"{where}, champion"),
        _one_of(body, "on_refuse", ("fail", "keep"), where),
        _alias(body.get("alias", "challenger"), where),
        _alias(body["first"], where) if "first" in body else "",
        _shift(champion, f"{where}, champion"),
        _rollout(body["rollout"], f"{where}, rollout") if "rollout" in body else None,
    )
    if not made.require and not made.champion:
        raise PolicyError(f"{where} requires nothing", allowed="At least one [[require]] or a [champion].")
    if sum(bool(r.parameter) for r in made.require) > 1:
        raise PolicyError(f"{where} names more than one parameter", allowed="One rule may have a parameter.")
    return made


def _known(body: Mapping[str, Any], keys: set[str], where: str) -> None:
    if not isinstance(body, dict):
        raise PolicyError(f"{where} is no table")
    for key in body:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            hint = f"Did you mean {near[0]!r}?" if near else ""
            raise PolicyError(f"{where} has the unknown key {key!r}", allowed=f"{', '.join(sorted(keys))}.", hint=hint)


def _name(body: Mapping[str, Any], key: str, where: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise PolicyError(f"{where}: {key} is {value!r}", allowed="A name of a-z, 0-9, '.', '_' and '-', 63 at most.")
    return value


def _alias(value: Any, where: str) -> str:
    try:
        return check_alias(value)
    except UsageError as e:
        raise PolicyError(f"{where}: {e.found}", allowed=e.allowed) from None


def check_alias(alias: Any) -> str:
    """Return what a version can be called: never a number, nor what MLflow keeps for itself.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(alias, str) or not ALIAS.fullmatch(alias):
        allowed = "A letter a-z, then a-z, 0-9, '_' and '-', 63 in all; not latest, v1, v2 and so on."
        raise UsageError(f"{str(alias)[:80]!r} is no alias", allowed=allowed, code="alias-invalid")
    return alias


def _one_of(body: Mapping[str, Any], key: str, allowed: tuple[str, ...], where: str) -> str:
    value = body.get(key, allowed[0])
    if value not in allowed:
        raise PolicyError(f"{where}: {key} is {value!r}", allowed=" or ".join(map(repr, allowed)) + ".")
    return str(value)


def _rollout(body: Any, where: str) -> RolloutPolicy:
    _known(body, rollout_policy.KEYS, where)
    return rollout_policy.read(body, where)


def _rule(body: Any, where: str) -> Rule:
    _known(body, {"metric", "parameter", *OPERATORS}, where)
    said = [o for o in OPERATORS if o in body]
    if len(said) != 1:
        raise PolicyError(f"{where} has {len(said)} bounds", allowed=f"One of {', '.join(OPERATORS)}.")
    parameter = body.get("parameter", "")
    if not isinstance(parameter, str) or (parameter and not parameter.isidentifier()):
        raise PolicyError(f"{where}: parameter is {parameter!r}", allowed="The name of a run parameter.")
    return Rule(_metric(body.get("metric"), where), said[0], _number(body[said[0]], said[0], where), parameter)


def _better(body: Mapping[str, Any], where: str) -> Better | None:
    if "better" not in body:
        if "confidence" in body:
            raise PolicyError(f"{where}: confidence says nothing without `better`", allowed='better = "accuracy".')
        return None
    confidence = _number(body.get("confidence", 0.95), "confidence", where)
    if not 0.5 < confidence < 1:
        raise PolicyError(
            f"{where}: confidence is {confidence:g}", allowed="More than 0.5 and less than 1, such as 0.95."
        )
    return Better(_metric(body.get("better"), where), confidence)


def _shift(body: Mapping[str, Any], where: str) -> float | None:
    if "max_prediction_shift" not in body:
        return None
    shift = _number(body["max_prediction_shift"], "max_prediction_shift", where)
    if not 0 <= shift <= 1:
        raise PolicyError(f"{where}: max_prediction_shift is {shift:g}", allowed="A share of rows, 0 to 1.")
    return shift


def _metric(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _METRIC.fullmatch(value):
        raise PolicyError(f"{where}: the metric is {value!r}", allowed="A metric's name, such as accuracy.")
    return value


def _finite(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _number(value: Any, key: str, where: str) -> float:
    if not _finite(value):
        raise PolicyError(f"{where}: {key} is {value!r}", allowed="A finite number.")
    return float(value)
