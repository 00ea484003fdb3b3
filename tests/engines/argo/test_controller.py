"""The interpreter of workflows: what was seen on a real controller, and what its sources say beyond that."""

import copy
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.claims import differences, documents, expected
from tests.engines.argo.controller import Controller, Node, PodResult, Run, run
from tests.engines.argo.shell_pod import ShellPods

CLAIMS = documents()


@pytest.mark.parametrize("name", CLAIMS)
def test_what_was_seen_on_a_real_controller(name: str, tmp_path: Path) -> None:
    document = CLAIMS[name]
    made = run(document, ShellPods(tmp_path, document))

    def of(task: str, what: str) -> Any:
        shown = [n for n in made.nodes.values() if n.display == task]
        return (
            None
            if not shown
            else made.node(task).phase
            if what == "phase"
            else (made.node(task).outputs or {}).get(what)
        )

    expect = expected(document)
    assert not list(differences(expect, made.phase, of))
    assert ("hangs" in expect) == (made.phase == "Hangs")


def workflow(text: str, **spec: Any) -> dict[str, Any]:
    """One whose templates are ``text`` and two pods: `good`, which gives back its input `v`, and `bad`."""
    pods = """
    - {name: good, inputs: {parameters: [{name: v, default: ""}]}, container: {image: x}, outputs: {parameters: [{name: o, valueFrom: {path: /o}}]}}
    - {name: bad, inputs: {parameters: [{name: v, default: ""}]}, container: {image: x}}
    """
    templates = [*yaml.safe_load(text), *yaml.safe_load(pods)]
    return {"metadata": {"name": "w"}, "spec": {"entrypoint": "main", "templates": templates, **spec}}


def echo(template: str, body: dict[str, Any], inputs: dict[str, str], node: Node) -> PodResult:
    return PodResult("Succeeded" if template == "good" else "Failed", {"o": inputs["v"]} if template == "good" else {})


def phases(made: Run) -> dict[str, str]:
    return {n.display: n.phase for n in made.nodes.values()}


LOOP = """
- name: main
  dag: {tasks: [{name: loop, template: loop}, {name: after, template: good, depends: loop.Succeeded}]}
- name: loop
  parallelism: 2
  dag: {tasks: [{name: each, template: good, withSequence: {count: "5"}, arguments: {parameters: [{name: v, value: "{{item}}"}]}}]}
  outputs: {parameters: [{name: o, valueFrom: {expression: "tasks['each'].outputs.parameters.o"}}]}
"""


def test_no_more_run_at_a_time_than_a_dag_allows() -> None:
    active = []

    def choose(nodes: list[Node]) -> list[Node]:
        active.append(len(nodes))
        return nodes[-1:]

    made = run(workflow(LOOP), echo, choose=choose)
    assert (made.phase, max(active), made.pods) == ("Succeeded", 2, 6)
    assert made.node("loop").outputs == {"o": '["0","1","2","3","4"]'}


def test_the_limit_of_the_workflow_counts_all_its_pods() -> None:
    active = []

    def choose(nodes: list[Node]) -> list[Node]:
        active.append(len(nodes))
        return nodes[:1]

    tasks = "".join(f"{{name: t{i}, template: good}}, " for i in range(6))
    assert (
        run(workflow(f"[{{name: main, dag: {{tasks: [{tasks}]}}}}]", parallelism=3), echo, choose=choose).phase
        == "Succeeded"
    )
    assert max(active) == 3


@pytest.mark.parametrize(
    ("policy", "phase", "attempts"),
    [
        ("OnFailure", "Failed", 3),
        ("OnFailure", "Error", 1),
        ("OnError", "Failed", 1),
        ("OnError", "Error", 3),
        ("Always", "Error", 3),
    ],
)
def test_what_is_tried_again_is_a_matter_of_policy(policy: str, phase: str, attempts: int) -> None:
    strategy = f"{{limit: 2, retryPolicy: {policy}}}"
    made = run(
        workflow(f"[{{name: main, retryStrategy: {strategy}, container: {{image: x}}}}]"), lambda *_: PodResult(phase)
    )
    assert (made.phase, made.pods) == (phase, attempts)


def test_without_a_policy_only_failures_are_tried_again_and_the_outputs_are_of_the_last() -> None:
    results = iter([PodResult("Failed"), PodResult("Succeeded", {"o": "x\n"})])
    text = "[{name: main, retryStrategy: {limit: 5}, container: {image: x}, outputs: {parameters: [{name: o, valueFrom: {path: /o}}]}}]"
    made = run(workflow(text), lambda *_: next(results))
    assert (made.phase, made.pods, made.nodes["w"].outputs) == ("Succeeded", 2, {"o": "x"})


def test_with_fail_fast_a_dag_ends_before_its_other_targets() -> None:
    dag = "- {name: main, dag: {failFast: %s, tasks: [{name: a, template: bad}, {name: b, template: good}, {name: c, template: good, depends: b.Succeeded}]}}"
    fast, slow = (run(workflow(dag % f), echo) for f in ("true", "false"))
    assert (fast.phase, phases(fast)) == ("Failed", {"w": "Failed", "a": "Failed", "b": "Succeeded", "c": "Succeeded"})
    assert (slow.phase, phases(slow)["c"]) == ("Failed", "Succeeded")


def test_only_what_a_target_needs_runs() -> None:
    dag = "- {name: main, dag: {target: b, tasks: [{name: a, template: good}, {name: b, template: good, depends: a}, {name: c, template: good}]}}"
    assert phases(run(workflow(dag), echo)) == {"w": "Succeeded", "a": "Succeeded", "b": "Succeeded"}


