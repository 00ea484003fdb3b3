"""As much of a terminal as what is shown on one needs: rows that scroll away, a cursor that goes up, rows that are emptied."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_PART = re.compile(r"\x1b\[(\??)(\d*)([A-Za-z])|\r|\n|[^\x1b\r\n]")


@dataclass
class Terminal:
    """A terminal of so many columns and rows.

    Attributes:
        gone: rows that have scrolled away.
        rows: those that are seen.
    """

    width: int
    height: int
    gone: list[str] = field(default_factory=list)
    is_cursor_hidden: bool = False

    def __post_init__(self) -> None:
        self.rows = [""] * self.height
        self._x = self._y = 0

    @property
    def shown(self) -> list[str]:
        """All rows with something in them, the oldest first."""
        return [row.rstrip() for row in [*self.gone, *self.rows] if row.strip()]

    def feed(self, text: str) -> None:
        for part in _PART.finditer(text):
            match part[0][0]:
                case "\x1b":
                    self._obey(part[1], part[2], part[3])
                case "\r":
                    self._x = 0
                case "\n":
                    self._down()
                case letter:
                    self._put(letter)

    def _obey(self, private: str, number: str, order: str) -> None:
        if private:
            assert (number, order in "hl") == ("25", True), f"?{number}{order}"
            self.is_cursor_hidden = order == "l"
        elif order == "A":
            self._y = max(self._y - int(number or 1), 0)
        elif order == "K":
            assert number == "2"
            self.rows[self._y] = ""
        else:
            assert order == "m", f"{number}{order}"

    def _put(self, letter: str) -> None:
        if self._x == self.width:
            self._x = 0
            self._down()
        self.rows[self._y] = self.rows[self._y].ljust(self._x)[: self._x] + letter + self.rows[self._y][self._x + 1 :]
        self._x += 1

    def _down(self) -> None:
        if self._y < self.height - 1:
            self._y += 1
        else:
            self.gone.append(self.rows.pop(0))
            self.rows.append("")
