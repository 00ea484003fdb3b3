"""Argo's workflow controller (4.0.7) without a cluster: workflow/controller of its sources, as far as we use it.

``run(workflow, pod)`` looks at the workflow again and again, as the controller does: each look creates the nodes that are
due, then the callable ``pod`` stands for the pods that are active. The names of nodes, the graph of their children (by
which Argo decides that a DAG has ended), and what is evaluated when, are Argo's; so its traps are here too. A look that
changes nothing while nothing runs will change nothing for ever: the phase is ``Hangs``.

Left out: time (back-off, deadlines), hooks, locks, memoization, and templates other than DAGs and pods.
"""

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.engines.argo.dag import Dag
from tests.engines.argo.document import global_values, merged, processed, substituted, with_texts
from tests.engines.argo.loop import loop_kind
from tests.engines.argo.node import ENDED, FAILED, Busy, ControllerError, Document, Node, Pod, PodResult
from tests.engines.argo.substitution import SubstitutionError

__all__ = ["Controller", "Node", "PodResult", "Run", "run"]
KINDS = ("container", "containerSet", "steps", "script", "resource", "dag", "suspend", "data", "http", "plugin")


@dataclass(frozen=True)
class Run:
    """A workflow that ended, or hangs."""

    phase: str
    message: str
    nodes: dict[str, Node]
    pods: int

    def node(self, display: str) -> Node:
        """The node that Argo shows under a name; of a retried one the last attempt."""
        found = [n for n in self.nodes.values() if n.display == display and n.type != "Retry"]
        return (found or [n for n in self.nodes.values() if n.display == display])[-1]


def run(
    workflow: Document,
    pod: Pod,
    arguments: Mapping[str, str] = {},
    choose: Callable[[list[Node]], Sequence[Node]] = list,
) -> Run:
    """Run a workflow; ``choose`` says which of the active pods end between two looks (all, if not told otherwise)."""
    if refused := refusal(workflow, arguments):
        return Run("Failed", f"invalid spec: {refused}", {}, 0)
    controller = Controller(workflow, arguments)
    while not controller.operate():
        active = [n for n in controller.nodes.values() if n.type == "Pod" and n.phase == "Pending"]
        if not active:
            return Run("Hangs", "", controller.nodes, controller.pods)
        for node in choose(active):
            controller.end_pod(node, pod)
    return Run(controller.phase, controller.message, controller.nodes, controller.pods)


def refusal(workflow: Document, arguments: Mapping[str, str]) -> str:
    """Why validation refuses a workflow, of the few reasons that concern us (workflow/validate)."""
    parameters = workflow["spec"].get("arguments", {}).get("parameters", ())
    for template in workflow["spec"]["templates"]:
        loops = {t["name"] for t in template.get("dag", {}).get("tasks", ()) if loop_kind(t)}
        for task in template.get("dag", {}).get("tasks", ()):
            if any("fromExpression" in a for a in task.get("arguments", {}).get("artifacts", ())):
                return f"{task['name']}: from, artifact location, or key is required"
            if set(re.findall(r"([-\w]+)\.(?:AnySucceeded|AllFailed)", task.get("depends", ""))) - loops:
                return f"{task['name']}: uses an items-based condition but does not contain any items"
    if not parameters and "{{workflow.parameters}}" in json.dumps(workflow["spec"]["templates"]):
        return "failed to resolve {{workflow.parameters}}"
    given = {*arguments, *(p["name"] for p in parameters if "value" in p)}
    missing = [p["name"] for p in parameters if p["name"] not in given]
    if missing:
        return f"spec.arguments.{missing[0]}.value is required"
    return ""


