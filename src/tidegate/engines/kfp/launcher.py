"""What runs in KFP's pods for components of ours: ``python -m tidegate.engines.kfp.launcher --executor_input JSON …``.

KFP's own launcher is around it: it has brought the inputs, and takes the outputs afterwards. Between the two the step is
done as everywhere: by the shared cache, with its record, log and bytes in the store.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidegate.author.step import read_input
from tidegate.engines.graph import Ready
from tidegate.engines.kfp import prepare
from tidegate.engines.kfp.handover import hand_over
from tidegate.engines.kfp.nodes import node_of
from tidegate.engines.kfp.site import FOLDER, Site
from tidegate.engines.kfp.stream import streamed
from tidegate.engines.pod.step import Done, Step, masks, perform, recorded, say
from tidegate.errors import ConfigError, TidegateError
from tidegate.plan.events import SUCCEEDED
from tidegate.plan.model import Container
from tidegate.store.open import open_store
from tidegate.store.patient import PatientStore


def main(argv: Sequence[str] | None = None) -> int:
    """Do one step; return its exit code."""
    parser = argparse.ArgumentParser(prog="tidegate.engines.kfp.launcher", description="Run one step inside KFP.")
    parser.add_argument("--executor_input")
    said, _ = parser.parse_known_args(argv)
    try:
        with_secret(Path(prepare.SECRET_FOLDER))
        return run(site(said.executor_input, os.environ))
    except TidegateError as e:
        return say(e)


def with_secret(folder: Path) -> None:
    """Make variables of the keys of the store's Secret: KFP can mount a whole Secret, but not give it as variables."""
    for file in sorted(folder.glob("[A-Z]*")) if folder.is_dir() else ():
        os.environ.setdefault(file.name, file.read_text().rstrip("\n"))


def site(executor_input: str | None, env: Mapping[str, str]) -> Site:
    """The run around this pod.

    Raises:
        ConfigError: the pod has no store.
    """
    if not env.get("TIDEGATE_STORE"):
        raise ConfigError(
            "the pod has no TIDEGATE_STORE",
            allowed="The Secret of the store, with TIDEGATE_STORE and the keys to it.",
            hint="kubectl create secret generic tidegate-store --from-env-file=FILE",
        )
    return Site(
        PatientStore(open_store(env["TIDEGATE_STORE"])),
        env[prepare.RUN_ID],
        node_of(env[prepare.NODE]),
        env[prepare.PLAN],
        read_input(executor_input),
        json.loads(env.get(prepare.ORIGIN) or "{}"),
        env.get(prepare.CACHE) != "false",
        Path(env.get("TIDEGATE_FOLDER") or FOLDER),
    )


def run(site: Site) -> int:
    """Perform the pod's step from its inputs to its record."""

    def tell(done: Done) -> None:
        if done.state == SUCCEEDED:
            hand_over(done.outputs, site.given, site.blobs, site.run_id, site.root)

    def streaming(ready: Ready) -> tuple[Step | None, Done]:
        executor = site.plan.executors[str(ready.task.component.body)]
        with streamed(site, masks(executor) if isinstance(executor, Container) else ()):
            return perform(site, ready)

    site.folder.mkdir(parents=True, exist_ok=True)
    _ = site.record  # written before the step, so that a run that nobody of ours started is seen while it goes on
    return recorded(site, streaming, tell)


if __name__ == "__main__":
    sys.exit(main())
