"""Who may change a front's weights: the newest generation, which lies in the proxy itself and in ``weights.json``.

A lock makes "look at the generation, then set" one step for any number of controllers of this machine. Who only takes
traffic away does not wait long for it: a process that was stopped with the lock in its hands must not keep a candidate
in traffic. Should it go on, it may set once what it was about to, and finds at its next look that it was overruled.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from tidegate.errors import Conflict, ServerError
from tidegate.rollout.front.files import locked
from tidegate.rollout.front.weights import Weights, commit, committed

LOCK = "weights.lock"
PATIENCE = 0.5  # seconds; a change takes milliseconds


class InForce(Protocol):
    """The weights of a proxy that runs."""

    def weights(self) -> Weights:
        """The weights in force.

        Raises:
            ServerError: the proxy cannot be reached.
        """

    def force(self, weights: Weights) -> None:
        """Put weights in force, whatever they were; nothing is kept.

        Raises:
            ServerError: they are not in force, or it is unknown.
        """


def change(folder: Path, proxy: InForce, wanted: Weights) -> None:
    """Put weights in force, then keep them; what a proxy that is dead is to lose is kept all the same.

    Raises:
        Conflict: somebody newer is in charge.
        ServerError: see ``InForce``, ``commit``; or somebody who does not go on holds the lock (code ``front-held``).
    """
    with locked(folder / LOCK, PATIENCE) as held:
        kept = committed(folder)
        if not held and wanted.gives_more_than(kept):
            raise ServerError(
                f"another process has held {folder / LOCK} for {PATIENCE:g} s",
                allowed="A controller that runs; one that was stopped holds up whoever gives more traffic.",
                hint=f"fuser {folder / LOCK} says which",
                code="front-held",
            )
        check_fence(wanted, kept)
        try:
            now = proxy.weights()
            if wanted != kept:  # the proxy may have begun with less than what is kept: see ``restore``
                check_fence(wanted, now)
            if now != wanted:
                proxy.force(wanted)
        except ServerError:
            if not wanted.gives_more_than(kept):
                commit(folder, wanted)
            raise
        if kept != wanted:
            commit(folder, wanted)


def restore(folder: Path, proxy: InForce, arms: Collection[str]) -> None:
    """Put the kept weights in force where the proxy began with less, once all their arms have servers.

    Raises:
        ServerError: see ``InForce``.
    """
    with locked(folder / LOCK, PATIENCE) as held:
        kept, now = committed(folder), proxy.weights()
        if held and kept.generation == now.generation and kept != now and kept.among(arms) == kept:
            proxy.force(kept)


def check_fence(wanted: Weights, there: Weights) -> None:
    """Refuse weights of an older generation, and others of the same.

    Raises:
        Conflict: somebody newer is in charge (code ``rollout-fenced``).
    """
    older = wanted.generation < there.generation
    if older or (wanted.generation == there.generation and wanted != there):
        raise Conflict(
            f"the front has weights of the generation {there.generation}, and you are {wanted.generation}",
            allowed="A newer generation, or the same weights again: somebody else is in charge of this rollout.",
            hint="tidegate rollout status",
            code="rollout-fenced",
        )
