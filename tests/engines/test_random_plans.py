"""Random plans end as a second, independent reading of the same definition says."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from conftest import LONG
from tests.engines.interpreter import Interpreter, Result
from tidegate.engines.base import Arguments, check_arguments
from tidegate.engines.graph import Graph
from tidegate.engines.values import Values
from tidegate.ir.check import check
from tidegate.plan.build import build
from tidegate.plan.events import FAILED, SUCCEEDED

INT, LIST, NESTED = "NUMBER_INTEGER", "LIST", "lists of lists, a LIST too"
PLANS = 20_000 if LONG else 400


def add(a: int, b: int | None = None) -> int:
    return (a + (b or 0)) % 11


def odd_fails(a: int) -> int:
    if a % 2:
        raise ValueError
    return a


def spread(a: int) -> list[int]:
    return list(range(a % 4))


def total(xs: list[Any]) -> int:
    return sum(x if isinstance(x, int) else total(x) for x in xs)


FUNCTIONS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (add, odd_fails, spread, total)}
INPUTS = {"add": {"a": INT, "b": INT}, "odd_fails": {"a": INT}, "spread": {"a": INT}, "total": {"xs": LIST}}


def declared(type_: str) -> dict[str, str]:
    return {"parameterType": LIST, "description": NESTED} if type_ == NESTED else {"parameterType": type_}


class Writer:
    """Writes a random PipelineSpec: tasks, conditions, loops, nested dags, retries, always-tasks, choices."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.components: dict[str, Any] = {n: self.leaf(n) for n in FUNCTIONS}
        self.budget, self.dags = 14, 0

    def leaf(self, name: str) -> dict[str, Any]:
        inputs: dict[str, Any] = {n: {"parameterType": t} for n, t in INPUTS[name].items()}
        if name == "add":
            inputs["b"] |= {"isOptional": True}
        output = {"parameters": {"Output": {"parameterType": LIST if name == "spread" else INT}}}
        return {"executorLabel": name, "inputDefinitions": {"parameters": inputs}, "outputDefinitions": output}

    def spec(self) -> dict[str, Any]:
        root = self.dag({"n": INT, "xs": LIST}, depth=0)
        executors = {n: {"container": {"image": "python:3.11", "command": [n]}} for n in FUNCTIONS}
        return {
            "pipelineInfo": {"name": "random"},
            "schemaVersion": "2.1.0",
            "root": root,
            "components": self.components,
            "deploymentSpec": {"executors": executors},
        }

    def dag(self, inputs: dict[str, str], depth: int) -> dict[str, Any]:
        tasks: dict[str, Any] = {}
        made: list[tuple[dict[str, Any], str]] = [({"componentInputParameter": n}, t) for n, t in inputs.items()]
        for i in range(self.random.randint(1, 4)):
            name = f"t{i}"
            tasks[name], type_ = self.task(name, made, depth)
            key = {"producerTask": name, "outputParameterKey": "Output"}
            made.append(({"taskOutputParameter": key}, type_))
        chosen = self.random.sample(sorted(tasks), self.random.randint(1, min(2, len(tasks))))
        same = [t for t in chosen if self.output_type(tasks, t) == self.output_type(tasks, chosen[0])]
        selectors = [{"producerSubtask": t, "outputParameterKey": "Output"} for t in same]
        value = (
            {"valueFromOneof": {"parameterSelectors": selectors}}
            if len(same) > 1
            else {"valueFromParameter": selectors[0]}
        )
        return {
            "inputDefinitions": {"parameters": {n: {"parameterType": t} for n, t in inputs.items()}},
            "outputDefinitions": {"parameters": {"Output": declared(self.output_type(tasks, chosen[0]))}},
            "dag": {"tasks": tasks, "outputs": {"parameters": {"Output": value}}},
        }

    def output_type(self, tasks: dict[str, Any], name: str) -> str:
        task = tasks[name]
        component = self.components[task["componentRef"]["name"]]
        output = component["outputDefinitions"]["parameters"]["Output"]
        inner = NESTED if output.get("description") else output["parameterType"]
        return inner if "parameterIterator" not in task else LIST if inner == INT else NESTED

    def task(self, name: str, made: list[Any], depth: int) -> tuple[dict[str, Any], str]:
        self.budget -= 1
        nested = depth < 3 and self.budget > 0 and self.random.random() < 0.35
        if nested:
            self.dags += 1
            component = f"dag{self.dags}"
            self.components[component] = self.dag({"a": INT, "xs": LIST}, depth + 1)
        else:
            component = self.random.choice(sorted(FUNCTIONS))
        task: dict[str, Any] = {"componentRef": {"name": component}, "taskInfo": {"name": name}}
        inputs = {
            n: self.source(p["parameterType"], made, nested=component == "total")
            for n, p in self.declared(component).items()
        }
        if component == "add" and self.random.random() < 0.4:
            del inputs["b"]
        task["inputs"] = {"parameters": inputs}
        self.decorate(task, made, nested)
        return task, self.output_type({name: task}, name)

    def declared(self, component: str) -> dict[str, Any]:
        found: dict[str, Any] = self.components[component]["inputDefinitions"]["parameters"]
        return found

    def decorate(self, task: dict[str, Any], made: list[Any], nested: bool) -> None:
        inputs = task["inputs"]["parameters"]
        if nested and self.random.random() < 0.5:
            inputs["items"] = self.source(LIST, made)
            inputs.pop("a", None)
            task["parameterIterator"] = {"itemInput": "a", "items": {"inputParameter": "items"}}
            task["iteratorPolicy"] = {"parallelismLimit": self.random.randint(0, 2)}
        if self.random.random() < 0.3:
            inputs["pipelinechannel--c"] = {
                "componentInputParameter": "a" if ("a", INT) in self.inputs_of(made) else "n"
            }
            text = f"int(inputs.parameter_values['pipelinechannel--c']) {self.random.choice(['==', '!=', '<', '>='])} {self.random.randint(0, 4)}"
            task["triggerPolicy"] = {"condition": self.random.choice([text, f"!({text})"])}
        if self.random.random() < 0.25:
            task.setdefault("triggerPolicy", {})["strategy"] = "ALL_UPSTREAM_TASKS_COMPLETED"
        if self.random.random() < 0.2:
            task["retryPolicy"] = {"maxRetryCount": self.random.randint(1, 2)}
        others = [s["taskOutputParameter"]["producerTask"] for s, _ in made if "taskOutputParameter" in s]
        if others and self.random.random() < 0.3:
            task["dependentTasks"] = [self.random.choice(others)]

    def inputs_of(self, made: list[Any]) -> list[tuple[str, str]]:
        return [(s["componentInputParameter"], t) for s, t in made if "componentInputParameter" in s]

    def source(self, type_: str, made: list[Any], *, nested: bool = False) -> dict[str, Any]:
        fitting = [s for s, t in made if t == type_ or (nested and t == NESTED)]
        if fitting and self.random.random() < 0.85:
            return dict(self.random.choice(fitting))
        constant: Any = (
            self.random.randint(0, 5)
            if type_ == INT
            else [self.random.randint(0, 5) for _ in range(self.random.randint(0, 3))]
        )
        return {"runtimeValue": {"constant": constant}}


