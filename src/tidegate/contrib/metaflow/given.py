"""What a flow is given in a step, and how its runs are found again: by tags.

A try is known by tidegate's run and step, the flow's code, its values, what is in its artifacts, and the environment.
Metaflow keeps values, also paths, when it resumes a run; so an artifact has the same path in every try.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.contrib.metaflow.interface import Interface
from tidegate.plan.key import environment_digest
from tidegate.store.blobs import digest_path

OURS = "tidegate_"  # how our tags begin


@dataclass(frozen=True)
class Given:
    """The arguments of a flow's parameters.

    Attributes:
        values: by the name of the input; of an artifact its path.
        artifacts: which of them are artifacts.
        tags: what a run of Metaflow is found by, the last one by the whole of it; none outside a run of tidegate.
    """

    values: Mapping[str, Any]
    artifacts: tuple[str, ...]
    tags: tuple[str, ...]

    @contextlib.contextmanager
    def placed(self, folder: Path) -> Iterator[Mapping[str, Any]]:
        """Give the values, artifacts under paths below ``folder`` that every try has while it lasts."""
        if not self.tags or not self.artifacts:
            yield self.values
            return
        links = folder / self.tags[-1][-16:]
        shutil.rmtree(links, ignore_errors=True)  # what a killed try left
        links.mkdir(parents=True)
        try:
            for name in self.artifacts:
                (links / name).symlink_to(self.values[name])
            yield {**self.values, **{n: str(links / n) for n in self.artifacts}}
        finally:
            shutil.rmtree(links, ignore_errors=True)


def read(interface: Interface, arguments: Mapping[str, Any], code: str) -> Given:
    """Take what belongs to the flow's parameters out of a component's arguments.

    Args:
        interface: the component's.
        arguments: by name; artifacts as kfp's executor makes them.
        code: the digest of the flow's code.
    """
    artifacts = tuple(p.input for p in interface.parameters if p.is_artifact and arguments.get(p.input))
    values: dict[str, Any] = {p.input: arguments.get(p.input) for p in interface.parameters}
    values |= {n: str(arguments[n].path) for n in artifacts}
    contents = values | {n: digest_path(Path(values[n])).digest for n in artifacts}
    return Given(values, artifacts, _tags([interface.flow, code, environment_digest(), contents]))


def _tags(known_by: list[Any]) -> tuple[str, ...]:
    run, step = os.environ.get("TIDEGATE_RUN_ID"), os.environ.get("TIDEGATE_STEP")
    if not run or not step:
        return ()
    digest = hashlib.sha256(json.dumps([run, step, *known_by], sort_keys=True).encode()).hexdigest()
    return f"{OURS}run:{run}", f"{OURS}step:{step}"[:400], f"{OURS}try:{digest}"
