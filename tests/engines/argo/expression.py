"""The part of expr-lang 1.17 that compiled workflows use, with the semantics of its Go sources.

``evaluate(text, names)`` parses, checks types, and runs (vm/vm.go, vm/runtime, builtin/lib.go).
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.engines.argo.govalue import ExpressionError, as_string, from_json, go_json, to_string, type_of
from tests.engines.argo.syntax import Node, parse
from tests.engines.argo.typecheck import Checker

Names = Mapping[str, Any]


class Machine:
    """vm/vm.go: values on nodes."""

    def __init__(self, names: Names) -> None:
        self.names, self.items = dict(names), list[tuple[int, Any]]()

    def run(self, node: Node) -> Any:
        return getattr(self, node.kind)(node, *node.nodes)

    def literal(self, node: Node) -> Any:
        return node.value

    def name(self, node: Node) -> Any:
        return self.names[node.value]

    def pointer(self, node: Node) -> Any:
        return self.items[-1][0 if node.value else 1]

    def sequence(self, node: Node, *nodes: Node) -> Any:
        return [self.run(n) for n in nodes][-1]

    def let(self, node: Node, value: Node, rest: Node) -> Any:
        self.names[node.value] = self.run(value)
        found = self.run(rest)
        del self.names[node.value]
        return found

    def unary(self, node: Node, of: Node) -> Any:
        value = self.run(of)
        if node.value == "!":
            return not truth(value)
        if type(value) not in (int, float):
            raise ExpressionError(f"invalid operation: {node.value} {type_of(value)}")
        return -value if node.value == "-" else value

    def conditional(self, node: Node, condition: Node, yes: Node, no: Node) -> Any:
        return self.run(yes if truth(self.run(condition)) else no)

    def binary(self, node: Node, left: Node, right: Node) -> Any:
        a = self.run(left)
        if node.value == "??":
            return self.run(right) if a is None else a
        if node.value in ("&&", "and", "||", "or"):
            stops = not truth(a) if node.value in ("&&", "and") else truth(a)
            return a if stops else self.run(right)
        if node.value == "in" and right.kind == "array" and right.nodes and all(strings(n) for n in right.nodes):
            return among(a, [n.value for n in right.nodes])
        return OPERATORS[node.value](a, self.run(right))

    def chain(self, node: Node, of: Node) -> Any:
        try:
            return self.run(of)
        except _Absent:
            return None

    def member(self, node: Node, of: Node, key: Node) -> Any:
        value = self.run(of)
        if node.optional and value is None:
            raise _Absent
        return fetch(value, self.run(key))

    def call(self, node: Node, *arguments: Node) -> Any:
        values = [self.run(a) for a in arguments]
        return CALLED[node.value](*values) if node.value in CALLED else self.names[node.value](*values)

    def closure(self, node: Node, over: Node, body: Node) -> Any:
        array = self.run(over)
        if type(array) is str:
            array = list(array.encode())  # what was known as a string does not get here; the rest is bytes
        if type(array) is not list and array != {}:
            raise ExpressionError(f"{node.value} of {type_of(array)}")
        found = []
        for pair in enumerate(array):
            self.items.append(pair)
            found.append(self.run(body))
            self.items.pop()
        return CLOSED[node.value](array, found)

    def array(self, node: Node, *nodes: Node) -> list[Any]:
        return [self.run(n) for n in nodes]

    def map(self, node: Node, *nodes: Node) -> dict[str, Any]:
        return {as_string(self.run(p.nodes[0])): self.run(p.nodes[1]) for p in nodes}


class _Absent(Exception):
    """The rest of a chain of ``?.`` is nil."""


CLOSED: dict[str, Callable[[list[Any], list[Any]], Any]] = {
    "map": lambda array, found: found,
    "filter": lambda array, found: [a for a, f in zip(array, found, strict=True) if truth(f)],
    "all": lambda array, found: all(map(truth, found)),
    "any": lambda array, found: any(map(truth, found)),
    "none": lambda array, found: not any(map(truth, found)),
    "count": lambda array, found: sum(map(truth, found)),
    "find": lambda array, found: next((a for a, f in zip(array, found, strict=True) if truth(f)), None),
    "findIndex": lambda array, found: next((i for i, f in enumerate(found) if truth(f)), -1),
}


def strings(node: Node) -> bool:
    return node.kind == "literal" and isinstance(node.value, str)


def among(needle: Any, constants: list[str]) -> bool:
    """``in`` with constant strings is a look-up in a map (optimizer/in_array.go): nil is "", other types panic."""
    if needle is None:
        return "" in constants
    return as_string(needle) in constants


def truth(value: Any) -> bool:
    if type(value) is not bool:
        raise ExpressionError(f"{type_of(value)} is not bool")
    return value


def as_index(value: Any) -> int:
    """ToInt of vm/runtime: numbers only, floats are cut; out of range is the least number, on amd64."""
    if type(value) not in (int, float):
        raise ExpressionError(f"invalid operation: int({type_of(value)})")
    return int(value) if -(2.0**63) <= value < 2.0**63 else -(2**63)


def fetch(value: Any, key: Any) -> Any:
    if type(value) is dict:
        return value.get("" if key is None else as_string(key))
    if type(value) in (list, str):
        at = as_index(key)
        if not -len(value) <= at < len(value):
            raise ExpressionError(f"index out of range: {at} (array length is {len(value)})")
        if type(value) is str:
            raise NotImplementedError("bytes of strings")
        return value[at]
    raise ExpressionError(f"cannot fetch {key} from {type_of(value)}")


def equal(a: Any, b: Any) -> bool:
    numbers = type(a) in (int, float) and type(b) in (int, float)
    return bool(a == b) if numbers else same(a, b)


def same(a: Any, b: Any) -> bool:
    """reflect.DeepEqual: types count, all the way down, but not between two lists at the top."""
    if type(a) is not type(b):
        return False
    if type(a) is list:
        return len(a) == len(b) and all(map(same, a, b))
    if type(a) is dict:
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


def contained(needle: Any, array: Any) -> bool:
    if array is None:
        return False
    if type(array) is dict:
        return ("" if needle is None else as_string(needle)) in array
    if type(array) is list:
        return any(equal(a, needle) for a in array)
    raise ExpressionError(f'operator "in" not defined on {type_of(array)}')


def prefixed(a: Any, b: Any) -> bool:
    return a is not None and b is not None and as_string(a).startswith(as_string(b))


def suffixed(a: Any, b: Any) -> bool:
    return a is not None and b is not None and as_string(a).endswith(as_string(b))


def containing(a: Any, b: Any) -> bool:
    return a is not None and b is not None and as_string(b) in as_string(a)


def both(operator: str, of: Callable[[Any, Any], Any], texts: bool) -> Callable[[Any, Any], Any]:
    """An operator on two numbers, or two strings where that is allowed."""

    def apply(a: Any, b: Any) -> Any:
        if not (type(a) in (int, float) and type(b) in (int, float)) and not (texts and type(a) is str is type(b)):
            raise ExpressionError(f"invalid operation: {type_of(a)} {operator} {type_of(b)}")
        try:
            return of(a, b)
        except ZeroDivisionError:
            raise ExpressionError("division by zero") from None

    return apply


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": equal,
    "!=": lambda a, b: not equal(a, b),
    "<": both("<", lambda a, b: a < b, True),
    "<=": both("<=", lambda a, b: a <= b, True),
    ">": both(">", lambda a, b: a > b, True),
    ">=": both(">=", lambda a, b: a >= b, True),
    "+": both("+", lambda a, b: a + b, True),
    "-": both("-", lambda a, b: a - b, False),
    "*": both("*", lambda a, b: a * b, False),
    "/": both("/", lambda a, b: float(a) / float(b), False),
    "in": contained,
    "matches": lambda a, b: re.search(as_string(b), as_string(a)) is not None,
    "startsWith": prefixed,
    "endsWith": suffixed,
    "contains": containing,
    "..": lambda a, b: list(range(as_index(a), as_index(b) + 1)),
}


def to_int(value: Any) -> int:
    if type(value) in (int, float):
        return as_index(value)
    if type(value) is str and re.fullmatch(r"[+-]?[0-9]+", value) and -(2**63) <= int(value) < 2**63:
        return int(value)
    raise ExpressionError(f"invalid operation: int({value})")


def to_float(value: Any) -> float:
    if type(value) in (int, float):
        return float(value)
    try:
        # out of range is an error to Go (strconv.ParseFloat), the word inf is none
        if type(value) is str and not re.search(r"\s", value) and (math.isfinite(float(value)) or value[-1:].isalpha()):
            return float(value)
    except ValueError:
        pass
    raise ExpressionError(f"invalid operation: float({value})")


def length(value: Any) -> int:
    if type(value) not in (str, list, dict):
        raise ExpressionError(f"invalid argument for len (type {type_of(value)})")
    return len(value)


def replaced(text: Any, old: str, new: str) -> str:
    return as_string(text).replace(old, new)


def floor(value: Any) -> float:
    if type(value) not in (int, float):
        raise ExpressionError(f"invalid argument for floor (type {type_of(value)})")
    return float(math.floor(value))


def total(values: Any) -> Any:
    if any(type(v) not in (int, float) for v in values):
        raise ExpressionError("invalid operation: sum of something else than numbers")
    return sum(values)


CALLED: dict[str, Callable[..., Any]] = {
    "replace": replaced,
    "floor": floor,
    "sum": total,
    "int": to_int,
    "float": to_float,
    "string": to_string,
    "len": length,
    "type": type_of,
    "fromJSON": from_json,
}
# what Argo adds, as names that a program finds in its environment (util/expr/env/env.go)
FUNCTIONS: dict[str, Callable[[Any], Any]] = {"toJson": go_json, "asInt": to_int, "asFloat": to_float}


def evaluate(text: str, names: Names) -> Any:
    """The value of an expression."""
    tree, names = parse(text), {**names, **FUNCTIONS}
    Checker(names).check(tree)
    return Machine(names).run(tree)
