"""What a flow takes and gives as a component; the same when a pipeline is compiled and when its step runs.

It travels from one to the other in an environment variable of the component, and so counts in the cache key.
"""

from __future__ import annotations

import inspect
import json
import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Optional

from tidegate.contrib.metaflow.flow import FILE, TYPES, Flow, Parameter
from tidegate.errors import DefinitionError

VARIABLE = "TIDEGATE_METAFLOW"
METRICS = "metrics"
ARTIFACTS = ("Artifact", "Dataset", "HTML", "Markdown", "Metrics", "Model")


@dataclass(frozen=True)
class Interface:
    """A flow's inputs and outputs.

    Attributes:
        flow: ``FOLDER/flow.py:NAME``.
        parameters: what it takes.
        artifacts: what of its artifacts comes out, as a kfp artifact or as an output parameter: names of their types.
        metrics: its numbers that come out together, as the artifact ``metrics``.
    """

    flow: str
    parameters: tuple[Parameter, ...] = ()
    artifacts: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()

    @property
    def values(self) -> Mapping[str, str]:
        """The output parameters: name -> type."""
        return {n: t for n, t in self.artifacts.items() if t in TYPES}

    def text(self) -> str:
        """All but the flow, as one line."""
        parameters = [{k: v for k, v in asdict(p).items() if k in ("name", "type")} for p in self.parameters]
        said = {"parameters": parameters, "artifacts": dict(self.artifacts), "metrics": self.metrics}
        return json.dumps(said, separators=(",", ":"))

    @classmethod
    def of(cls, flow: str, text: str) -> Interface:
        """Read what ``text`` wrote."""
        said = json.loads(text)
        parameters = tuple(Parameter(**p) for p in said["parameters"])
        return cls(flow, parameters, said["artifacts"], tuple(said["metrics"]))


def adjusted(flow: Flow, said: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """A flow's parameters with what the pipeline says of them: by name, a type or another default."""
    found = {p.name: p for p in flow.parameters}
    for name, value in said.items():
        known = next((p for p in flow.parameters if name in (p.name, p.input)), Parameter(name))
        if isinstance(value, type):
            required = known.required or (value.__name__ in ARTIFACTS and known.default is None)
            found[known.name] = Parameter(known.name, value.__name__, None, required, known.help)
        else:
            kind = known.type if known in flow.parameters else type(value).__name__
            found[known.name] = Parameter(known.name, kind, value, False, known.help)
    return tuple(found.values())


def checked(interface: Interface) -> Interface:
    """Return an interface that kfp can have.

    Raises:
        DefinitionError: a name or a type is none, or two things have one name (code ``flow-interface``).
    """
    for parameter in interface.parameters:
        if parameter.type not in (*TYPES, *ARTIFACTS, FILE):
            raise _wrong(f"its parameter {parameter.name!r} is a {parameter.type}", ", ".join((*TYPES, *ARTIFACTS)))
        if parameter.default is not None and not isinstance(parameter.default, _accepted(parameter.type)):
            raise _wrong(f"its parameter {parameter.name!r} has the default {parameter.default!r}", parameter.type)
    for name, kind in interface.artifacts.items():
        if kind not in (*TYPES, *ARTIFACTS):
            raise _wrong(f"its artifact {name!r} comes out as {kind}", ", ".join((*ARTIFACTS, *TYPES)))
    outputs = [*interface.artifacts, *([METRICS] if interface.metrics else [])]
    names = [*(p.input for p in interface.parameters), *outputs]
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise _wrong(f"{name!r} is no name in Python", "Letters, digits and _.")
        if names.count(name) > 1:
            raise _wrong(f"two of its inputs and outputs are called {name!r}", "One name, one input or output.")
    return interface


def _accepted(kind: str) -> tuple[type, ...]:
    return () if kind not in TYPES else (int, float) if kind == "float" else (TYPES[kind],)


def _wrong(found: str, allowed: str) -> DefinitionError:
    return DefinitionError(f"the flow cannot be a component: {found}", allowed=allowed, code="flow-interface")


def as_function(interface: Interface, perform: Callable[[Interface, Mapping[str, Any]], Any], doc: str = "") -> Any:
    """Make the function of a component: kfp's type hints outside, ``perform`` inside.

    Args:
        interface: what it takes and gives.
        perform: called with the interface and the arguments by name.
        doc: what the flow says of itself.
    """

    def flow(**given: Any) -> Any:
        return perform(interface, given)

    signature = _signature(interface)
    hints = {n: p.annotation for n, p in signature.parameters.items()}
    if interface.values:
        hints["return"] = signature.return_annotation
    flow.__signature__, flow.__annotations__ = signature, hints  # type: ignore[attr-defined]
    flow.__name__ = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", interface.flow.rpartition(":")[2]).lower()
    helps = [f"    {p.input}: {' '.join(p.help.split())}" for p in interface.parameters if p.help]
    flow.__doc__ = "\n".join([doc, "", "Args:", *helps] if helps else [doc])
    return flow


def _signature(interface: Interface) -> inspect.Signature:
    from kfp import dsl

    parameters = [_input(p) for p in interface.parameters]
    outputs = {n: t for n, t in interface.artifacts.items() if t not in TYPES}
    outputs |= {METRICS: "Metrics"} if interface.metrics else {}
    parameters += [_keyword(n, dsl.Output[getattr(dsl, t)]) for n, t in outputs.items()]
    if not interface.values:
        return inspect.Signature(parameters)
    returned = NamedTuple("Values", [(n, TYPES[t]) for n, t in interface.values.items()])  # type: ignore[misc]
    return inspect.Signature(parameters, return_annotation=returned)


def _input(parameter: Parameter) -> inspect.Parameter:
    from kfp import dsl

    artifact = getattr(dsl, "Artifact" if parameter.type == FILE else parameter.type, None)
    kind = dsl.Input[artifact] if parameter.is_artifact else TYPES[parameter.type]
    if parameter.required:
        return _keyword(parameter.input, kind)
    if parameter.default is not None or parameter.is_artifact:
        return _keyword(parameter.input, kind, parameter.default)
    return _keyword(parameter.input, Optional[kind], None)  # noqa: UP045 - kfp reads this form


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
