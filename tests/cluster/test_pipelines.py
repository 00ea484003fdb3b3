"""The pipelines of this repository, here and there.

sentiment is not among them: its image is several GB, and its data a repository that pods would have to reach.
"""

from typing import Any

import pytest

from tests.cluster.ahead import Work, ahead
from tests.cluster.ground import Ground
from tests.cluster.ran import Ran, differences

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
Both = tuple[Ran, Ran]
# what depends on where a step ran
PLACE = {"environment", "commit", "dirty", "run", "created", "created_by"}


def both(name: str, *words: str) -> Work:
    file = f"pipelines/{name}/pipeline.py"
    return lambda ground: (ground.here(file, *words), ground.there(file, *words))


def case(name: str, *words: str) -> Any:
    return pytest.param(name, id=name, marks=ahead(both(name, *words)))


@pytest.mark.parametrize("name", [case("iris"), case("fraud", "-p", "rows=50000")])
def test_a_pipeline_registers_the_same_model(name: str, result: Both) -> None:
    here, there = result
    assert here.state == "SUCCEEDED", here.err
    assert there.state == "SUCCEEDED", there.err
    assert there.body["outputs"]["registered"] is True
    assert not list(differences(there.seen(), here.seen()))


def registered(ground: Ground) -> tuple[Ran, Ran]:
    file = "pipelines/iris/pipeline.py"
    first = ground.there(file, "-p", "seed=7")
    return first, ground.tidegate("model", "show", f"iris@{first.body['outputs']['version']}", "--json")
