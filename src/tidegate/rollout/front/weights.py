"""The weights of a front: packed into one integer for HAProxy, kept in ``weights.json`` for its next start."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.errors import Damaged, ServerError, UsageError
from tidegate.rollout.front import files
from tidegate.rollout.router import ARMS, BASELINE, CANARY, STABLE, WHOLE

FILE = "weights.json"
_BITS = 14
_MASK = (1 << _BITS) - 1
_GENERATIONS = 1 << (63 - 2 * _BITS)  # HAProxy's integers are signed, of 64 bits


@dataclass(frozen=True)
class Weights:
    """Shares by arm, in parts of ``WHOLE``, and the generation of who set them."""

    shares: Mapping[str, int] = field(default_factory=lambda: {STABLE: WHOLE})
    generation: int = 0

    def __post_init__(self) -> None:
        if unknown := [arm for arm in self.shares if arm not in ARMS]:
            raise UsageError(f"there is no arm {unknown[0]!r}", allowed=f"{', '.join(ARMS)}.", code="weights")
        if any(share < 0 for share in self.shares.values()) or sum(self.shares.values()) != WHOLE:
            raise UsageError(f"the weights {dict(self.shares)} do not add up to {WHOLE}", code="weights")
        if not 0 <= self.generation < _GENERATIONS:
            raise UsageError(f"the generation {self.generation} is out of range", code="generation")
        object.__setattr__(self, "shares", {arm: self.shares[arm] for arm in ARMS if self.shares.get(arm)})

    def among(self, arms: Collection[str]) -> Weights:
        """The same, with what other arms have given to stable."""
        kept = {arm: share for arm, share in self.shares.items() if arm in arms and arm != STABLE}
        return Weights({**kept, STABLE: WHOLE - sum(kept.values())}, self.generation)

    def gives_more_than(self, other: Weights) -> bool:
        """Whether a candidate gets more here than there."""
        return any(self.shares.get(arm, 0) > other.shares.get(arm, 0) for arm in (CANARY, BASELINE))


def pack(weights: Weights) -> int:
    """Return one integer: generation, where baseline's share ends, where canary's does."""
    canary = weights.shares.get(CANARY, 0)
    upto = canary + weights.shares.get(BASELINE, 0)
    return (weights.generation << 2 * _BITS) | (upto << _BITS) | canary


def unpack(packed: int) -> Weights:
    """The inverse of ``pack``."""
    canary, upto = packed & _MASK, packed >> _BITS & _MASK
    shares = {CANARY: canary, BASELINE: upto - canary, STABLE: WHOLE - upto}
    return Weights(shares, packed >> 2 * _BITS)


def committed(folder: Path) -> Weights:
    """Return the weights that the front starts with again; all for stable where there are none that can be read."""
    try:
        found = files.read(folder / FILE)
        return Weights(found["weights"], found["generation"]) if found else Weights()
    except (Damaged, UsageError, KeyError, TypeError, AttributeError):
        return Weights()


def commit(folder: Path, weights: Weights) -> None:
    """Keep the weights for the next start.

    Raises:
        ServerError: they cannot be written (code ``front-file``).
    """
    try:
        files.write(folder / FILE, {"generation": weights.generation, "weights": dict(weights.shares)})
    except OSError as e:
        raise ServerError(f"cannot write {folder / FILE}: {e.strerror}", code="front-file") from e
