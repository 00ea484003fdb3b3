"""The seam to whatever starts and stops the servers of a front's arms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tidegate.rollout.counts import Score
from tidegate.rollout.state import Running, Target


class Fleet(Protocol):
    """Runs the versions that each arm shall have; it starts again what dies."""

    def want(self, arms: Mapping[str, Target], generation: int) -> None:
        """Let these arms run these versions, and no other arm; the same again changes nothing.

        Args:
            arms: the version of each arm.
            generation: never lower than that of the front's weights.

        Raises:
            Conflict: the front has weights of a higher generation: somebody else is in charge.
            ServerError: it cannot be told.
        """

    def wanted(self) -> Mapping[str, Target]:
        """Return what it was told last.

        Raises:
            ServerError: it cannot be asked.
        """

    def running(self) -> Mapping[str, Running]:
        """Return what runs now.

        Raises:
            ServerError: it cannot be asked.
        """


class Scores(Protocol):
    """Histograms of predictions, from the servers of every arm."""

    def latest(self) -> Mapping[str, tuple[Score, ...]]:
        """Return what each server said last, by arm, without waiting for any."""