def engine(spec: dict[str, Any], inputs: dict[str, Any], seed: int) -> Result:
    """Run a spec by the engine's graph, ending what is running in a random order."""
    chance, steps = random.Random(seed), {}
    plan = build(spec)
    graph = Graph(plan, check_arguments(plan, Arguments(inputs)), {})
    labels = {key: e.command[0].parts[0] for key, e in plan.executors.items()}
    graph.start()
    running: list[Any] = []
    while not graph.done:
        running += graph.ready
        graph.ready.clear()
        steps |= {e.path: e.state for e in graph.ended}
        graph.ended.clear()
        if graph.done:
            break
        ready = running.pop(chance.randrange(len(running)))
        state, made = SUCCEEDED, {}
        for _ in range(ready.task.retry.times + 1):
            try:
                made, state = (
                    {"Output": FUNCTIONS[labels[ready.task.component.body]](**ready.inputs.parameters)},
                    SUCCEEDED,
                )
                break
            except ValueError:
                state = FAILED
        steps[ready.path] = state
        graph.finish(ready, state, Values(made))
    steps |= {e.path: e.state for e in graph.ended}
    return Result(graph.state, dict(graph.outputs.parameters), steps)


@pytest.mark.parametrize("part", range(4))
def test_random_plans_end_as_an_independent_interpreter_says(part: int) -> None:
    for seed in range(part, PLANS, 4):
        spec = Writer(seed).spec()
        check(spec)
        inputs = {"n": seed % 7, "xs": [seed % 3, 1, 2][: seed % 4]}
        assert engine(spec, inputs, seed) == Interpreter(spec, FUNCTIONS).run(inputs), f"seed {seed}"


def test_random_plans_hold_every_construct() -> None:
    text = [str(Writer(seed).spec()) for seed in range(50)]
    for word in ("parameterIterator", "condition", "COMPLETED", "maxRetryCount", "valueFromOneof", "dependentTasks"):
        assert any(word in t for t in text), word
