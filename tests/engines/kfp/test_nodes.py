"""KFP's names of nodes are read as the paths of steps, alone and as a whole run's tree."""

import json
from pathlib import Path

import pytest
from kfp import dsl

from tidegate.engines.kfp.backend import Detail
from tidegate.engines.kfp.nodes import Node, node_of
from tidegate.engines.kfp.tree import CACHED, Tree, node_id
from tidegate.errors import StepFailed
from tidegate.ir.load import of_pipeline
from tidegate.plan.build import build
from tidegate.plan.events import FAILED, RUNNING, SUCCEEDED
from tidegate.plan.model import Plan

# the nodes of one run of ``flow`` below, as the API of a backend 2.14.3 told of them: name, state, seconds, those below
SEEN = json.loads((Path(__file__).parent / "details.json").read_text())


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def show(x: float, d: dsl.Output[dsl.Dataset]) -> int:  # type: ignore[empty-body]
    ...


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def use(d: dsl.Input[dsl.Dataset], n: int) -> int:  # type: ignore[empty-body]
    ...


@dsl.pipeline
def inner(a: int) -> int:
    made = show(x=1.0)
    return use(d=made.outputs["d"], n=a).output


@dsl.pipeline(name="probe-flow")
def flow(limit: int = 2) -> int:
    answer = inner(a=limit)
    with dsl.If(limit > 1), dsl.ParallelFor([5, 6], parallelism=1):  # noqa: SIM117
        with dsl.ParallelFor([1, 2]) as o:
            made = show(x=2.0)
            use(d=made.outputs["d"], n=o)
    return answer.output


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def told(status: dsl.PipelineTaskFinalStatus) -> str:  # type: ignore[empty-body]
    ...


@dsl.pipeline(name="guarded")
def guarded():
    with dsl.ExitHandler(told()):
        inner(a=1)


@dsl.pipeline(name="single")
def single():
    inner(a=1)


def plan() -> Plan:
    return build(of_pipeline(flow, "").spec)


def details() -> list[Detail]:
    return [Detail(name, state, "", start, max(end, 0.0), tuple(pods)) for name, state, start, end, pods in SEEN]


@pytest.mark.parametrize(
    ("name", "path", "attempt"),
    [
        ("iris-x7k.root.train.executor", "train", 0),
        ("iris-x7k.root.train.executor(2)", "train", 2),
        ("iris-x7k.root.inner.train.executor", "inner/train", 0),
        (
            "w.root.condition-1.for-loop-3.iteration-iterations(10:10).iteration-item.for-loop-5"
            ".iteration-iterations(0:0).iteration-item.show.executor",
            "condition-1/for-loop-3[10]/for-loop-5[0]/show",
            0,
        ),
        ("w.root.exit-handler-1.onExit.told.executor", "told", 0),
        ("w.root.inner.exit-handler-1.onExit.told.executor(1)", "inner/told", 1),
        ("w.root.iteration-item.executor", "iteration-item", 0),
    ],
)
def test_a_node_of_a_container_is_a_step_and_its_try(name: str, path: str, attempt: int) -> None:
    assert node_of(name) == Node(path, attempt)


@pytest.mark.parametrize(
    "name", ["", "iris-x7k", "iris-x7k.root.train-driver", "iris-x7k.root.executor", "a.b.executor"]
)
def test_what_is_no_container_of_a_task_is_refused(name: str) -> None:
    with pytest.raises(StepFailed, match="belongs to the node"):
        node_of(name)


def test_ids_are_those_that_argo_gave() -> None:
    assert node_id("probe-flow-zxdtd", "probe-flow-zxdtd.root.inner.show.executor") == "probe-flow-zxdtd-3165033971"


