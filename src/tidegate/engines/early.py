"""What can be known of a step before it has a folder: placeholders of parameters and names, and its place in the cache."""

from __future__ import annotations

from tidegate.engines.graph import Ready, RunContext, task_context
from tidegate.engines.resolve import Resolver
from tidegate.ir.placeholder import placeholders
from tidegate.plan.key import KeyParts, named_key
from tidegate.plan.model import Container


def early_resolver(ready: Ready, context: RunContext) -> Resolver:
    """Placeholders that need no files: inputs that are parameters, names of the run and the task."""
    files = {
        "inputs": {"parameterValues": dict(ready.inputs.parameters), "artifacts": {}},
        "outputs": {"parameters": {}, "artifacts": {}},
    }
    return Resolver(files, {**context, **task_context(context, ready.path)}, ready.extra)


def environment_read(container: Container, resolver: Resolver) -> dict[str, str]:
    """A task's variables by template, and what its placeholders read that is no declared input, for a cache key."""
    found = {p for t in (*container.command, *container.args, *container.env.values()) for p in placeholders(t)}
    names = {p.name: resolver.context.get(p.name, "") for p in found if p.form == "context"}
    extra = {p.name for p in found if p.form == "input_parameter"} & set(resolver.extra)
    return {n: repr(t) for n, t in container.env.items()} | names | {n: repr(resolver.extra[n]) for n in extra}


def cache_key(pipeline: str, ready: Ready, parts: KeyParts) -> str:
    """The key of a step: of its parts, or by the name that its author gave."""
    task = ready.task
    return named_key(pipeline, task.component, task.cache_key) if task.cache_key else parts.key
