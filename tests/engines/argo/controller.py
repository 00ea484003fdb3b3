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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.engines.argo.expression import ExpressionError, evaluate, from_json, go_json, to_string
from tests.engines.argo.substitution import EVERYTHING, REFERENCES, SubstitutionError, Values, expanded, replaced

Document = dict[str, Any]
ENDED = ("Succeeded", "Failed", "Error")
FULFILLED = (*ENDED, "Skipped", "Omitted")
FAILED = ("Failed", "Error")
KINDS = ("container", "containerSet", "steps", "script", "resource", "dag", "suspend", "data", "http", "plugin")
ABSENT = "__argo__internal__absent__"  # an argument that is to count as not given


class ControllerError(Exception):
    """A node cannot go on."""


class Requeue(Exception):
    """Something is not there yet; the controller will look again."""


class Busy(Exception):
    """As many run as may."""


@dataclass(eq=False)
class Node:
    """One entry of ``status.nodes``; ``name`` is unique, ``children`` and ``outbound`` are names."""

    name: str
    display: str
    type: str
    template: str
    boundary: str
    phase: str
    message: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] | None = None
    artifacts: dict[str, Any] = field(default_factory=dict)
    children: list[str] = field(default_factory=list)
    outbound: list[str] = field(default_factory=list)
    retried: bool = False

    @property
    def fulfilled(self) -> bool:
        """Nothing more will come of it."""
        return self.phase in FULFILLED


@dataclass(frozen=True)
class PodResult:
    """What became of a pod: its phase, the files that its output parameters name, and its artifacts."""

    phase: str = "Succeeded"
    outputs: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Any] = field(default_factory=dict)


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


Pod = Callable[[str, Document, dict[str, str], Node], PodResult]


def run(
    workflow: Document,
    pod: Pod,
    arguments: Mapping[str, str] = {},
    choose: Callable[[list[Node]], Sequence[Node]] = list,
) -> Run:
    """Run a workflow; ``choose`` says which of the active pods end between two looks (all, if not told otherwise)."""
    controller = Controller(workflow, arguments)
    if refused := refusal(workflow):
        return Run("Failed", f"invalid spec: {refused}", {}, 0)
    while not controller.operate():
        active = [n for n in controller.nodes.values() if n.type == "Pod" and n.phase == "Pending"]
        if not active:
            return Run("Hangs", "", controller.nodes, controller.pods)
        for node in choose(active):
            controller.end_pod(node, pod)
    return Run(controller.phase, controller.message, controller.nodes, controller.pods)


def refusal(workflow: Document) -> str:
    """Why validation refuses a workflow, of the few reasons that concern us (workflow/validate)."""
    for template in workflow["spec"]["templates"]:
        for task in template.get("dag", {}).get("tasks", ()):
            if any("fromExpression" in a for a in task.get("arguments", {}).get("artifacts", ())):
                return f"{task['name']}: from, artifact location, or key is required"
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
        self.nodes.get(attempt) or self.connect(name, attempt)
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


