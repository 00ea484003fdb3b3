"""The cache key of a step: everything its outputs may depend on, in canonical form, hashed."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tidegate.plan.model import Component, Interface
from tidegate.plan.value import Artifact

VERSION = 2


@dataclass(frozen=True)
class KeyParts:
    """The parts of a cache key, by name, so that two keys can be compared and the difference named."""

    interface: Any
    command: Any
    env: Mapping[str, str]
    environment: str
    parameters: Mapping[str, Any]
    artifacts: Any
    settings: Any

    @property
    def key(self) -> str:
        """sha256 hex over the canonical JSON of all parts and the key version."""
        text = json.dumps({"version": VERSION, **self.__dict__}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def digests(self) -> dict[str, str]:
        """A short digest a part and an input, kept in step records to say later which one changed."""
        parts = {n: v for n, v in self.__dict__.items() if n not in ("parameters", "artifacts")}
        parts |= {f"parameter {n}": v for n, v in self.parameters.items()}
        parts |= {f"artifact {n}": v for n, v in self.artifacts.items()}
        texts = {n: json.dumps(v, sort_keys=True) for n, v in parts.items()}
        return {n: hashlib.sha256(t.encode()).hexdigest()[:16] for n, t in texts.items()}


def named_key(pipeline: str, component: Component, name: str) -> str:
    """The key of a task whose author named it (``set_caching_options(cache_key=…)``), within its pipeline."""
    made = component.interface
    outputs = {
        **{n: p.type for n, p in made.output_parameters.items()},
        **{n: a.type for n, a in made.output_artifacts.items()},
    }
    said = {"version": VERSION, "pipeline": pipeline, "component": component.name, "name": name, "outputs": outputs}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def key_parts(
    interface: Interface,
    command: Sequence[Any],
    env: Mapping[str, str],
    parameters: Mapping[str, Any],
    artifacts: Mapping[str, Sequence[Artifact]],
    *,
    distributions: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> KeyParts:
    """Collect the parts of a step's key.

    Args:
        interface: declared inputs and outputs.
        command: the command with its placeholders unresolved; it holds the component's code digest, or its source.
        env: environment variables of the task.
        parameters: input values by name.
        artifacts: input artifacts by name; their digests and metadata count, their addresses do not.
        distributions: what is installed in the environment that runs the step, where it is not this one.
        settings: the engine's own settings of the task that its result may depend on.
    """
    outputs = {n: s.type for n, s in interface.output_artifacts.items()}
    declared = {"parameters": {n: p.type for n, p in interface.output_parameters.items()}, "artifacts": outputs}
    inputs = {n: [[a.digest or a.uri, dict(a.metadata)] for a in found] for n, found in artifacts.items()}
    environment = (
        hashlib.sha256("\n".join(distributions).encode()).hexdigest() if distributions else environment_digest()
    )
    words = [repr(c) for c in command]
    return KeyParts(declared, words, dict(env), environment, dict(parameters), inputs, dict(settings or {}))


@cache
def environment_digest() -> str:
    """Digest of what runs the steps: installed distributions, Python's minor version, the machine, tidegate itself."""
    names = sorted({p.name.removesuffix(".dist-info") for s in sys.path if s for p in Path(s).glob("*.dist-info")})
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return environment_of([*names, *_own_sources()], version, platform.machine())


def environment_of(names: Sequence[str], python: str, machine: str) -> str:
    """Digest of an environment that may be another than this one, such as an image's.

    Args:
        names: name and version of each distribution, sorted.
        python: Python's minor version, ``3.11``.
        machine: what it runs on, ``x86_64``.
    """
    lines = [f"python {python}", f"machine {machine}", *names]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _own_sources() -> list[str]:
    # an editable checkout has the same version while its code changes; an installed wheel has not
    root = Path(__file__).parents[1]
    if "site-packages" in root.parts:
        return []
    files = sorted([*root.glob("author/*.py"), *root.glob("contrib/**/*.py")])
    return [f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.name}" for p in files]
