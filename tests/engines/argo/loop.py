"""Loops: a task as the rounds of it, and the outputs of the rounds as lists."""

import json
import re
from collections.abc import Sequence
from typing import Any

from tests.engines.argo.document import should_execute
from tests.engines.argo.govalue import ExpressionError, from_json, go_json
from tests.engines.argo.node import ControllerError, Document, Node
from tests.engines.argo.substitution import EVERYTHING, Values, replaced


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
        items = ""
    if items is None:
        return []
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