class Dag:
    """One look at a DAG (dag.go)."""

    def __init__(self, controller: Controller, node: Node, body: Document) -> None:
        self.controller, self.node, self.body = controller, node, body
        self.nodes, self.tasks = controller.nodes, {t["name"]: t for t in body["dag"]["tasks"]}
        self.depends = {name: depends_logic(task, self.tasks) for name, task in self.tasks.items()}

    def execute(self) -> Node:
        targets = self.body["dag"]["target"].split(" ") if self.body["dag"].get("target") else self.leaves()
        for name in self.order(targets):
            self.task(name)
        phase = self.assess(targets)
        if phase in FAILED:
            self.set_outbound(targets)
            return self.controller.mark(self.node.name, phase)
        if phase == "Succeeded":
            self.set_outputs()
            self.set_outbound(targets)
            self.controller.mark(self.node.name, phase)
        return self.node

    def set_outbound(self, targets: Sequence[str]) -> None:
        self.node.outbound = [o for t in targets if self.of(t) for o in self.controller.outbound(self.path(t))]

    def path(self, task: str) -> str:
        return f"{self.node.name}.{task}"

    def of(self, task: str) -> Node | None:
        return self.nodes.get(self.path(task))

    def leaves(self) -> list[str]:
        needed = {d for _, before in self.depends.values() for d in before}
        return sorted(set(self.tasks) - needed)

    def order(self, targets: Sequence[str]) -> Iterator[str]:
        """The targets and what they depend on, dependencies first."""
        seen: dict[str, bool] = {}
        stack = [(t, False) for t in reversed(targets)]
        while stack:
            name, below = stack.pop()
            if below:
                yield name
            elif name not in seen:
                seen[name] = True
                stack.append((name, True))
                stack += [(d, False) for d in reversed(self.depends[name][1])]

    # Tasks (executeDAGTask)

    def task(self, name: str) -> None:
        node, task = self.of(name), self.tasks[name]
        if node and node.fulfilled:
            return
        try:
            if not node and not self.due(name):
                return
            resolved = self.resolved(task)
            expanded_tasks = loop_tasks(resolved, self.scope(name, True))
        except Requeue:
            return
        except (ControllerError, ExpressionError, SubstitutionError) as e:
            self.skip(name, "Error", str(e))
            return
        if "expand" in loop_kind(task):
            self.group(name, expanded_tasks)
        for one in expanded_tasks:
            if not self.begin(name, one):
                return
        if "expand" in loop_kind(task) and expanded_tasks:
            self.end_group(name, expanded_tasks)

    def skip(self, name: str, phase: str, message: str) -> None:
        if self.path(name) not in self.nodes:
            self.controller.add(
                self.path(name), "Skipped", self.tasks[name]["template"], self.node.name, phase, message
            )
        else:
            self.controller.mark(self.path(name), phase, message)
        self.connect(name, self.path(name))

    def connect(self, name: str, child: str) -> None:
        """Hang a node on what comes before it; a DAG in error has no end to hang on."""
        group, before = self.of(name), self.depends[name][1]
        if group and group.type == "TaskGroup" and child != group.name:
            self.controller.connect(group.name, child)
        elif not before:
            self.controller.connect(self.node.name, child)
        for parent in before if not (group and group.type == "TaskGroup" and child != group.name) else ():
            for outbound in self.controller.outbound(self.path(parent)):
                self.controller.connect(outbound, child)

    def due(self, name: str) -> bool:
        """Whether all that a task waits for has ended; omitted, if it did not end as is wanted."""
        logic, before = self.depends[name]
        if not logic:
            return True
        if not all((node := self.of(b)) and node.fulfilled for b in before):
            return False
        wanted = evaluate(logic.replace("-", "_"), {b.replace("-", "_"): self.results(b) for b in before})
        if wanted is not True:
            self.skip(name, "Omitted", "omitted: depends condition not met")
        return wanted is True

    def results(self, name: str) -> dict[str, bool]:
        node = self.nodes[self.path(name)]
        phases = [self.nodes[c].phase for c in node.children] if node.type == "TaskGroup" else []
        found = {"Errored": "Error", "Daemoned": ""} | {p: p for p in ("Succeeded", "Failed", "Skipped", "Omitted")}
        several = {"AnySucceeded": "Succeeded" in phases, "AllFailed": bool(phases) and set(phases) == {"Failed"}}
        return {key: node.phase == phase for key, phase in found.items()} | several

    def resolved(self, task: Document) -> Document:
        """A task with its references to other tasks replaced (resolveDependencyReferences)."""
        task, scope = {k: v for k, v in task.items() if k != "hooks"}, self.scope(task["name"])
        values = {**self.controller.values, **{k: v for k, v in scope.items() if isinstance(v, str | None)}}
        try:
            if "when" in task:
                when = replaced(task["when"], values, REFERENCES)
                if self.certainly_not(when, task):
                    return {**task, "when": when}
            task = copy.deepcopy(task)
            for parameter in task.get("arguments", {}).get("parameters", ()):
                if absent_reference(parameter.get("value"), scope):
                    parameter["value"] = ABSENT
            task = replaced(task, values, REFERENCES)
        except SubstitutionError as e:
            raise Requeue if e.missing else ControllerError(str(e)) from None
        resolve_artifacts(task.get("arguments", {}), scope)
        return task

    def certainly_not(self, when: str, task: Document) -> bool:
        try:
            return not should_execute(when)
        except ControllerError:
            if loop_kind(task):
                return False
            raise

    def group(self, name: str, tasks: Sequence[Document]) -> None:
        if not tasks:
            self.skip(name, "Skipped", "Skipped, empty params")
        elif not self.of(name):
            node = self.controller.add(
                self.path(name), "TaskGroup", self.tasks[name]["template"], self.node.name, "Running"
            )
            self.connect(name, node.name)

    def begin(self, name: str, task: Document) -> bool:
        """Bring one task, or one round of a loop, forward; False when the rest has to wait for another look."""
        path, template = self.path(task["name"]), task["template"]
        if path not in self.nodes:
            self.connect(name, path)
            try:
                phase, message = (
                    ("", "")
                    if should_execute(task.get("when", ""))
                    else ("Skipped", f"when '{task['when']}' evaluated false")
                )
            except ControllerError as e:
                phase, message = "Error", str(e)
            if phase:
                self.controller.add(path, "Skipped", template, self.node.name, phase, message)
                return True
        try:
            node = self.controller.execute(
                path, template, task.get("arguments", {}), self.node.name, "tasks.name", False
            )
        except Busy:
            return path in self.nodes
        except ControllerError as e:
            self.controller.mark(path, "Error", f"task '{path}' errored: {e}")
            return False
        return node is not None

    def end_group(self, name: str, tasks: Sequence[Document]) -> None:
        nodes = [self.of(t["name"]) for t in tasks]
        if all(n and n.fulfilled for n in nodes):
            failed = [n.phase for n in nodes if n and n.phase in FAILED]
            self.controller.mark(self.path(name), failed[-1] if failed else "Succeeded")

    # The end (assessDAGPhase)

    def assess(self, targets: Sequence[str]) -> str:
        """Follow the children from the DAG's node; what is not reached has not begun."""
        phases = {self.path(t): "" for t in targets}
        queue = [(c, "Succeeded") for c in self.node.children]
        seen = set(queue)
        for name, branch in queue:
            node = self.nodes.get(name)
            if not node or not node.fulfilled:
                return "Running"
            branch = node.phase if node.phase in ENDED else branch
            if name in phases and phases[name] not in FAILED:
                phases[name] = branch
            last = self.nodes[node.children[-1]].children if node.type == "Retry" and node.children else node.children
            new = [(c, branch) for c in last if (c, branch) not in seen]
            queue += new
            seen |= set(new)
        return self.phase_of([phases[self.path(t)] for t in targets])

    def phase_of(self, phases: Sequence[str]) -> str:
        fail_fast, result = self.body["dag"].get("failFast") is not False, "Succeeded"
        for phase in phases:
            if not phase:
                result = "Running"
                if not fail_fast:
                    break
            elif phase in FAILED:
                result = phase
                if fail_fast:
                    break
        return result

    # Values

    def scope(self, task: str | None, with_globals: bool = False) -> dict[str, Any]:
        """What can be referred to: inputs, and the outputs of all that a task comes after (buildLocalScopeFromTask)."""
        inputs = self.body.get("inputs", {})
        found: dict[str, Any] = {f"inputs.parameters.{p['name']}": p["value"] for p in inputs.get("parameters", ())}
        found |= {f"inputs.artifacts.{a['name']}": a for a in inputs.get("artifacts", ())}
        for name in self.tasks if task is None else [n for n in self.order([task]) if n != task]:
            if node := self.of(name):
                found |= self.outputs(f"tasks.{name}", name, node)
            elif task is not None:
                raise ControllerError(f"Ancestor task node {name} not found")
        return {**self.controller.values, **found} if with_globals else found

    def outputs(self, prefix: str, task: str, node: Node) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if node.type == "TaskGroup":
            found |= aggregated(prefix, [self.nodes[c] for c in node.children])
        last = self.controller.last_attempt(node)
        found |= {f"{prefix}.id": last.name, f"{prefix}.startedAt": "now", f"{prefix}.status": last.phase}
        found |= {f"{prefix}.outputs.parameters.{n}": v for n, v in (last.outputs or {}).items()}
        found |= {
            f"{prefix}.outputs.artifacts.{n}": {"at": a} for n, a in last.artifacts.items() if last.outputs is not None
        }
        if node.outputs is None and node.phase in ("Skipped", "Omitted"):
            for parameter in (
                self.controller.template(self.tasks[task]["template"]).get("outputs", {}).get("parameters", ())
            ):
                found[f"{prefix}.outputs.parameters.{parameter['name']}"] = parameter.get("valueFrom", {}).get(
                    "default"
                )
        return found

    def set_outputs(self) -> None:
        """The DAG's own outputs (getTemplateOutputsFromScope)."""
        outputs = self.body.get("outputs", {})
        if not outputs:
            return
        scope = self.scope(None)
        made = {p["name"]: self.output(p, scope) for p in outputs.get("parameters", ())}
        artifacts = {"artifacts": copy.deepcopy(outputs.get("artifacts", []))}
        resolve_artifacts(artifacts, scope)
        self.node.outputs = made
        self.node.artifacts = {a["name"]: a["at"] for a in artifacts["artifacts"]}

    def output(self, parameter: Document, scope: Values) -> str:
        source = parameter["valueFrom"]
        try:
            if "expression" in source:
                value = evaluate(source["expression"], expanded(scope))
            else:
                value = referred(source.get("parameter", ""), scope)
        except (ExpressionError, ControllerError) as e:
            value, error = None, str(e)
        else:
            error = f"{parameter['name']} is an absent optional"
        value = source.get("default") if value is None else value
        if value is None:
            raise ControllerError(error)
        return to_string(value)


