"""What a run looks like while it runs: live lines on a terminal, plain ones elsewhere."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tidegate.plan.events import FAILED, SKIPPED, Event, Notice, StepFinished, StepLog, StepStarted

if TYPE_CHECKING:
    from tidegate.cli.live import Live

_SIGNS = {"SUCCEEDED": ("✓", "green"), FAILED: ("✗", "red"), SKIPPED: ("-", "dim"), "CANCELED": ("!", "yellow")}
_LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib/python3\.\d+/|^<frozen ")  # frames that are nobody's own


class Progress:
    """Prints events of a run to a stream; safe to call from several threads.

    Args:
        stream: where to print.
        logs: pass on what steps write.
    """

    def __init__(self, stream: TextIO = sys.stdout, *, logs: bool = False) -> None:
        self._stream, self._logs = stream, logs
        self._running: dict[str, None] = {}
        self._lock = threading.Lock()
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        """Show what is running, on a terminal."""
        if self._stream.isatty():
            from tidegate.cli.live import Live

            self._live = Live(self._stream)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop showing what is running."""
        if self._live:
            self._live.stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to a question."""
        with self._lock:
            if self._live:
                self._live.stop()
            yield

    def report(self, event: Event) -> None:
        """Print one event."""
        with self._lock:
            match event:
                case StepStarted(step):
                    self._running[step] = None
                case StepLog(step, line) if self._logs:
                    self._print("dim", f"{step} |", line)
                case StepFinished():
                    self._running.pop(event.step, None)
                    sign, style = _SIGNS.get(event.state, (" ", ""))
                    self._print(style, sign, f"{event.step} {_how(event)}")
                case Notice(text):
                    self._print("yellow", "note:", text)
            if self._live:
                self._live.running(self._running)

    def _print(self, style: str, sign: str, text: str) -> None:
        if self._live:
            self._live.print(style, sign, text)
        else:
            with contextlib.suppress(OSError):  # a full disk or a reader that left must not fail the run
                print(sign, text, file=self._stream, flush=True)


def _how(event: StepFinished) -> str:
    if event.cached:
        return event.note or "cached"
    if event.state == SKIPPED:
        return event.note
    how = f"{event.seconds:.2f} s" + (f", {event.note}" if event.note else "")
    return f"{how}  {first_line(event.error)}" if event.error else how


def first_line(error: Mapping[str, Any]) -> str:
    """The beginning of why a step failed."""
    return (str(error.get("message", "")).strip().splitlines() or [""])[0][:120]


def failure(error: Mapping[str, Any], root: Path, log: str, again: str) -> list[str]:
    """The end of a failed run in at most 15 lines: the step, the user's own frames, the cause, what to type next."""
    lines = [f"step {error['step']} failed" if error.get("step") else "the run ended early"]
    frames = [f for f in error.get("frames", ()) if not _LIBRARY.search(f["file"])] or list(error.get("frames", ()))
    for frame in frames[-3:]:
        lines.append(f"  {_short(frame['file'], root)}:{frame['line']} in {frame['function']}")
        lines += [f"    {frame['code']}"] if frame["code"] else []
    lines += [f"  | {line}" for line in error.get("tail", ())]
    lines += [f"error[{error['code']}]: {line}" if not i else f"  {line}" for i, line in enumerate(_cause(error))]
    lines += [f"log: {log}"] if log else []
    return [*lines[:14], f"go on from here: {again}"]


def _cause(error: Mapping[str, Any]) -> list[str]:
    message = str(error["message"]).strip().splitlines()[:3] or [""]
    return [*message, *(error[k] for k in ("allowed", "hint") if error.get(k))]


def _short(file: str, root: Path) -> str:
    path = Path(file)
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name
