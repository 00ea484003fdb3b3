"""One look at a DAG: workflow/controller/dag.go."""

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tests.engines.argo.document import (
    ABSENT,
    absent_reference,
    depends_logic,
    referred,
    resolve_artifacts,
    should_execute,
)
from tests.engines.argo.expression import evaluate
from tests.engines.argo.govalue import ExpressionError, to_string
from tests.engines.argo.loop import aggregated, loop_kind, loop_tasks
from tests.engines.argo.node import ENDED, FAILED, Busy, ControllerError, Document, Node, Requeue
from tests.engines.argo.substitution import REFERENCES, SubstitutionError, Values, expanded, replaced

if TYPE_CHECKING:
    from tests.engines.argo.controller import Controller


class Dag:
    """One look at a DAG (dag.go)."""

    def __init__(self, controller: "Controller", node: Node, body: Document) -> None:
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