class Controller:
    """The state of one workflow."""

    def __init__(self, workflow: Document, arguments: Mapping[str, str]) -> None:
        self.spec = with_texts(copy.deepcopy(workflow["spec"]))
        self.name: str = workflow["metadata"]["name"]
        self.templates: dict[str, Document] = {t["name"]: t for t in self.spec["templates"]}
        self.values = global_values(workflow, self.spec, arguments)
        self.nodes: dict[str, Node] = {}
        self.prepared: dict[str, Document] = {}
        self.phase, self.message, self.pods, self.changed = "Running", "", 0, False

    # One look at the whole

    def operate(self) -> bool:
        """Look once; True when the workflow has ended, or the look changed nothing and never will."""
        while True:
            self.changed = False
            self.look()
            if self.phase in ENDED:
                return True
            if not self.changed or any(n.type == "Pod" and n.phase == "Pending" for n in self.nodes.values()):
                return False

    def look(self) -> None:
        try:
            node = self.execute(
                self.name, self.spec["entrypoint"], self.spec.get("arguments", {}), "", "steps.name", False
            )
        except Busy:
            return
        except ControllerError as e:
            self.end("Error", f"error in entry template execution: {e}")
            return
        if not node or not node.fulfilled:
            return
        phase = {"Skipped": "Succeeded", "Omitted": "Succeeded"}.get(node.phase, node.phase)
        if self.exited(phase):
            self.end(*self.outcome(phase, node.message))

    def exited(self, phase: str) -> bool:
        """Whether the exit handler, if there is one, has ended."""
        if "onExit" not in self.spec:
            return True
        failures = [
            {"displayName": n.display, "phase": n.phase, "message": n.message}
            for n in self.nodes.values()
            if n.phase in FAILED
        ]
        self.values |= {"workflow.status": phase, "workflow.failures": json.dumps(json.dumps(failures or None))}
        try:
            node = self.execute(f"{self.name}.onExit", self.spec["onExit"], {}, "", "steps.name", False)
        except ControllerError:
            return True
        return bool(node and node.fulfilled)

    def outcome(self, phase: str, message: str) -> tuple[str, str]:
        """A failed exit handler fails what else succeeded."""
        after = self.nodes.get(f"{self.name}.onExit")
        if phase == "Succeeded" and after and after.phase in FAILED:
            return after.phase, after.message
        return phase, message

    def end(self, phase: str, message: str) -> None:
        self.phase, self.message = phase, message

    # Nodes

    def add(self, name: str, kind: str, template: str, boundary: str, phase: str, message: str = "") -> Node:
        display = re.sub(r"^(\[\d+\])?\.", "", name.removeprefix(boundary)) if boundary else name
        node = self.nodes[name] = Node(name, display, kind, template, boundary, phase, message)
        self.changed = True
        return node

    def mark(self, name: str, phase: str, message: str | None = None) -> Node:
        node = self.nodes[name]
        self.changed |= node.phase != phase or message not in (None, node.message)
        node.phase = phase
        node.message = node.message if message is None else message
        return node

    def connect(self, parent: str, child: str) -> None:
        if child not in self.nodes[parent].children:
            self.nodes[parent].children.append(child)
            self.changed = True

    def outbound(self, name: str) -> list[str]:
        """The nodes that what comes after a node hangs on; none, if a DAG ended in an error."""
        node = self.nodes[name]
        if node.type in ("Skipped", "Pod") or (node.type == "TaskGroup" and not node.children):
            return [name]
        if node.type == "Retry" and node.children:
            return node.children[-1:]
        below = node.children if node.type == "TaskGroup" else node.outbound
        return [o for b in below for o in self.outbound(b)]

    def last_attempt(self, node: Node) -> Node:
        return self.nodes[node.children[-1]] if node.type == "Retry" and node.children else node

    # Templates (executeTemplate)

    def template(self, name: str) -> Document:
        """A template with the defaults merged into it."""
        if name not in self.prepared:
            template, defaults = self.templates[name], self.spec.get("templateDefaults", {})
            own = next(k for k in KINDS if k in template)
            self.prepared[name] = merged({k: v for k, v in defaults.items() if k == own or k not in KINDS}, template)
        return self.prepared[name]

    def execute(
        self, name: str, template: str, arguments: Document, boundary: str, called: str, retried: bool
    ) -> Node | None:
        """Create a node or bring it forward."""
        node = self.nodes.get(name)
        try:
            local = {called: name.rpartition(".")[2], "node.name": name, "pod.name": re.sub("[^a-z0-9]+", "-", name)}
            body = processed(self.template(template), arguments, {**self.values, **local})
        except (ControllerError, SubstitutionError) as e:
            self.fail(name, template, boundary, str(e))
            raise ControllerError(str(e)) from None
        if node and node.fulfilled:
            return node
        self.check_parallelism(body, node, boundary)
        if strategy := body.get("retryStrategy", self.spec.get("retryStrategy")):
            return self.retry(name, template, body, boundary, strategy)
        return self.start(name, template, body, boundary, retried)

    def fail(self, name: str, template: str, boundary: str, message: str) -> None:
        if name in self.nodes:
            self.mark(name, "Error", message)
        else:
            self.add(name, "Skipped", template, boundary, "Error", message)

    def start(self, name: str, template: str, body: Document, boundary: str, retried: bool) -> Node:
        if name not in self.nodes:
            dag = "dag" in body
            node = self.add(name, "DAG" if dag else "Pod", template, boundary, "Running" if dag else "Pending")
            node.retried = retried
            node.inputs = {p["name"]: p["value"] for p in body.get("inputs", {}).get("parameters", ())}
            node.artifacts = {a["name"]: a["at"] for a in body.get("inputs", {}).get("artifacts", ()) if "at" in a}
            if not dag:
                self.prepared[name] = body
                self.pods += 1
        if "dag" not in body:
            return self.nodes[name]
        try:
            return Dag(self, self.nodes[name], body).execute()
        except (ControllerError, SubstitutionError) as e:
            self.mark(name, "Error", str(e))
            raise ControllerError(str(e)) from None

    def check_parallelism(self, body: Document, node: Node | None, boundary: str) -> None:
        """node_counters.go, checkParallelism."""
        if (
            node
            and "dag" in body
            and body.get("parallelism")
            and self.active(node.name, ("Pod",)) >= body["parallelism"]
        ):
            raise Busy
        if self.spec.get("parallelism") and self.active("", ("Pod",)) >= self.spec["parallelism"]:
            raise Busy
        if boundary and (node is None or node.phase not in ("Pending", "Running")):
            limit = self.template(self.nodes[boundary].template).get("parallelism")
            if limit and self.active(boundary, ("Pod", "DAG")) >= limit:
                raise Busy

    def active(self, boundary: str, types: tuple[str, ...]) -> int:
        nodes = (n for n in self.nodes.values() if not boundary or n.boundary == boundary)
        return sum(n.type in types and n.phase in ("Pending", "Running") for n in nodes)

    # Retries (processNodeRetries)

    def retry(self, name: str, template: str, body: Document, boundary: str, strategy: Document) -> Node:
        node = self.nodes.get(name) or self.add(name, "Retry", template, boundary, "Running")
        last = self.last_attempt(node)
        if last is not node and last.fulfilled and self.decided(node, last, strategy):
            return node
        number = len(node.children) - (last is not node and not last.fulfilled)
        attempt = f"{name}({number})"
        if attempt not in self.nodes:
            self.connect(name, attempt)
        tried = last if last is not node else None
        local = {
            "retries": str(number),
            "lastRetry.status": tried.phase if tried else "",
            "lastRetry.message": tried.message if tried else "",
        }
        local |= {"lastRetry.exitCode": "0", "lastRetry.duration": "0"}
        try:
            one = substituted(body, {**self.values, **local})
        except SubstitutionError as e:
            self.fail(attempt, template, boundary, str(e))
            raise ControllerError(str(e)) from None
        try:
            last = self.start(attempt, template, one, boundary, True)
        except ControllerError:
            if strategy_policy(strategy) not in ("Always", "OnError"):
                raise
            last = self.nodes[attempt]
        return self.retry(name, template, body, boundary, strategy) if last.fulfilled else node

    def decided(self, node: Node, last: Node, strategy: Document) -> bool:
        """Whether the last attempt's end is the node's."""
        policy = strategy_policy(strategy)
        retries = policy == "Always" or policy == {"Failed": "OnFailure", "Error": "OnError"}.get(last.phase)
        limit = strategy.get("limit")
        if last.phase in FAILED and retries and (limit is None or len(node.children) <= int(limit)):
            return False
        self.mark(node.name, "Succeeded" if last.phase not in FAILED else last.phase, last.message)
        node.outputs, node.artifacts = last.outputs, last.artifacts
        return True

    # Pods

    def end_pod(self, node: Node, pod: Pod) -> None:
        """Take in what became of a pod; a parameter whose file is missing makes a good one an Error."""
        body = self.prepared[node.name]
        result = pod(node.template, body, dict(node.inputs), node)
        node.phase, node.outputs, node.artifacts = result.phase, {}, dict(result.artifacts)
        for parameter in body.get("outputs", {}).get("parameters", ()):
            value = result.outputs.get(parameter["name"], parameter["valueFrom"].get("default"))
            if value is None:
                node.phase = "Error" if node.phase == "Succeeded" else node.phase
                node.message = f"open {parameter['valueFrom'].get('path')}: no such file or directory"
                return
            node.outputs[parameter["name"]] = value.removesuffix("\n")


def strategy_policy(strategy: Document) -> str:
    found: str = strategy.get("retryPolicy", "Always" if "expression" in strategy else "OnFailure")
    return found
