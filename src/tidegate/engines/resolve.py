"""What placeholders of a command stand for, once it is known where a step's files are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.errors import StepFailed
from tidegate.ir.placeholder import Placeholder, Template, render


@dataclass(frozen=True)
class Resolver:
    """Placeholders of one step.

    Attributes:
        files: kfp's ExecutorInput with this machine's paths.
        context: names of the run, the task, the workspace.
        extra: parameters that the component does not declare.
    """

    files: Mapping[str, Any]
    context: Mapping[str, str]
    extra: Mapping[str, Any] = field(default_factory=dict)

    def words(self, template: Template) -> list[str]:
        """Render one element of a command."""
        return render(template, self, self._present)

    def text(self, template: Template) -> str:
        """Render what must be one word."""
        return "".join(self.words(template))

    def _present(self, name: str) -> bool:
        inputs = self.files["inputs"]
        return inputs["parameterValues"].get(name) is not None or bool(
            inputs["artifacts"].get(name, {}).get("artifacts")
        )

    def __call__(self, placeholder: Placeholder) -> Any:
        """Return the value of one placeholder; a parameter that was not given is empty text.

        Raises:
            StepFailed: it names no file or artifact of this step (code ``placeholder-unknown``).
        """
        name, outputs = placeholder.name, self.files["outputs"]
        match placeholder.form:
            case "executor_input":
                return self.files
            case "input_parameter":
                value = self.files["inputs"]["parameterValues"].get(name, self.extra.get(name))
                return "" if value is None else value
            case "input_artifact":
                return _artifact(placeholder, self.files["inputs"]["artifacts"])
            case "output_artifact":
                return _artifact(placeholder, outputs["artifacts"])
            case "output_parameter" if name in outputs["parameters"]:
                return outputs["parameters"][name]["outputFile"]
            case "output_file":
                return outputs["outputFile"]
            case "context":
                return self._context(name)
        raise _unknown(placeholder)

    def _context(self, name: str) -> str:
        value = self.context.get(name, "")
        if name == "workspace_path":
            Path(value).mkdir(parents=True, exist_ok=True)
        return value


def _artifact(placeholder: Placeholder, found: Mapping[str, Any]) -> Any:
    artifacts = found.get(placeholder.name, {}).get("artifacts", [])
    if not placeholder.attribute:
        return artifacts
    if not artifacts:
        return ""  # an optional one that was not given
    value = artifacts[0].get({"path": "uri"}.get(placeholder.attribute, placeholder.attribute), "")
    if not placeholder.key:
        return value
    if not isinstance(value, Mapping) or placeholder.key not in value:
        raise _unknown(placeholder)
    return value[placeholder.key]


def _unknown(placeholder: Placeholder) -> StepFailed:
    return StepFailed(
        f"the command asks for {json.dumps(placeholder.__dict__)}, which this step does not have",
        allowed="Inputs, outputs and metadata of the component itself.",
        code="placeholder-unknown",
    )
