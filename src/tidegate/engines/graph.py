"""The run graph: which steps are ready, as a pure state machine over the plan. No I/O, no clock, no threads.

Rules:

* A *scope* is one running instance of a dag: the root, a nested dag, or one iteration of a loop.
* A task is considered when every sibling it waits for has ended. It is skipped when one of them did not succeed
  (unless it runs ``always``) or when its condition is false. A condition without a truth value fails the task.
* A skipped or failed sibling leaves its outputs absent: an ``always`` task gets the input only if it is optional.
* A loop is a task whose component is opened once per item, ``limit`` at a time; its outputs are lists in index order,
  an iteration that did not produce one is left out.
* A scope ends when all of its tasks have ended; it failed if one of them failed.
* A dag output comes from the first of its sources that ran.
* A failed dag is opened again as often as its retry says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidegate.engines.base import Arguments, parameters_with_defaults
from tidegate.engines.values import NOTHING, Values
from tidegate.errors import StepFailed, TidegateError
from tidegate.ir import condition
from tidegate.ir.placeholder import Placeholder, substitute
from tidegate.plan.events import FAILED, SKIPPED, SUCCEEDED
from tidegate.plan.model import Component, Constant, Dag, FinalStatus, FromInput, FromTask, Plan, Source, Task
from tidegate.plan.value import Artifact, coerce

Artifacts = dict[str, list[Artifact]]
RunContext = Mapping[str, str]


@dataclass(frozen=True)
class Ready:
    """A step that can start now, ``delay`` seconds from now after a dag's failed try.

    Attributes:
        extra: parameters that its component does not declare: only placeholders in its command read them.
        settings: the values of ``Task.settings``.
    """

    id: int
    path: str
    task: Task
    inputs: Values
    delay: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """A step or dag that ended without running as a process: skipped, or failed before it could start."""

    path: str
    state: str
    note: str = ""
    error: Mapping[str, Any] | None = None


@dataclass(eq=False)
class _Node:
    task: Task
    scope: _Scope
    path: str
    waiting: int
    state: str = ""
    outputs: Values = NOTHING
    error: Mapping[str, Any] | None = None
    attempt: int = 0
    inputs: Values = NOTHING
    loop: _LoopState | None = None


@dataclass(eq=False)
class _LoopState:
    inputs: Sequence[Values]
    results: dict[int, _Scope] = field(default_factory=dict)
    next: int = 0


@dataclass(eq=False)
class _Scope:
    dag: Dag
    inputs: Values
    path: str
    owner: _Node | None
    index: int = -1
    nodes: dict[str, _Node] = field(default_factory=dict)
    dependents: dict[str, list[str]] = field(default_factory=dict)
    left: int = 0


class Graph:
    """The state of one run.

    ``start()`` opens the root; ``finish()`` takes the end of a step; both leave what is ready in ``ready`` and what
    ended without running in ``ended``, for the engine to drain. ``done`` says that the root has ended.
    """

    def __init__(self, plan: Plan, arguments: Arguments, context: RunContext) -> None:
        self.plan, self.context = plan, context
        self.ready: list[Ready] = []
        self.ended: list[Ended] = []
        self.state, self.outputs = "", Values()
        self._running: dict[int, _Node] = {}
        self._inputs = Values(arguments.parameters, arguments.artifacts)
        self._next_id = 0
        # nodes and empty scopes to look at: a queue, so that long chains of skipped tasks need no deep stack
        self._todo: deque[tuple[_Node, float] | _Scope] = deque()

    @property
    def done(self) -> bool:
        """Whether the root scope has ended."""
        return bool(self.state)

    def start(self) -> None:
        """Open the root: a dag, or a single component run as a pipeline of one step."""
        body = self.plan.root.body
        if isinstance(body, str):
            component = self.plan.root
            body = dag_of_one(self.plan.name, component)
        self._open(body, self._inputs, "", None)
        self._work()

    def finish(self, ready: Ready, state: str, outputs: Values, error: Mapping[str, Any] | None = None) -> None:
        """Take the end of a step that ran."""
        self._end(self._running.pop(ready.id), state, outputs, error)
        self._work()

    def _work(self) -> None:
        while self._todo:
            item = self._todo.popleft()
            if isinstance(item, _Scope):
                self._close(item)
            else:
                self._consider(*item)

    def _open(
        self, dag: Dag, inputs: Values, path: str, owner: _Node | None, index: int = -1, delay: float = 0
    ) -> None:
        scope = _Scope(dag, inputs, path, owner, index, left=len(dag.tasks))
        for name, task in dag.tasks.items():
            scope.nodes[name] = _Node(task, scope, f"{path}/{name}" if path else name, len(task.after))
            for upstream in task.after:
                scope.dependents.setdefault(upstream, []).append(name)
        if not dag.tasks:
            self._todo.append(scope)
        self._todo.extend((node, delay) for node in scope.nodes.values() if not node.waiting)

    def _consider(self, node: _Node, delay: float) -> None:
        blocked = next((u for u in node.task.after if node.scope.nodes[u].state != SUCCEEDED), None)
        if blocked and not node.task.always:
            why = "failed" if node.scope.nodes[blocked].state == FAILED else "was skipped"
            return self._skip(node, f"{blocked} {why}")
        try:
            node.inputs = self._resolve(node)
            if node.task.condition and not condition.evaluate(node.task.condition, node.inputs.parameters):
                return self._skip(node, "its condition is false")
            return self._begin(node, delay)
        except TidegateError as e:
            self.ended.append(Ended(node.path, FAILED, error=e.as_json()))
            return self._end(node, FAILED, Values(), e.as_json())

    def _skip(self, node: _Node, note: str) -> None:
        self.ended += [Ended(path, SKIPPED, note) for path in _leaves(node.task, node.path)]
        self._end(node, SKIPPED, Values())

    def _begin(self, node: _Node, delay: float) -> None:
        body = node.task.component.body
        if node.task.loop:
            # every item is checked before the first iteration opens
            items = self._items(node)
            node.loop = _LoopState([_iteration_inputs(node, item) for item in items])
            return self._iterate(node, delay)
        if isinstance(body, Dag):
            return self._open(body, _complete(node.task.component, node.inputs), node.path, node, delay=delay)
        inputs = _complete(node.task.component, node.inputs)
        self._next_id += 1
        self._running[self._next_id] = node
        settings = {place: self._parameter(source, node.scope) for place, source in node.task.settings.items()}
        extra = {n: v for n, v in node.inputs.parameters.items() if n not in node.task.component.interface.parameters}
        return self.ready.append(Ready(self._next_id, node.path, node.task, inputs, delay, extra, settings))

    def _items(self, node: _Node) -> Sequence[Any]:
        loop = node.task.loop
        assert loop
        if loop.over == "artifact":
            return node.inputs.artifacts.get(loop.source, ())
        if loop.raw is not None:
            return loop.raw
        items = coerce(node.inputs.parameters.get(loop.source), "LIST", f"the items of loop {node.path}")
        return list(items)

    def _iterate(self, node: _Node, delay: float = 0.0) -> None:
        """Open iterations up to the loop's limit; end the loop when every one has ended."""
        loop, state = node.task.loop, node.loop
        assert loop
        assert state
        limit = loop.limit or len(state.inputs)
        while state.next < len(state.inputs) and state.next - len(state.results) < limit:
            index, state.next = state.next, state.next + 1
            inputs = state.inputs[index]
            self._open(_loop_body(node.task), inputs, f"{node.path}[{index}]", node, index, delay)
        if len(state.results) == len(state.inputs) and not node.state:
            self._end_loop(node)

    def _end_loop(self, node: _Node) -> None:
        assert node.loop
        scopes = [node.loop.results[i] for i in range(len(node.loop.inputs))]
        failed = any(_failed(s) for s in scopes)
        made = [_scope_outputs(s) for s in scopes]
        interface = node.task.component.interface
        parameters = {n: [m.parameters[n] for m in made if n in m.parameters] for n in interface.output_parameters}
        artifacts = {n: [a for m in made for a in m.artifacts.get(n, ())] for n in interface.output_artifacts}
        if failed and self._retry(node):
            return
        self._end(node, FAILED if failed else SUCCEEDED, Values(parameters, artifacts), _first_error(scopes))

    def _close(self, scope: _Scope) -> None:
        owner = scope.owner
        if owner is None:
            self.state = FAILED if _failed(scope) else SUCCEEDED
            self.outputs = _scope_outputs(scope)
        elif owner.loop:
            owner.loop.results[scope.index] = scope
            self._iterate(owner)
        elif not (_failed(scope) and self._retry(owner)):
            state = FAILED if _failed(scope) else SUCCEEDED
            self._end(owner, state, _scope_outputs(scope), _first_error([scope]))

    def _retry(self, node: _Node) -> bool:
        if node.attempt >= node.task.retry.times:
            return False
        node.attempt += 1
        self._begin(node, node.task.retry.delay(node.attempt))
        return True

    def _end(self, node: _Node, state: str, outputs: Values, error: Mapping[str, Any] | None = None) -> None:
        node.state, node.outputs, node.error = state, outputs, error
        scope = node.scope
        for name in scope.dependents.get(node.task.name, ()):
            dependent = scope.nodes[name]
            dependent.waiting -= 1
            if not dependent.waiting:
                self._todo.append((dependent, 0.0))
        scope.left -= 1
        if not scope.left:
            self._close(scope)

    def _resolve(self, node: _Node) -> Values:
        task, scope = node.task, node.scope
        parameters: dict[str, Any] = {}
        late: dict[str, Constant] = {}
        for name, source in task.parameters.items():
            if isinstance(source, Constant) and source.has_placeholder:
                late[name] = source
            elif (value := self._parameter(source, scope)) is not None:
                parameters[name] = value
        for name, constant in late.items():
            parameters[name] = substitute(constant.value, lambda p: self._placeholder(p, parameters, node))
        artifacts = {n: found for n, s in task.artifacts.items() if (found := _artifact(s, scope)) is not None}
        return Values(parameters, artifacts)

    def _parameter(self, source: Source, scope: _Scope) -> Any:
        match source:
            case Constant(value):
                return value
            case FromInput(name, path):
                return _pick(scope.inputs.parameters.get(name), path)
            case FromTask(task, output, path):
                return _pick(scope.nodes[task].outputs.parameters.get(output), path)
            case FinalStatus(task):
                return self._final_status(scope.nodes[task])

    def _final_status(self, node: _Node) -> dict[str, Any]:
        error = {"code": 1, "message": str(node.error.get("message", ""))} if node.error else {"code": 0, "message": ""}
        return {
            "state": node.state,
            "pipelineJobResourceName": self.context.get("pipeline_job_resource_name", ""),
            "pipelineTaskName": node.task.name,
            "error": error,
        }

    def _placeholder(self, placeholder: Placeholder, parameters: Mapping[str, Any], node: _Node) -> Any:
        if placeholder.form == "input_parameter":
            return parameters.get(placeholder.name, "")
        if placeholder.form == "context":
            return {**self.context, **task_context(self.context, node.path)}.get(placeholder.name, "")
        raise StepFailed(f"{node.path}: a constant cannot hold the placeholder of form {placeholder.form}")


