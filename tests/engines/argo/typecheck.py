"""The types of an expression, as far as they are known before it runs: checker/checker.go.

What Argo puts at the top level is typed; what lies in its maps is not.
"""

from collections.abc import Mapping
from typing import Any

from tests.engines.argo.govalue import ExpressionError, type_of
from tests.engines.argo.syntax import BUILTINS, COMPARISONS, Node

RETURNS = {
    "fromJSON": "any",
    "int": "int",
    "len": "int",
    "float": "float",
    "string": "string",
    "type": "string",
    "toJson": "string",
}
RETURNS |= {"asInt": "int", "asFloat": "float", "filter": "array", "map": "array", "count": "int", "findIndex": "int"}
RETURNS |= dict.fromkeys(("all", "any", "none"), "bool")
TAKES = {"int": ("int", "float", "string"), "float": ("int", "float", "string"), "fromJSON": ("string",)}
TAKES |= {"len": ("string", "array", "map")}
RETURNS |= {"replace": "string", "floor": "float"}
TAKES |= {"replace": ("string",), "floor": ("int", "float"), "sum": ("array",)}
COUNTS = {"replace": 3}
NUMBERS = ("int", "float")


class Checker:
    """checker/checker.go for these types; None is what is not known before it runs."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.types: dict[str, str | None] = {n: type_of(v) for n, v in names.items()}
        self.depth = 0

    def check(self, node: Node) -> str | None:
        return None if (found := self.declared(node)) == "any" else found

    def declared(self, node: Node) -> str | None:
        """The type, which may be Go's ``any``: only a conditional tells that from not knowing."""
        found: str | None = getattr(self, node.kind)(node, *node.nodes)
        return found

    def all(self, nodes: tuple[Node, ...]) -> list[str | None]:
        return [self.check(n) for n in nodes]

    def literal(self, node: Node) -> str:
        return type_of(node.value)

    def name(self, node: Node) -> str | None:
        if node.value not in self.types:
            raise ExpressionError(f"unknown name {node.value}")
        return self.types[node.value]

    def pointer(self, node: Node) -> str | None:
        if node.value not in ("", "index"):
            raise ExpressionError(f"unknown pointer #{node.value}")
        return "int" if node.value else None

    def sequence(self, node: Node, *nodes: Node) -> str | None:
        return self.all(nodes)[-1]

    def let(self, node: Node, value: Node, rest: Node) -> str | None:
        if node.value in self.types or node.value in BUILTINS:
            raise ExpressionError(f"cannot redeclare {node.value}")
        self.types[node.value] = self.check(value)
        found = self.check(rest)
        del self.types[node.value]
        return found

    def unary(self, node: Node, of: Node) -> str | None:
        found = self.check(of)
        if found not in ((None, "bool") if node.value == "!" else (None, *NUMBERS)):
            raise ExpressionError(f"invalid operation: {node.value} (mismatched type {found})")
        return "bool" if node.value == "!" else found

    def conditional(self, node: Node, condition: Node, yes: Node, no: Node) -> str | None:
        if (found := self.check(condition)) not in ("bool", None):
            raise ExpressionError(f"non-bool expression (type {found}) used as condition")
        a, b = self.declared(yes), self.declared(no)
        return a if b == "any" and a else either(a, b)

    def binary(self, node: Node, left: Node, right: Node) -> str | None:
        a, b = self.check(left), self.check(right)
        operator = node.value
        if operator == "??":
            return either(a, b)
        if not fits(operator, a, b):
            raise ExpressionError(f"invalid operation: {operator} (mismatched types {a} and {b})")
        if operator == "..":
            return "array"
        if operator == "in" and right.kind == "array":
            self.comparable(a, right)
        if operator in ("+", "-", "*"):
            return None if None in (a, b) else "float" if "float" in (a, b) else a
        return {"/": "float", "%": "int"}.get(operator, "bool")

    def comparable(self, needle: str | None, array: Node) -> None:
        """A list whose elements are all of one type takes nothing else."""
        types = {self.check(n) for n in array.nodes}
        if len(types) == 1 and not fits("==", needle, types.pop()):
            raise ExpressionError(f"cannot use {needle} as an element of the array")

    def chain(self, node: Node, of: Node) -> str | None:
        return self.check(of)

    def member(self, node: Node, of: Node, key: Node) -> str | None:
        a, b = self.check(of), self.check(key)
        wanted = {"map": ("string", None), "array": ("int", None), None: (b,)}.get(a, ())
        if b not in wanted:
            raise ExpressionError(f"type {a} has no field or element of type {b}")
        return "any" if a else None

    def call(self, node: Node, *arguments: Node) -> str | None:
        if node.value not in BUILTINS and self.name(node) not in ("func", None):
            raise ExpressionError(f"{node.value} is not callable")
        found = self.all(arguments)
        if len(found) != COUNTS.get(node.value, 1):
            raise ExpressionError(f"invalid number of arguments for {node.value}")
        if found[0] is not None and node.value in TAKES and found[0] not in TAKES[node.value]:
            raise ExpressionError(f"invalid argument for {node.value} (type {found[0]})")
        return RETURNS.get(node.value)

    def closure(self, node: Node, over: Node, body: Node) -> str | None:
        if (found := self.check(over)) not in ("array", None):
            raise ExpressionError(f"builtin {node.value} takes only array (got {found})")
        found = self.check(body)
        if found == "nil":
            raise ExpressionError("predicate should has one input and one output param")
        if node.value != "map" and found not in ("bool", None):
            raise ExpressionError(f"predicate should return boolean (got {found})")
        return RETURNS.get(node.value)

    def array(self, node: Node, *nodes: Node) -> str:
        self.all(nodes)
        return "array"

    def map(self, node: Node, *nodes: Node) -> str:
        self.all(tuple(n for pair in nodes for n in pair.nodes))
        return "map"


def either(a: str | None, b: str | None) -> str | None:
    """The type of a value that comes from one of two places."""
    return b if a == "nil" else a if b in ("nil", a) else None


def fits(operator: str, a: str | None, b: str | None) -> bool:
    """Whether an operator may be applied, as far as is known."""
    known = {t for t in (a, b) if t is not None}
    if operator in ("==", "!="):
        return len(known) < 2 or "nil" in known or known <= set(NUMBERS)
    if operator == "in":
        return b in ("array", None) or (b == "map" and a in ("string", None)) or (a is None and b == "string")
    if operator in ("&&", "||", "and", "or"):
        return known <= {"bool"}
    if operator in ("startsWith", "endsWith", "contains", "matches"):
        return known <= {"string"}
    if operator in ("..", "%"):
        return known <= {"int"}
    return known <= set(NUMBERS) or (operator in ("+", *COMPARISONS) and known <= {"string"})
