"""The pipelines of this repository, here and there.

sentiment is not among them: its image is several GB, and its data a repository that pods would have to reach.
"""

from typing import Any

import pytest

from tests.cluster.ahead import Work, ahead
from tests.cluster.ran import Ran, differences

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
Both = tuple[Ran, Ran]


def both(name: str, *words: str) -> Work:
    file = f"pipelines/{name}/pipeline.py"
    return lambda ground: (ground.here(file, *words), ground.there(file, *words))


def case(name: str, *words: str) -> Any:
    return pytest.param(name, id=name, marks=ahead(both(name, *words)))


@pytest.mark.parametrize("name", [case("iris"), case("fraud", "-p", "rows=50000")])
def test_a_pipeline_registers_the_same_model(name: str, result: Both) -> None:
    here, there = result
    assert here.state == "SUCCEEDED", here.said
    assert there.state == "SUCCEEDED", there.said
    assert there.body["outputs"]["registered"] is True
    assert not list(differences(there.seen(), here.seen())), there.said