def task_context(run: RunContext, path: str) -> dict[str, str]:
    """What placeholders may ask about a task: its name, and an id that no other task of any run has."""
    name = path.rpartition("/")[2]
    return {"pipeline_task_name": name, "pipeline_task_uuid": f"{run.get('pipeline_job_uuid', '')}-{path}"}


def dag_of_one(name: str, component: Component) -> Dag:
    """A dag with a component as its only task: a pipeline of one step, or a loop's iteration."""
    interface = component.interface
    task = Task(
        name,
        component,
        {n: FromInput(n) for n in interface.parameters},
        {n: FromInput(n) for n in interface.artifacts},
    )
    return Dag(
        {name: task},
        {n: (FromTask(name, n),) for n in interface.output_parameters},
        {n: (FromTask(name, n),) for n in interface.output_artifacts},
    )


def _iteration_inputs(node: _Node, item: Any) -> Values:
    loop = node.task.loop
    assert loop
    given = node.inputs
    if loop.over == "artifact":
        inputs = Values(given.parameters, {**given.artifacts, loop.item: [item]})
    else:
        inputs = Values({**given.parameters, loop.item: item}, given.artifacts)
    return _complete(node.task.component, inputs)


def _loop_body(task: Task) -> Dag:
    body = task.component.body
    return body if isinstance(body, Dag) else dag_of_one(task.name, task.component)


