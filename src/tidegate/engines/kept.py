"""Whether a step that finished before its run was interrupted stays finished when the run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from tidegate.engines.graph import Ready
from tidegate.engines.values import Values, values_from_json
from tidegate.errors import Damaged, NotFound
from tidegate.plan.events import StepFinished
from tidegate.store.blobs import Blobs
from tidegate.store.runs import StepRecord


def kept_outputs(record: StepRecord | None, ready: Ready, blobs: Blobs) -> tuple[Values | None, str]:
    """Return what a step made if it had the same inputs and all of it is whole, and what of it is damaged."""
    # as text, since NaN is not equal to itself
    if not record or json.dumps(record.inputs, sort_keys=True) != json.dumps(ready.inputs.as_json(), sort_keys=True):
        return None, ""
    outputs = values_from_json(record.outputs)
    try:
        for artifact in (a for found in outputs.artifacts.values() for a in found if a.digest):
            blobs.check(artifact.digest, artifact.kind)
    except (Damaged, NotFound) as e:
        return None, e.found
    return outputs, ""


def is_kept(record: StepRecord | None, finished: Mapping[str, StepRecord]) -> bool:
    """Whether a step's record is that of an earlier try of its run: a step that runs again leaves another."""
    before = finished.get(record.path) if record else None
    return bool(record and before and before.ended == record.ended)


def as_kept(step: StepFinished) -> StepFinished:
    """A step that an earlier try of its run had finished, told apart from what this one did."""
    return replace(step, cached=True, kept=True, note="finished before")