def test_every_step_of_a_real_run_is_found_by_its_path() -> None:
    found = list(Tree(details()).steps(plan()))
    turns = [
        f"condition-1/for-loop-3[{i}]/for-loop-5[{j}]/{t}" for i in (0, 1) for j in (0, 1) for t in ("show", "use")
    ]
    assert sorted(s.path for s in found) == sorted([*turns, "inner/show", "inner/use"])
    assert {s.state for s in found} == {SUCCEEDED}
    assert all(0 < s.seconds < 60 for s in found)


def test_steps_of_one_name_are_told_apart_by_what_is_below_them() -> None:
    lost = node_id("probe-flow-zxdtd", "probe-flow-zxdtd.root.inner.show.executor")
    broken = [d if lost not in d.pods else Detail(d.name, "FAILED", pods=d.pods) for d in details()]
    failed = [s.path for s in Tree(broken).steps(plan()) if s.state == FAILED]
    assert failed == ["inner/show"]


def test_a_step_whose_driver_says_that_there_is_nothing_to_do_is_cached() -> None:
    name = "w.root.inner"
    nodes = [
        Detail("w", "RUNNING", pods=(node_id("w", "w.root-driver"),)),
        Detail("show-driver", "SUCCEEDED", pods=(node_id("w", f"{name}.show"),)),
        Detail("show", "SKIPPED"),
        Detail("use-driver", "RUNNING"),
    ]
    states = {s.path: s.state for s in Tree(nodes).steps(build(of_pipeline(single, "").spec))}
    assert states == {"inner/show": CACHED, "inner/use": ""}


def test_a_step_whose_driver_failed_failed() -> None:
    nodes = [Detail("w", "RUNNING", pods=("w-1",)), Detail("show-driver", "FAILED", error="no such secret")]
    [step] = Tree(nodes).steps(build(of_pipeline(single, "").spec))
    assert (step.path, step.state, step.error) == ("inner/show", FAILED, "no such secret")


def test_a_hook_of_a_task_is_the_exit_task() -> None:
    name = "w.root.exit-handler-1.onExit.told"
    nodes = [
        Detail("w", "RUNNING", pods=(node_id("w", "w.root-driver"),)),
        Detail("exit-handler-1.onExit", "SUCCEEDED", pods=(node_id("w", f"{name}-driver"),)),
        Detail("told-driver", "SUCCEEDED", pods=(node_id("w", name),)),
        Detail("told", "FAILED", pods=(node_id("w", f"{name}.executor"),)),
    ]
    states = {s.path: s.state for s in Tree(nodes).steps(build(of_pipeline(guarded, "").spec))}
    assert states == {"told": FAILED}


def test_a_step_is_not_taken_for_another_of_its_name_that_has_not_begun() -> None:
    name = "w.root.condition-1.for-loop-3.iteration-iterations(1:1).iteration-item.for-loop-5"
    turn = f"{name}.iteration-iterations(0:0).iteration-item.show"
    iterations = [Detail("iteration-iterations", "RUNNING", pods=tuple(
        node_id("w", f"w.root.condition-1.for-loop-3.iteration-iterations({i}:{i})") for i in (0, 1)
    ))]  # fmt: skip
    inner_turns = Detail("for", "RUNNING", pods=(node_id("w", f"{name}.iteration-iterations(0:0)"),))
    nodes = [
        Detail("w", "RUNNING", pods=(node_id("w", "w.root-driver"),)),
        *iterations,
        inner_turns,
        Detail("show-driver", "SUCCEEDED", pods=(node_id("w", turn),)),
        Detail("show", "SUCCEEDED", pods=(node_id("w", f"{turn}.executor"),)),
    ]
    states = {s.path: s.state for s in Tree(nodes).steps(plan())}
    assert states == {"condition-1/for-loop-3[1]/for-loop-5[0]/show": SUCCEEDED}


def test_a_run_without_nodes_has_no_steps() -> None:
    assert list(Tree([]).steps(plan())) == []
    assert RUNNING not in {s.state for s in Tree(details()).steps(plan())}
