"""A second reading of kfp's PipelineSpec, as short as can be: recursive, in order, nothing at the same time.

It shares no code with the engine: the tests of random plans compare the two. Parameters only.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
}


@dataclass
class Result:
    """How a task or dag ended: state, outputs, and the steps below it."""

    state: str
    outputs: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)


class Interpreter:
    """Runs a spec whose executors are the names of functions."""

    def __init__(self, spec: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> None:
        self.spec, self.functions = spec, functions

    def run(self, inputs: Mapping[str, Any]) -> Result:
        """Run the root."""
        return self.dag(self.spec["root"], inputs, "")

    def dag(self, component: Mapping[str, Any], inputs: Mapping[str, Any], path: str) -> Result:
        """Run a dag's tasks in an order that their dependencies allow."""
        ended: dict[str, Result] = {}
        for name, task in self.ordered(component["dag"]["tasks"]):
            ended[name] = self.task(task, ended, inputs, f"{path}/{name}".lstrip("/"))
        outputs = {}
        for name, output in component["dag"].get("outputs", {}).get("parameters", {}).items():
            sources = output.get("valueFromOneof", {}).get("parameterSelectors") or [output["valueFromParameter"]]
            for source in reversed(sources):
                made = ended[source["producerSubtask"]].outputs
                if source["outputParameterKey"] in made:
                    outputs[name] = made[source["outputParameterKey"]]
        failed = any(r.state == "FAILED" for r in ended.values())
        steps = {p: s for r in ended.values() for p, s in r.steps.items()}
        return Result("FAILED" if failed else "SUCCEEDED", outputs, steps)

    def ordered(self, tasks: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield tasks, those that others wait for first."""
        left = dict(tasks)
        while left:
            name = next(n for n, t in left.items() if not self.upstream(t) & set(left))
            yield name, left.pop(name)

    def upstream(self, task: Mapping[str, Any]) -> set[str]:
        """The siblings that a task waits for."""
        sources = task.get("inputs", {}).get("parameters", {}).values()
        return set(task.get("dependentTasks", ())) | {
            s["taskOutputParameter"]["producerTask"] for s in sources if "taskOutputParameter" in s
        }

    def task(self, task: Mapping[str, Any], ended: Mapping[str, Result], given: Mapping[str, Any], path: str) -> Result:
        """Run one task: skip it, loop it, or call its component as often as its retry says."""
        policy = task.get("triggerPolicy", {})
        always = policy.get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        if not always and any(ended[u].state != "SUCCEEDED" for u in self.upstream(task)):
            return self.skipped(task, path)
        inputs = {}
        for name, source in task.get("inputs", {}).get("parameters", {}).items():
            value = self.value(source, ended, given)
            if value is not None:
                inputs[name] = value
        if "condition" in policy and not self.condition(policy["condition"], inputs):
            return self.skipped(task, path)
        for _ in range(task.get("retryPolicy", {}).get("maxRetryCount", 0) + 1):
            result = self.loop(task, inputs, path) if "parameterIterator" in task else self.call(task, inputs, path)
            if result.state == "SUCCEEDED":
                break
        return result

    def value(self, source: Mapping[str, Any], ended: Mapping[str, Result], given: Mapping[str, Any]) -> Any:
        """Where an input comes from."""
        if "taskOutputParameter" in source:
            said = source["taskOutputParameter"]
            return ended[said["producerTask"]].outputs.get(said["outputParameterKey"])
        if "componentInputParameter" in source:
            return given.get(source["componentInputParameter"])
        return source["runtimeValue"]["constant"]

    def condition(self, text: str, inputs: Mapping[str, Any]) -> bool:
        """``int(inputs.parameter_values['x']) < 3``, perhaps inside ``!(…)``."""
        if text.startswith("!("):
            return not self.condition(text[2:-1], inputs)
        left, operator, right = text.split(" ")
        return OPERATORS[operator](inputs[left.split("'")[1]], int(right))

    def loop(self, task: Mapping[str, Any], inputs: Mapping[str, Any], path: str) -> Result:
        """Once per item; outputs are lists, in order, without what was not produced."""
        over = task["parameterIterator"]
        if over["items"]["inputParameter"] not in inputs:
            return Result("FAILED", steps={path: "FAILED"})
        items = inputs[over["items"]["inputParameter"]]
        if items and self.missing(self.component(task), {**inputs, over["itemInput"]: items[0]}):
            return Result("FAILED", steps={path: "FAILED"})
        results = [self.call(task, {**inputs, over["itemInput"]: item}, f"{path}[{i}]") for i, item in enumerate(items)]
        names = self.component(task).get("outputDefinitions", {}).get("parameters", {})
        outputs = {n: [r.outputs[n] for r in results if n in r.outputs] for n in names}
        failed = any(r.state == "FAILED" for r in results)
        steps = {p: s for r in results for p, s in r.steps.items()}
        return Result("FAILED" if failed else "SUCCEEDED", outputs, steps)

    def call(self, task: Mapping[str, Any], inputs: Mapping[str, Any], path: str) -> Result:
        """Call the component; without a needed input it fails, before any of its own tasks begins."""
        component = self.component(task)
        declared = component.get("inputDefinitions", {}).get("parameters", {})
        if self.missing(component, inputs):
            return Result("FAILED", steps={path: "FAILED"})
        inputs = {n: inputs.get(n, d.get("defaultValue")) for n, d in declared.items()}
        if "dag" in component:
            return self.dag(component, inputs, path)
        try:
            made = self.functions[component["executorLabel"]](**inputs)
        except ValueError:
            return Result("FAILED", steps={path: "FAILED"})
        return Result("SUCCEEDED", {"Output": made}, {path: "SUCCEEDED"})

    def missing(self, component: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
        """Whether an input that a component needs is not there."""
        declared = component.get("inputDefinitions", {}).get("parameters", {})
        found = {n: inputs.get(n, d.get("defaultValue")) for n, d in declared.items()}
        return any(v is None and not declared[n].get("isOptional") for n, v in found.items())

    def component(self, task: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a task calls."""
        found: Mapping[str, Any] = self.spec["components"][task["componentRef"]["name"]]
        return found

    def skipped(self, task: Mapping[str, Any], path: str) -> Result:
        """A task that does not run, with every step below it."""
        component = self.component(task)
        if "dag" not in component:
            return Result("SKIPPED", steps={path: "SKIPPED"})
        below = [self.skipped(t, f"{path}/{n}") for n, t in component["dag"]["tasks"].items()]
        return Result("SKIPPED", steps={p: s for r in below for p, s in r.steps.items()})
