"""A terminal on which lines scroll by and what is running stays at the bottom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.text import Text


class Live:
    """A terminal.

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._status = self._console.status("starting")
        self._status.start()

    def print(self, style: str, sign: str, text: str) -> None:
        """Print a line; only the sign is coloured."""
        self._console.print(Text.assemble((sign, style), " ", text))

    def running(self, steps: Iterable[str]) -> None:
        """Show the steps that are running."""
        self._status.update(Text("running " + ", ".join(steps) if steps else "waiting"))

    def stop(self) -> None:
        """Leave the terminal as it was."""
        self._status.stop()
