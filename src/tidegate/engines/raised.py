"""The traceback at the end of a log: what ended a Python program whose end nobody of ours was there to see."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from tidegate.author.frames import is_machinery

_TRACEBACK = "Traceback (most recent call last):\n"
_ATTEMPT = "\n== attempt "  # what follows it is another try
_RAISED = re.compile(r"[A-Za-z_][\w.]*(?::|$)")
_KFP = "[KFP Executor "
_FRAME = re.compile(r'  File "(.+)", line (\d+)(?:, in (.+))?')


@dataclass(frozen=True)
class Raised:
    """An error as people say it, its type and its message, and the frames of the user's that it came through."""

    said: str
    frames: Sequence[Mapping[str, Any]]


def raised(text: str) -> Raised | None:
    """Return what ended a Python program, None where its log does not end in a traceback."""
    _, found, trace = text.rpartition(_TRACEBACK)
    lines = trace.splitlines()
    last_frame = max((i for i, line in enumerate(lines) if line.startswith('  File "')), default=-1)
    end = next((i for i in range(last_frame + 1, len(lines)) if not lines[i].startswith("  ")), len(lines))
    # what kfp says of itself goes to the other pipe, of which the last may be read late
    said = "\n".join(takewhile(lambda line: not line.startswith(_KFP), lines[end:]))
    if not found or last_frame < 0 or not _RAISED.match(said) or _ATTEMPT in trace:
        return None
    return Raised(said, [f for f in _frames(lines[:end]) if not is_machinery(f["file"])])


def _frames(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if found := _FRAME.fullmatch(line):
            code = below.strip() if below.startswith("    ") else ""
            yield {"file": found[1], "line": int(found[2]), "function": found[3] or "<module>", "code": code}
