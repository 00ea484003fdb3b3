"""What an engine is: something that runs a plan and says how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    for name in (*arguments.parameters, *arguments.artifacts):
        if name not in declared.parameters and name not in declared.artifacts:
            known = ", ".join([*declared.parameters, *declared.artifacts]) or "none"
            raise ParameterError(
                f"{plan.name} has no parameter {name!r}", allowed=f"Its parameters: {known}.", code="parameter-unknown"
            )
    for name, slot in declared.artifacts.items():
        if name not in arguments.artifacts and not slot.optional:
            raise ParameterError(
                f"{plan.name} needs the artifact {name!r}", hint=f"-a {name}=PATH", code="parameter-missing"
            )
    return Arguments(parameters_with_defaults(declared, arguments.parameters, plan.name), arguments.artifacts)


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