def _complete(component: Component, inputs: Values) -> Values:
    """Inputs as the component declares them: defaults filled in, types as declared, extra f-string inputs left out."""
    declared = component.interface
    parameters = parameters_with_defaults(declared, inputs.parameters, component.name)
    for name, slot in declared.artifacts.items():
        if not inputs.artifacts.get(name) and not slot.optional and not slot.is_list:
            raise StepFailed(
                f"{component.name} has no input artifact {name!r}: what should produce it did not", code="input-missing"
            )
    return Values(parameters, {n: list(a) for n, a in inputs.artifacts.items() if n in declared.artifacts})


def _pick(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = coerce(value, "STRUCT", f"the value with the key {key!r}")
        if key not in value:
            raise StepFailed(f"a loop item has no key {key!r}", allowed=f"Its keys: {', '.join(value)}.")
        value = value[key]
    return value


def _artifact(source: Source, scope: _Scope) -> Sequence[Artifact] | None:
    if isinstance(source, FromInput):
        return scope.inputs.artifacts.get(source.name)
    assert isinstance(source, FromTask)
    return scope.nodes[source.task].outputs.artifacts.get(source.output)


def _scope_outputs(scope: _Scope) -> Values:
    parameters: dict[str, Any] = {}
    artifacts: Artifacts = {}
    for name, sources in scope.dag.output_parameters.items():
        for s in sources:
            if s.output in scope.nodes[s.task].outputs.parameters and name not in parameters:
                parameters[name] = scope.nodes[s.task].outputs.parameters[s.output]
    for name, sources in scope.dag.output_artifacts.items():
        for s in sources:
            if s.output in scope.nodes[s.task].outputs.artifacts and name not in artifacts:
                artifacts[name] = list(scope.nodes[s.task].outputs.artifacts[s.output])
    return Values(parameters, artifacts)


def _failed(scope: _Scope) -> bool:
    return any(n.state == FAILED for n in scope.nodes.values())


def _first_error(scopes: Sequence[_Scope]) -> Mapping[str, Any] | None:
    return next((n.error for s in scopes for n in s.nodes.values() if n.error), None)


def _leaves(task: Task, path: str) -> Iterator[str]:
    """The steps below a task that never ran, by path; a loop that never ran has no iterations to number."""
    if isinstance(task.component.body, str):
        yield path
        return
    for name, inner in task.component.body.tasks.items():
        yield from _leaves(inner, f"{path}/{name}")