# Documents


def with_texts(document: Any) -> Any:
    """A spec whose parameters are text, as Argo's AnyString makes them."""
    if isinstance(document, dict):
        for key in ("value", "default"):
            if isinstance(document.get(key), int | float):
                document[key] = go_json(document[key])
        return {k: v if k in ("withItems", "env") else with_texts(v) for k, v in document.items()}
    return [with_texts(d) for d in document] if isinstance(document, list) else document


def global_values(workflow: Document, spec: Document, arguments: Mapping[str, str]) -> dict[str, Any]:
    """``workflow.…``, with the arguments also put into the spec."""
    metadata = workflow["metadata"]
    found = {
        "workflow.name": metadata["name"],
        "workflow.uid": "00000000-0000-4000-8000-000000000000",
        "workflow.status": "Running",
    }
    found |= {"workflow.namespace": metadata.get("namespace", "default"), "workflow.mainEntrypoint": spec["entrypoint"]}
    found["workflow.serviceAccountName"] = spec.get("serviceAccountName", "")
    found["workflow.creationTimestamp"] = "2026-01-01T00:00:00Z"
    parameters = spec.setdefault("arguments", {}).setdefault("parameters", [])
    for name, value in arguments.items():
        parameters[:] = [p for p in parameters if p["name"] != name] + [{"name": name, "value": value}]
    found["workflow.parameters"] = go_json(parameters)
    found |= {f"workflow.parameters.{p['name']}": p["value"] for p in parameters}
    for kind in ("labels", "annotations"):
        found |= {f"workflow.{kind}.{k}": v for k, v in metadata.get(kind, {}).items()}
    return found