def test_in_whatever_order_pods_end_the_nodes_are_the_same() -> None:
    def whole(made: Run) -> dict[str, Any]:
        return {n.name: (n.phase, n.inputs, n.outputs) for n in made.nodes.values()}

    first = run(CLAIMS["loop-nested"], once)
    for choose in (lambda nodes: nodes[-1:], lambda nodes: nodes[: len(nodes) // 2 + 1]):
        assert whole(run(CLAIMS["loop-nested"], once, choose=choose)) == whole(first)


def once(template: str, body: dict[str, Any], inputs: dict[str, str], node: Node) -> PodResult:
    return PodResult("Succeeded", {"v": inputs.get("v", "")})


def test_arguments_replace_the_parameters_of_the_workflow() -> None:
    text = """[{name: main, dag: {tasks: [{name: a, template: good, arguments: {parameters: [{name: v, value: "{{workflow.parameters.p}} {{workflow.parameters.q}}"}]}}]}}]"""
    document = workflow(text, arguments={"parameters": [{"name": "p", "value": 1}, {"name": "q"}]})
    assert run(document, echo, {"q": "two"}).node("a").outputs == {"o": "1 two"}
    assert run(document, echo).phase == "Failed"  # refused: q has no value


def test_any_and_all_of_a_loop() -> None:
    text = """
    - name: main
      dag:
        failFast: false
        tasks:
        - {name: each, template: odd, withItems: [0, 1], arguments: {parameters: [{name: v, value: "{{item}}"}]}}
        - {name: any, template: good, depends: each.AnySucceeded}
        - {name: all, template: good, depends: each.AllFailed}
    - {name: odd, inputs: {parameters: [{name: v}]}, container: {image: x}}
    """
    made = run(workflow(text), lambda t, b, i, n: PodResult("Failed") if i["v"] == "0" else echo("good", b, i, n))
    assert (phases(made)["any"], phases(made)["all"]) == ("Succeeded", "Omitted")


@pytest.mark.parametrize(
    ("sequence", "items"),
    [
        ("{count: 3}", "0 1 2"),
        ("{start: 2, end: 0}", "2 1 0"),
        ("{start: 5, count: 2, format: 'n%02d'}", "n05 n06"),
        ("{count: 0}", ""),
    ],
)
def test_sequences(sequence: str, items: str) -> None:
    text = f"""[{{name: main, dag: {{tasks: [{{name: each, template: good, withSequence: {sequence}, arguments: {{parameters: [{{name: v, value: "{{{{item}}}}"}}]}}}}]}}}}]"""
    made = run(workflow(text), echo)
    assert " ".join(n.inputs["v"] for n in made.nodes.values() if n.type == "Pod") == items
    assert made.phase == "Succeeded"


def test_items_that_are_objects_are_known_by_their_parts() -> None:
    text = """[{name: main, dag: {tasks: [{name: each, template: good, withParam: '[{"a": 1, "b": ["x"]}]', arguments: {parameters: [{name: v, value: "{{item.a}} {{item.b}} {{item}}"}]}}]}}]"""
    made = run(workflow(text), echo)
    assert made.node('each(0:a:1,b:["x"])').inputs == {"v": '1 ["x"] {"a":1,"b":["x"]}'}


@pytest.mark.parametrize("items", ["x", "{}", "7", "[1"])
def test_what_is_no_list_is_no_loop(items: str) -> None:
    task = {"name": "each", "template": "good", "withParam": "{{workflow.parameters.p}}"}
    document = workflow("[{name: main, dag: {tasks: []}}]", arguments={"parameters": [{"name": "p", "value": items}]})
    document["spec"]["templates"][0]["dag"]["tasks"] = [task]
    assert run(document, echo).phase == "Error"


def test_the_exit_handler_knows_what_failed() -> None:
    text = """
    - {name: main, dag: {tasks: [{name: a, template: bad}]}}
    - {name: end, inputs: {parameters: [{name: v, value: "{{workflow.failures}}"}]}, container: {image: x}}
    """
    seen: list[str] = []

    def pod(template: str, body: dict[str, Any], inputs: dict[str, str], node: Node) -> PodResult:
        seen.extend(inputs.values() if template == "end" else ())
        return echo(template, body, inputs, node) if template != "end" else PodResult()

    assert run(workflow(text, onExit="end"), pod).phase == "Failed"
    assert '\\"displayName\\": \\"a\\"' in seen[0]  # JSON, quoted a second time


def test_a_document_is_not_changed_by_running_it() -> None:
    before = copy.deepcopy(CLAIMS)
    for name in ("loop", "defaults", "retry-dag"):
        run(CLAIMS[name], once)
    assert before == CLAIMS


def test_defaults_are_merged_by_name_under_what_a_template_says() -> None:
    pod = Controller(CLAIMS["defaults"], {}).template("other")
    assert [e["name"] for e in pod["container"]["env"]] == ["WHO", "OWN"]
    assert pod["container"]["env"][0]["value"] == "other"
    assert pod["container"]["volumeMounts"] == [{"name": "scratch", "mountPath": "/scratch"}]
    assert "container" not in Controller(CLAIMS["defaults"], {}).template("main")


def test_a_thousand_tasks_take_seconds() -> None:
    chain = [{"name": "t0", "template": "good"}]
    chain += [{"name": f"t{i}", "template": "good", "depends": f"t{i - 1}.Succeeded"} for i in range(1, 60)]
    wide = [{"name": f"w{i}", "template": "good", "depends": "t59.Succeeded"} for i in range(1000)]
    document = workflow("[{name: main, dag: {tasks: []}}]")
    document["spec"]["templates"][0]["dag"]["tasks"] = chain + wide
    began = time.monotonic()
    assert (made := run(document, echo)).phase == "Succeeded"
    assert (made.pods, time.monotonic() - began < 30) == (1060, True)
