"""Register a model that passes its gate."""

from typing import NamedTuple, Optional

from kfp.dsl import Artifact, Dataset, Input, Model

import tidegate


@tidegate.component(image="train", registrar=True)
def register(
    model: Input[Model],
    evaluation: Input[Artifact],
    data: Input[Dataset],
    name: str,
    policy: str,
    tighten: Optional[float] = None,
) -> NamedTuple("Registered", [("registered", bool), ("version", int), ("digest", str), ("reason", str)]):
    """Judge a model by its policy and write it into the registry, or say why not."""
    from collections import namedtuple
    from pathlib import Path

    from tidegate.registry.register import Candidate, register

    said = register(
        Candidate(name, Path(model.path), Path(evaluation.path), Path(data.path), data.metadata, policy, tighten)
    )
    print(f"{name} version {said.version}: {said.reason}" if said.registered else f"{name} is kept out: {said.reason}")
    result = namedtuple("Registered", ["registered", "version", "digest", "reason"])
    return result(said.registered, said.version, said.digest, said.reason)