def merged(under: Any, over: Any) -> Any:
    """A strategic merge: maps by key, lists of named things by name, anything else is replaced."""
    if isinstance(under, dict) and isinstance(over, dict):
        return {**under, **{k: merged(under[k], v) if k in under else v for k, v in over.items()}}
    key = next((k for k in ("mountPath", "name") if is_keyed(under, k) and is_keyed(over, k)), None)
    if key is None:
        return over
    names = [o[key] for o in over]
    both = {u[key]: u for u in under}
    return [merged(both[o[key]], o) if o[key] in both else o for o in over] + [u for u in under if u[key] not in names]


def is_keyed(value: Any, key: str) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and key in v for v in value)


def processed(template: Document, arguments: Document, values: Values) -> Document:
    """A template with its inputs filled and all known tags replaced (ProcessArgs)."""
    template = copy.deepcopy(template)
    given = {p["name"]: p.get("value") for p in arguments.get("parameters", ())}
    for parameter in template.get("inputs", {}).get("parameters", ()):
        name, default = parameter["name"], parameter.get("default")
        value = given.get(name, parameter.get("value", default))
        if value == ABSENT and default is None:
            raise ControllerError(f"inputs.parameters.{name}: argument references an absent optional")
        parameter["value"] = default if value == ABSENT else value
        if parameter["value"] is None:
            raise ControllerError(f"inputs.parameters.{name} was not supplied")
    passed = {a["name"]: a for a in arguments.get("artifacts", ())}
    for artifact in template.get("inputs", {}).get("artifacts", ()):
        if artifact["name"] in passed:
            artifact["at"] = passed[artifact["name"]]["at"]
        elif not artifact.get("optional") and not set(artifact) & {"s3", "raw", "http"}:
            raise ControllerError(f"inputs.artifacts.{artifact['name']} was not supplied")
    return substituted(template, values)


