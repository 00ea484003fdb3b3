"""Simulations of rollouts, with the judge's arithmetic replaced by a quick one where it is not what is asked about."""

from __future__ import annotations

import pytest

from tests.sim.world import quick_judge
from tidegate.rollout import judge


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, stand_in in quick_judge():
        monkeypatch.setattr(judge, name, stand_in)
