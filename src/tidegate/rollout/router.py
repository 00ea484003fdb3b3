"""The seam to whatever shares live traffic between versions: weights go in, counts come out.

An *arm* is a group of server processes of one version. ``stable`` is always there; ``canary`` is the candidate;
``baseline`` is a fresh process of the stable version, given as much traffic as the canary: the one fair control.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

STABLE, BASELINE, CANARY = "stable", "baseline", "canary"
ARMS = (STABLE, BASELINE, CANARY)
WHOLE = 10_000

# microseconds from a whole request to its answer, 0.25 ms to 10 s, each a quarter more than the one before
LATENCY_EDGES = tuple(round(250 * 1.25**i) for i in range(48))


@dataclass(frozen=True)
class Tally:
    """What one arm was asked, and how it answered; counts only grow while the front's ``epoch`` stays the same.

    Attributes:
        requests: requests that the arm was given first, and that are over. Of stable's only those that might have gone
            to another arm: a request that cannot be sent twice, or is too large for that, always goes to stable.
        errors: those among them that it failed: 5xx, 429, no answer in time, a broken connection, no HTTP. Also those
            that were sent again to stable, so that no client saw it.
        latency: requests answered by the arm itself, by the time it took: one count for each edge of
            ``LATENCY_EDGES`` (up to and including it), and one for what took longer.
        refused: requests that the arm itself refused, 4xx without 429: they are no errors, reach the client, and are
            not in ``latency``, because to refuse is quick. A proxy that an older tidegate started has them there.
    """

    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = (0,) * (len(LATENCY_EDGES) + 1)
    refused: int = 0


@dataclass(frozen=True)
class Observation:
    """What a front says of itself at one moment.

    Attributes:
        epoch: another text after the front started again; counts then begin at 0.
        generation: of the weights that are in force, as ``set_weights`` was given it.
        weights: the share of each arm that has one, in parts of ``WHOLE``; they add up to it.
        arms: the counts of each arm.
    """

    epoch: str = ""
    generation: int = 0
    weights: Mapping[str, int] = field(default_factory=lambda: {STABLE: WHOLE})
    arms: Mapping[str, Tally] = field(default_factory=dict)


class Router(Protocol):
    """Shares requests between arms at random, each request by itself."""

    def set_weights(self, weights: Mapping[str, int], generation: int) -> None:
        """Give each arm its share from now on; arms that are not named get nothing.

        The same weights with the same generation again change nothing.

        Args:
            weights: parts of ``WHOLE`` by arm, which add up to it.
            generation: never lower than that of the weights in force.

        Raises:
            Conflict: the front has weights of a higher generation: somebody else is in charge.
            ServerError: it cannot be reached, or what came of it is unknown; asking again is safe.
        """

    def observe(self) -> Observation:
        """Return weights and counts as they are now.

        Raises:
            ServerError: the front cannot be reached.
        """
