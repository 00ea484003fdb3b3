"""The same definitions on this machine and on a cluster: the same states, values, and bytes."""

from typing import Any

import pytest

from tests.cluster.ahead import Work, ahead
from tests.cluster.ground import Ground
from tests.cluster.ran import Ran, differences

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
Both = tuple[Ran, Ran]


def both(flow: str, **parameters: str) -> Work:
    """Run a flow in both places, with parameters that may name the bucket."""

    def work(ground: Ground) -> Both:
        given = [w for n, v in parameters.items() for w in ("-p", f"{n}={v.format(bucket=ground.bucket.uri)}")]
        return ground.here(flow, "--no-cache", *given), ground.there(flow, "--no-cache", *given)

    return work


def case(flow: str, state: str = "SUCCEEDED", **parameters: str) -> Any:
    return pytest.param(state, id=flow, marks=ahead(both(flow, **parameters)))


@pytest.mark.parametrize(
    "state",
    [
        case("choices"),
        case("loops"),
        case("values"),
        case("many"),
        case("commands"),
        case("tries"),
        case("pods", given="{bucket}/given/one.txt", folder_given="{bucket}/given/folder/"),
        case("ends", "FAILED"),
        case("exits-badly", "FAILED"),
    ],
)
def test_a_cluster_gives_what_this_machine_gives(state: str, result: Both) -> None:
    here, there = result
    assert here.state == state, here.said
    assert not list(differences(there.seen(), here.seen())), there.said


def twice(ground: Ground) -> tuple[Ran, Ran]:
    """Run what is quick to run twice, the second time with all in the cache."""
    words = ("-p", "texts=" + '["only here"]')
    return ground.there("values", *words), ground.there("values", *words)


@ahead(twice)
def test_a_second_run_finds_everything_in_the_cache_and_gives_the_same(result: Both) -> None:
    first, second = result
    assert second.state == "SUCCEEDED", second.said
    assert {p for p, r in second.records.items() if not r.cached} == set()
    assert [r.outputs for r in second.records.values()] != []
    assert {p: r.outputs for p, r in second.records.items()} == {p: r.outputs for p, r in first.records.items()}
    assert second.body["outputs"] == first.body["outputs"]


@ahead(both("late"))
def test_a_step_beyond_its_time_limit_fails_on_both(result: Both) -> None:
    for ran in result:
        assert (ran.state, ran.code, ran.saidor["code"]) == ("FAILED", 1, "step-timeout"), ran.said
        assert ran.steps == {"sleep": "FAILED", "say": "SKIPPED"}