def substituted(template: Document, values: Values) -> Document:
    """First what is global, then the inputs, which may by then hold other text (SubstituteParams)."""
    template = replaced(template, values)
    parameters = template.get("inputs", {}).get("parameters", [])
    inputs = {f"inputs.parameters.{p['name']}": p["value"] for p in parameters}
    made: Document = replaced(template, {**values, **inputs, "inputs.parameters": go_json(parameters)})
    return made


# Tasks

NAME = re.compile(r"([a-zA-Z0-9][-a-zA-Z0-9]*?\.[A-Z][a-zA-Z]+)|([a-zA-Z0-9][-a-zA-Z0-9]*)")


def depends_logic(task: Document, tasks: Mapping[str, Document]) -> tuple[str, list[str]]:
    """The condition with plain names written out, and the tasks in it (common/ancestry.go)."""
    logic, before = task.get("depends") or " && ".join(task.get("dependencies", ())), dict[str, None]()

    def written_out(found: re.Match[str]) -> str:
        name = found[0].split(".")[0]
        before[name] = None
        if name not in tasks:
            raise ControllerError(f"target {name} does not exist")
        return found[0] if found[1] else f"({name}.Succeeded || {name}.Skipped || {name}.Daemoned)"

    return NAME.sub(written_out, logic), list(before)


def should_execute(when: str) -> bool:
    """``when`` after its tags were replaced: true, false, or a comparison in which bare words are strings (govaluate)."""
    if not when:
        return True
    words = {
        w: w for w in re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^']*'|\"[^\"]*\"", "", when)) if w not in ("true", "false")
    }
    try:
        value = evaluate(when, words)
    except (ExpressionError, NotImplementedError) as e:
        raise ControllerError(f"Invalid 'when' expression '{when}': {e}") from None
    if not isinstance(value, bool):
        raise ControllerError(f"Expected boolean evaluation for '{when}'. Got {value}")
    return value


def absent_reference(value: str | None, scope: Values) -> bool:
    """Whether an argument is nothing but a reference to an output of a task that did not run."""
    if value is None or not value.startswith("{{") or not value.endswith("}}"):
        return False
    name = value[2:-2].strip()
    return name in scope and scope[name] is None


def loop_kind(task: Document) -> str:
    return "expand" if task.get("withItems") or task.get("withParam") or task.get("withSequence") else ""


def loop_tasks(task: Document, values: Values) -> list[Document]:
    """The rounds of a loop, or the task itself (expandTask); in a loop no tag may be left."""
    if not loop_kind(task):
        return [task]
    items, made = loop_items(task), []
    plain = {k: v for k, v in task.items() if k not in ("withItems", "withParam", "withSequence")}
    values = {k: v for k, v in values.items() if isinstance(v, str | None)}
    for index, item in enumerate(items):
        try:
            skipped = not should_execute(task.get("when", ""))
        except ControllerError:
            skipped = False
        known = {**values, **item_values(item)}
        known = {k: v for k, v in known.items() if v is not None} if skipped else known
        label = re.sub("[()]", "", item_name(item))
        one = replaced(plain, known, None if skipped else EVERYTHING)
        made.append({**one, "name": f"{task['name']}({index}:{label})", "template": task["template"]})
    return made


