"""What runs in the pods of a run: ``python -m tidegate.engines.argo.launcher``, a whole step in an image of ours.

Where the image is somebody else's, ``beside`` is its sidecar; ``end`` writes how the run ended. They are programs of
their own because a pod waits for each module that is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from tidegate.engines.argo.control import control, count
from tidegate.engines.argo.pod import Pod, read_pod
from tidegate.engines.argo.site import Site
from tidegate.engines.pod.step import Done, perform, recorded, say
from tidegate.errors import ConfigError, TidegateError
from tidegate.plan.events import SUCCEEDED
from tidegate.store.open import open_store
from tidegate.store.patient import PatientStore


def launch(part: Callable[[Site], int]) -> NoReturn:
    """Do one container's part of a step, and end the process with its exit code."""
    try:
        if words := sys.argv[1:]:
            raise ConfigError(
                f"the pod's program is given {' '.join(words)!r}",
                allowed="Nothing: a Workflow that says more is of another version than its image.",
                hint="Compile the pipeline again.",
                code="argo-version",
            )
        code = part(Site(read_pod(), PatientStore(open_store(_store_uri()))))
    except TidegateError as e:
        code = say(e)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # to take the interpreter apart takes as long as a third of what was imported


def _store_uri() -> str:
    if uri := os.environ.get("TIDEGATE_STORE"):
        return uri
    raise ConfigError(
        "the pod has no TIDEGATE_STORE", allowed="The Secret of the store, whole.", hint="tidegate doctor --engine argo"
    )


def run(site: Site) -> int:
    """Perform the pod's step from its inputs to its record."""
    return recorded(site, lambda ready: perform(site, ready), partial(tell_argo, site.pod))


def tell_argo(pod: Pod, done: Done) -> None:
    """Leave what conditions and loops want to know where Argo fetches it."""
    if done.state != SUCCEEDED:
        return
    (pod.folder / "out").mkdir(exist_ok=True)
    for file, (kind, name, need) in pod.control.items():
        if kind == "artifact":
            text = count(len(done.outputs.artifacts.get(name, ())))
        else:
            text = control(done.outputs.parameters[name], need, f"the output {name!r} of {pod.step}")
        path = pod.folder / "out" / file
        path.unlink(missing_ok=True)  # a step could have left a link there
        path.write_text(text)


if __name__ == "__main__":
    launch(run)
