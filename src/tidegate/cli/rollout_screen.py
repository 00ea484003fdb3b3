"""A rollout on a terminal: each look in the place of the one before, never more than the terminal holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from tidegate.cli.rollout_text import fitted


class Screen:
    """A terminal that shows a rollout until it is stopped.

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._live = Live(console=Console(file=stream, highlight=False), auto_refresh=False, transient=True)
        self._live.start()

    def show(self, view: Mapping[str, Any]) -> None:
        """Show it as it is now."""
        self._live.update(_Frame(view), refresh=True)

    def stop(self) -> None:
        """Leave the terminal without it."""
        self._live.stop()


@dataclass(frozen=True)
class _Frame:
    """One look, made anew whenever it is drawn: the terminal may have another size by then."""

    view: Mapping[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = console.height - 1  # the cursor stands in the one below when it is taken away, or a row is left behind
        yield Text("\n".join(fitted(self.view, options.max_width, rows)), no_wrap=True)
