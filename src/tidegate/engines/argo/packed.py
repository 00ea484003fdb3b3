"""A definition packed into text that a Workflow carries to its pods: no quotes, no braces, no source code to read."""

from __future__ import annotations

import base64
import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from tidegate.errors import DefinitionError
from tidegate.plan.build import build
from tidegate.plan.model import Plan

MAX_PACKED = 192 * 1024  # Kubernetes takes 256 KiB of annotations for one object
MAX_UNPACKED = 64 << 20


@dataclass(frozen=True)
class Packed:
    """What pods are told of the run.

    Attributes:
        spec: the PipelineSpec, checked.
        platforms: its platform settings.
        origin: where it came from, as fields of a run's record: commit, user, target …
        use_cache: look for results of earlier runs.
    """

    spec: Mapping[str, Any]
    platforms: Mapping[str, Any]
    origin: Mapping[str, str] = field(default_factory=dict)
    use_cache: bool = True

    @cached_property
    def plan(self) -> Plan:
        """The plan of the definition, which was checked before it was packed."""
        return build(self.spec, self.platforms)


def pack(packed: Packed) -> str:
    """Pack a definition.

    Raises:
        DefinitionError: it is too large (code ``argo-too-large``).
    """
    text = json.dumps({f.name: getattr(packed, f.name) for f in fields(packed)}, sort_keys=True, separators=(",", ":"))
    found = base64.b64encode(lzma.compress(text.encode(), preset=6)).decode()
    if len(found) > MAX_PACKED:
        raise DefinitionError(
            f"the definition takes {len(found) / 1024:.0f} KiB packed",
            allowed=f"{MAX_PACKED // 1024} KiB, which a Workflow can carry to its pods.",
            hint="Move code out of lightweight components into @tidegate.component, or split the pipeline.",
            code="argo-too-large",
        )
    return found


def unpack(text: str) -> Packed:
    """Read what ``pack`` wrote.

    Raises:
        DefinitionError: it is something else (code ``argo-plan-unreadable``).
    """
    try:
        unpacking = lzma.LZMADecompressor()
        found = unpacking.decompress(base64.b64decode(text, validate=True), MAX_UNPACKED)
        if not unpacking.eof:
            raise ValueError("it was cut off, or is too large")
        return Packed(**json.loads(found))
    except (ValueError, TypeError, RecursionError, lzma.LZMAError) as e:
        raise DefinitionError(
            f"the plan that the Workflow carries cannot be read: {e}", code="argo-plan-unreadable"
        ) from e
