"""What an engine is: something that runs a plan and says how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tidegate.errors import ParameterError
from tidegate.plan.events import Outcome, Report
from tidegate.plan.model import Interface, Plan
from tidegate.plan.value import Artifact, coerce


@dataclass(frozen=True)
class Arguments:
    """What a run is given: parameters as JSON values, input artifacts of the root."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Sequence[Artifact]] = field(default_factory=dict)


class Engine(Protocol):
    """One way to run a plan."""

    def run(self, plan: Plan, arguments: Arguments, report: Report) -> Outcome:
        """Run the plan to its end, reporting on the way; a failed run is an ``Outcome``, not an exception."""


def check_arguments(plan: Plan, arguments: Arguments) -> Arguments:
    """Return the arguments with declared types and defaults.

    Raises:
        ParameterError: an unknown, missing or wrong one, before anything runs.
    """
    declared = plan.root.interface
    _check_known(plan, (*arguments.parameters, *arguments.artifacts))
    for name, slot in declared.artifacts.items():
        if name not in arguments.artifacts and not slot.optional:
            raise ParameterError(
                f"{plan.name} needs the artifact {name!r}", hint=f"-a {name}=PATH", code="parameter-missing"
            )
    return Arguments(parameters_with_defaults(declared, arguments.parameters, plan.name), arguments.artifacts)


def check_given(plan: Plan, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return some of a pipeline's parameters with their declared types; others may be given when it runs.

    Raises:
        ParameterError: an unknown or wrong one.
    """
    _check_known(plan, tuple(given))
    some = {n: replace(p, optional=True, default=None) for n, p in plan.root.interface.parameters.items() if n in given}
    return parameters_with_defaults(Interface(some), given, plan.name)


def _check_known(plan: Plan, names: Sequence[str]) -> None:
    declared = plan.root.interface
    for name in names:
        if name not in declared.parameters and name not in declared.artifacts:
            known = ", ".join([*declared.parameters, *declared.artifacts]) or "none"
            raise ParameterError(
                f"{plan.name} has no parameter {name!r}", allowed=f"Its parameters: {known}.", code="parameter-unknown"
            )


def parameters_with_defaults(declared: Interface, given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Fill in defaults and bring every value to its declared type; an omitted optional one stays absent.

    Raises:
        ParameterError: a missing one, or one of a wrong type or not among the allowed values.
    """
    values: dict[str, Any] = {}
    for name, parameter in declared.parameters.items():
        value = given.get(name)
        value = parameter.default if value is None else coerce(value, parameter.type, f"parameter {name!r} of {owner}")
        if value is None and not parameter.optional:
            raise ParameterError(f"{owner} needs the parameter {name!r}", hint=f"-p {name}=…", code="parameter-missing")
        if value is not None and parameter.literals and value not in parameter.literals:
            raise ParameterError(
                f"parameter {name!r} of {owner} is {value!r}",
                allowed=f"One of: {', '.join(map(repr, parameter.literals))}.",
                code="parameter-literal",
            )
        if value is not None:
            values[name] = value
    return values
