"""What KFP's backend cannot do of what the SDK can say: refused before anything is sent, each with its code.

The table was measured on the backend 2.14.3 (docs/kfp.md says how). A row with a server's version holds for servers up
to that one; later ones are believed to do what their SDK says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tidegate.errors import DefinitionError
from tidegate.ir.placeholder import Placeholder, placeholders
from tidegate.plan.model import Container, Dag, Plan, Task

MEASURED = (2, 14)
_SETTINGS = {
    "workspace": "a workspace (its claim is made and not mounted)",
    "resourceTtlOnCompletion": "a time to live of finished runs",
    "resourceTtlOnSuccess": "a time to live of finished runs",
    "resourceTtlOnFailure": "a time to live of finished runs",
    "activeDeadlineSeconds": "a deadline of the whole run",
}


@dataclass(frozen=True)
class Lack:
    """Something that a definition asks for and the backend does not do: its code, where, and what to do instead."""

    code: str
    found: str
    hint: str = ""


Rule = Callable[[Plan], Iterator[Lack]]


def check(plan: Plan, server: str = "") -> None:
    """Refuse what the backend cannot do.

    Args:
        plan: the plan.
        server: the server's version; empty where it is not known.

    Raises:
        DefinitionError: with the code of the first lack, naming them all.
    """
    rules = (*_ALWAYS, *(_OLD if is_measured(server) else ()))
    lacks = [lack for rule in rules for lack in rule(plan)]
    if lacks:
        raise DefinitionError(
            f"Kubeflow Pipelines{f' {server}' if server else ''} cannot do this: "
            + "; ".join(lack.found for lack in lacks[:5]),
            allowed="What docs/kfp.md lists.",
            hint=lacks[0].hint or "--engine local or argo",
            code=lacks[0].code,
        )


def is_measured(server: str) -> bool:
    """Whether the table holds for a server of this version; it does where the version is not known."""
    found = re.match(r"v?(\d+)\.(\d+)", server)
    return not found or (int(found[1]), int(found[2])) <= MEASURED


def _root(plan: Plan) -> Iterator[Lack]:
    if not isinstance(plan.root.body, Dag):
        yield Lack("kfp-root", "the definition is a single component", "Put it into a @dsl.pipeline.")
    elif plan.root.interface.artifacts:
        yield Lack("kfp-root-artifact", "input artifacts of the whole pipeline", "dsl.importer, with its address")


def _names(plan: Plan) -> Iterator[Lack]:
    for task in tasks(plan.root.body):
        if "." in task.name:
            yield Lack("kfp-name", f"a dot in the name of the task {task.name!r}")


def _settings(plan: Plan) -> Iterator[Lack]:
    for name, said in _SETTINGS.items():
        if plan.settings.get(name):
            yield Lack(f"kfp-{_kebab(name)}", said)


def _artifact_loops(plan: Plan) -> Iterator[Lack]:
    for task in tasks(plan.root.body):
        if task.loop and task.loop.over == "artifact":
            yield Lack("kfp-artifact-loop", f"a loop over artifacts ({task.name})", "Loop over their addresses.")


def _security(plan: Plan) -> Iterator[Lack]:
    for container in _containers(plan):
        if container.kubernetes.get("securityContext"):
            yield Lack("kfp-security-context", "set_security_context has no effect")
            return


def _metadata(plan: Plan) -> Iterator[Lack]:
    asked = [p for c in _containers(plan) for p in _asked(c) if p.attribute == "metadata"]
    if asked:
        yield Lack("kfp-placeholder", f"the placeholder for the metadata of {asked[0].name!r}", "Read it in the code.")


def _output_lists(plan: Plan) -> Iterator[Lack]:
    for task in tasks(plan.root.body):
        lists = [n for n, slot in task.component.interface.output_artifacts.items() if slot.is_list]
        if isinstance(task.component.body, str) and lists:
            yield Lack("kfp-output-list", f"a list of output artifacts ({task.name}.{lists[0]})")


_ALWAYS: tuple[Rule, ...] = (_root, _names)
_OLD: tuple[Rule, ...] = (_settings, _artifact_loops, _security, _metadata, _output_lists)


def tasks(body: Dag | str) -> Iterator[Task]:
    """Yield every task of a dag, those of the dags in it too."""
    for task in body.tasks.values() if isinstance(body, Dag) else ():
        yield task
        yield from tasks(task.component.body)


def _containers(plan: Plan) -> list[Container]:
    return [e for e in plan.executors.values() if isinstance(e, Container)]


def _asked(container: Container) -> frozenset[Placeholder]:
    texts = (*container.command, *container.args, *container.env.values())
    return frozenset().union(*map(placeholders, texts))


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
