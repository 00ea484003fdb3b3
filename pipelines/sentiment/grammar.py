"""Reviews from a seeded grammar: what they mean depends on the order of words, so a bag of words is not enough.

A clause says that an aspect was good or bad, with an intensity (1 to 3), perhaps negated at a distance ("i can not say
that the service was really good"). The review's sentiment is the sign of the sum over its clauses; in a contrast ("X,
but Y") the clause after the contrast decides alone. Version 1 has no contrast. Training labels carry 8 % noise; held-out
labels are clean.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

NOISE = 0.08
CONTRAST = {"v1": 0.0, "v2": 0.24}
_ASPECTS = tuple(
    "food service room staff location price breakfast bed view music soup dessert waiter menu pool lobby "
    "parking noise light garden bar coffee bread wine".split()
)
_GOOD = tuple("good great lovely excellent pleasant superb charming brilliant friendly perfect fresh wonderful".split())
_BAD = tuple("bad awful dirty terrible boring poor rude horrible stale noisy bland disappointing".split())
_INTENSITY = (("", 1), ("a bit", 1), ("fairly", 1), ("very", 2), ("really", 2), ("extremely", 3), ("absolutely", 3))
_NEGATION = (
    "i can not say that",
    "nobody would claim that",
    "it is not true that",
    "i never felt that",
    "i doubt that",
)
_PLAIN = ("", "", "", "i think", "we found that", "they told us that", "honestly", "this time")
_LINKS = ("and", "also", "then", "and besides")
_CONTRASTS = ("but", "however", "yet in the end")


@dataclass(frozen=True)
class Review:
    """One review: its text, 1 for positive."""

    text: str
    label: int


def reviews(version: str, rows: int, seed: int, noise: float = NOISE) -> list[Review]:
    """Return ``rows`` reviews of a version (``v1`` or ``v2``)."""
    rng = random.Random(f"{version}/{seed}")
    return [_review(rng, CONTRAST[version], noise) for _ in range(rows)]


def _review(rng: random.Random, contrast: float, noise: float) -> Review:
    while True:
        first = [_clause(rng) for _ in range(rng.choice((1, 1, 1, 1, 2)))]
        text, score = _joined(rng, first)
        if min(s for _, s in first) < 0 < max(s for _, s in first) and abs(score) < 2:
            continue  # clauses that disagree do so clearly: the stronger word decides
        if rng.random() < contrast:
            last, decides = _clause(rng)
            # mostly a real contrast: the second clause says the opposite of the first
            if decides * score > 0 and rng.random() < 0.8:
                continue
            text, score = f"{text} , {rng.choice(_CONTRASTS)} {last}", decides
        if score:
            return Review(text, int(score > 0) ^ int(rng.random() < noise))


def _clause(rng: random.Random) -> tuple[str, int]:
    good = rng.random() < 0.5
    word, weight = rng.choice(_INTENSITY)
    negated = rng.random() < 0.35
    opening = rng.choice(_NEGATION if negated else _PLAIN)
    said = f"{opening} the {rng.choice(_ASPECTS)} was {word} {rng.choice(_GOOD if good else _BAD)}"
    return " ".join(said.split()), weight * (1 if good else -1) * (-1 if negated else 1)


def _joined(rng: random.Random, clauses: list[tuple[str, int]]) -> tuple[str, int]:
    text = f" {rng.choice(_LINKS)} ".join(c for c, _ in clauses)
    return text, sum(s for _, s in clauses)