def loop_items(task: Document) -> list[Any]:
    if task.get("withItems"):
        return list(task["withItems"])
    if sequence := task.get("withSequence"):
        return sequence_items(sequence)
    try:
        items = json.loads(task["withParam"])
    except ValueError:
        items = None
    if not isinstance(items, list):
        raise ControllerError(f"withParam value could not be parsed as a JSON list: {task['withParam'].strip()}")
    return items


def sequence_items(sequence: Document) -> list[str]:
    first = int(sequence.get("start", 0))
    last = int(sequence["end"]) if "end" in sequence else first + int(sequence["count"]) - 1
    if "end" not in sequence and int(sequence["count"]) == 0:
        return []
    numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
    return [sequence.get("format", "%d") % n for n in numbers]


def item_values(item: Any) -> dict[str, str]:
    """``item``, and its parts when it is an object; text that looks like a number or a truth value stays text."""
    if isinstance(item, dict):
        return {"item": go_json(item), **{f"item.{k}": item_name(v) for k, v in item.items()}}
    return {"item": item if isinstance(item, str) else go_json(item)}


def item_name(item: Any) -> str:
    if isinstance(item, dict):
        return ",".join(sorted(f"{k}:{item_name(v)}" for k, v in item.items()))
    return item if isinstance(item, str) else go_json(item)


def aggregated(prefix: str, children: Sequence[Node]) -> dict[str, str]:
    """The outputs of a loop: lists of those that succeeded; of JSON only if all are objects or lists."""
    if not children:
        return {}
    outputs = [c.outputs for c in sorted(children, key=index_of) if c.outputs is not None and c.phase == "Succeeded"]
    found = {f"{prefix}.outputs.result": "[]", f"{prefix}.outputs.parameters": go_json([dict(o) for o in outputs if o])}
    for name in dict.fromkeys(n for o in outputs for n in o):
        found[f"{prefix}.outputs.parameters.{name}"] = go_json(as_json([o[name] for o in outputs if name in o]))
    return found


def index_of(node: Node) -> int:
    return int(node.name.rpartition("(")[2].partition(":")[0])


def as_json(values: list[str]) -> list[Any]:
    try:
        parsed = [from_json(v) for v in values]
    except ExpressionError:
        return values
    return parsed if all(isinstance(p, dict | list) for p in parsed) else values


# Values


def referred(text: str, scope: Values) -> Any:
    """What a ``{{tag}}`` that is the whole of a field refers to; nil is an absent optional (resolveVar)."""
    tag = text.strip().removeprefix("{{").removesuffix("}}").strip()
    if tag.startswith("="):
        return evaluate(tag[1:], {k: v for k, v in scope.items() if "." not in k})
    if tag not in scope:
        raise ControllerError(f'Unable to resolve: "{tag}"')
    return scope[tag]


def resolve_artifacts(holder: Document, scope: Values) -> None:
    """Put in place of references to artifacts what they refer to; optional ones that are not there go."""
    kept = []
    for artifact in holder.get("artifacts", ()):
        try:
            if "fromExpression" in artifact:
                found = evaluate(artifact["fromExpression"], expanded(scope))
            elif "from" in artifact:
                found = referred(artifact["from"], scope)
            else:
                found = artifact
        except ControllerError:
            if artifact.get("optional"):
                continue
            raise
        except ExpressionError as e:
            raise ControllerError(f"unable to resolve outputs from scope: {e}") from None
        if not isinstance(found, dict):
            raise ControllerError(f"Variable {artifact} is not an artifact")
        kept.append({**artifact, "at": found.get("at")})
    if kept or holder.get("artifacts"):
        holder["artifacts"] = kept


def strategy_policy(strategy: Document) -> str:
    found: str = strategy.get("retryPolicy", "Always" if "expression" in strategy else "OnFailure")
    return found
