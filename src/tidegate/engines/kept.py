"""Whether a step that finished before its run was interrupted stays finished when the run goes on."""

from __future__ import annotations

import json

from tidegate.engines.graph import Ready
from tidegate.engines.values import Values, values_from_json
from tidegate.errors import Damaged, NotFound
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
