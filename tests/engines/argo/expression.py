"""The part of expr-lang 1.17 that compiled workflows use, with the semantics of its Go sources.

``evaluate(text, names)`` parses (parser/parser.go), checks types as far as they are known (checker/checker.go: what Argo
puts at the top level is typed, what lies in its maps is not), and runs (vm/vm.go, vm/runtime, builtin/lib.go). Go's int
and float64 are Python's int and float, so ``1`` and ``1.0`` stay different things.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Names = Mapping[str, Any]


class ExpressionError(Exception):
    """It does not compile, or fails when it runs: Argo does not tell the two apart."""


# Words


@dataclass(frozen=True)
class Token:
    kind: str
    value: str


OPERATOR = r"\?\?|\?\.|\.\.|&&|\|\||==|!=|<=|>=|\*\*|::|[?.#|:,;%+\-^&!=*<>/]"
TOKEN = re.compile(
    rf"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<number>(?:0[xX][0-9a-fA-F_]+|[0-9][0-9_]*(?:\.(?!\.)[0-9_]*)?(?:[eE][+-]?[0-9_]+)?))
    |(?P<operator>(?:in|or|and|matches|contains|startsWith|endsWith|let|if|else|not)(?![\w$])|{OPERATOR})
    |(?P<name>[A-Za-z_$][\w$]*)|(?P<bracket>[()\[\]{{}}])|(?P<end>$))""",
    re.X,
)
ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {c: c for c in "\\'\"`?"}
ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|[xX](..)|u(....)|U(.{8})|([0-3][0-7][0-7])|(.))", re.S)


def tokens(text: str) -> Iterator[Token]:
    at = 0
    while True:
        found = TOKEN.match(text, at)
        if not found:
            raise ExpressionError(f"unrecognized character in {text!r} at {at}")
        kind = found.lastgroup or ""
        yield Token(kind, unquoted(found[kind]) if kind == "string" else found[kind])
        if kind == "end":
            return
        at = found.end()


def unquoted(text: str) -> str:
    """Without quotes and escapes; surrogates are no pairs in expr-lang."""

    def one(found: re.Match[str]) -> str:
        *numbers, octal, letter = found.groups()
        code = next((n for n in numbers if n), None)
        try:
            return chr(int(code, 16)) if code else chr(int(octal, 8)) if octal else ESCAPES[letter]
        except (KeyError, ValueError, OverflowError):
            raise ExpressionError(f"unable to unescape {text}") from None

    return ESCAPE.sub(one, text[1:-1])


# Trees


@dataclass(frozen=True, eq=False)
class Node:
    """One node: what it is (``kind``), a value or name, and the nodes below."""

    kind: str
    value: Any = None
    nodes: tuple["Node", ...] = ()
    optional: bool = False


BINARY = {"|": 0, "||": 10, "or": 10, "&&": 15, "and": 15, "..": 25, "+": 30, "-": 30, "*": 60, "/": 60, "%": 60}
BINARY |= dict.fromkeys("== != < > >= <= in matches contains startsWith endsWith".split(), 20) | {"**": 100, "??": 500}
UNARY = {"!": 50, "not": 50, "-": 90, "+": 90}
COMPARISONS = ("<", ">", ">=", "<=")
CLOSURES = ("map", "filter", "all", "any", "none", "count", "find", "findIndex")
LITERALS = {"true": Node("literal", True), "false": Node("literal", False), "nil": Node("literal", None)}


class Parser:
    """parser/parser.go, function for function."""

    def __init__(self, text: str) -> None:
        self.text, self.depth = text, 0
        self.left = list(tokens(text))
        self.current = self.left.pop(0)

    def parse(self) -> Node:
        node = self.sequence()
        if self.current.kind != "end":
            raise self.unexpected()
        return node

    def unexpected(self) -> ExpressionError:
        return ExpressionError(f"unexpected {self.current.value!r} in {self.text!r}")

    def next(self) -> Token:
        token = self.current
        if token.kind != "end":
            self.current = self.left.pop(0)
        return token

    def at(self, *values: str) -> bool:
        return self.current.kind in ("operator", "bracket") and self.current.value in values

    def expect(self, *values: str) -> None:
        if not self.at(*values):
            raise self.unexpected()
        self.next()

    def sequence(self) -> Node:
        nodes = [self.expression(0)]
        while self.at(";"):
            self.next()
            nodes.append(self.expression(0))
        return nodes[0] if len(nodes) == 1 else Node("sequence", nodes=tuple(nodes))

    def expression(self, precedence: int) -> Node:
        if precedence == 0 and self.at("let"):
            return self.let()
        left, previous = self.primary(), ""
        while self.current.kind == "operator":
            negated = self.at("not")
            operator = self.left[0].value if negated else self.current.value
            if negated and operator not in ("in", "contains", "startsWith", "endsWith"):
                raise self.unexpected()
            if BINARY.get(operator, -1) < precedence:
                break
            if negated:
                self.next()
            self.next()
            if previous == "??" and operator != "??":
                raise ExpressionError(f"{operator} and ?? cannot be mixed: {self.text!r}")
            left, previous = self.binary(left, operator), operator
            if negated:
                left = Node("unary", "!", (left,))
        return self.conditional(left) if precedence == 0 else left

    def binary(self, left: Node, operator: str) -> Node:
        if operator in COMPARISONS:
            return self.comparison(left, operator)
        if operator in ("|", "**", "^", "matches"):
            raise NotImplementedError(operator)
        return Node("binary", operator, (left, self.expression(BINARY[operator] + 1)))

    def comparison(self, left: Node, operator: str) -> Node:
        """``a < b < c`` means ``a < b && b < c``."""
        root = None
        while True:
            right = self.expression(BINARY[operator] + 1)
            one = Node("binary", operator, (left, right))
            root, left = one if root is None else Node("binary", "&&", (root, one)), right
            if not self.at(*COMPARISONS):
                return root
            operator = self.next().value

    def let(self) -> Node:
        self.next()
        name = self.next()
        if name.kind != "name":
            raise self.unexpected()
        self.expect("=")
        value = self.expression(0)
        self.expect(";")
        return Node("let", name.value, (value, self.sequence()))

    def conditional(self, node: Node) -> Node:
        while self.at("?"):
            self.next()
            yes = self.expression(0)
            self.expect(":")
            node = Node("conditional", nodes=(node, yes, self.expression(0)))
        return node

    def primary(self) -> Node:
        if self.current.kind == "operator" and self.current.value in UNARY:
            operator = self.next().value
            operand = self.expression(UNARY[operator])
            return self.postfix(Node("unary", "!" if operator == "not" else operator, (operand,)))
        if self.at("("):
            self.next()
            node = self.sequence()
            self.expect(")")
            return self.postfix(node)
        if self.depth and self.at("#"):
            self.next()
            return self.postfix(Node("pointer", self.next().value if self.current.kind == "name" else ""))
        if self.depth and self.at("."):
            return self.postfix(Node("pointer", ""))
        return self.secondary()

    def secondary(self) -> Node:
        token = self.current
        if token.kind == "name":
            self.next()
            if token.value in LITERALS:
                return LITERALS[token.value]
            return self.postfix(self.call(token.value) if self.at("(") else Node("name", token.value))
        if token.kind == "number":
            self.next()
            text = token.value.replace("_", "")
            integer = text[:2] in ("0x", "0X") or not re.search("[.eE]", text)
            return Node("literal", int(text, 16 if text[:2] in ("0x", "0X") else 10) if integer else float(text))
        if token.kind == "string":
            self.next()
            return self.postfix(Node("literal", token.value))
        if self.at("[", "{"):
            return self.postfix(self.array() if self.at("[") else self.map())
        raise self.unexpected()

    def call(self, name: str) -> Node:
        if name not in CLOSURES:
            return Node("call", name, tuple(self.listed("(", ")", lambda: self.expression(0))))
        self.expect("(")
        nodes = [self.expression(0)]
        self.expect(",")
        nodes.append(self.closure())
        self.expect(")")
        return Node("closure", name, tuple(nodes))

    def closure(self) -> Node:
        self.depth += 1
        braces = self.at("{")
        if braces:
            self.next()
        node = self.sequence() if braces else self.expression(0)
        self.depth -= 1
        if braces:
            self.expect("}")
        return node

    def listed(self, start: str, end: str, one: Callable[[], Node]) -> Iterator[Node]:
        self.expect(start)
        while not self.at(end):
            yield one()
            if not self.at(end):
                self.expect(",")
        self.next()

    def array(self) -> Node:
        return Node("array", nodes=tuple(self.listed("[", "]", lambda: self.expression(0))))

    def map(self) -> Node:
        return Node("map", nodes=tuple(self.listed("{", "}", self.pair)))

    def pair(self) -> Node:
        if self.current.kind in ("number", "string", "name"):
            key = Node("literal", self.next().value)
        elif self.at("("):
            key = self.expression(0)
        else:
            raise self.unexpected()
        self.expect(":")
        return Node("pair", nodes=(key, self.expression(0)))

    def postfix(self, node: Node) -> Node:
        while self.at(".", "?.", "["):
            optional = self.at("?.")
            if not self.at("["):
                self.next()
            node = self.index(node, optional) if self.at("[") else self.member(node, optional)
        return node

    def member(self, node: Node, optional: bool) -> Node:
        """``.name``: it goes on with a chain that is begun, even out of parentheses."""
        name = self.next()
        if name.kind != "name" and not name.value.isalpha():
            raise self.unexpected()
        chain = node.kind == "chain"
        node = Node("member", None, (node.nodes[0] if chain else node, Node("literal", name.value)), optional)
        return Node("chain", nodes=(node,)) if chain or optional else node

    def index(self, node: Node, optional: bool) -> Node:
        """``[…]``: it does not."""
        self.expect("[")
        node = Node("member", None, (node, self.expression(0)), optional)
        if self.at(":"):
            raise NotImplementedError("slices")
        self.expect("]")
        return Node("chain", nodes=(node,)) if optional else node


@lru_cache(10_000)
def parse(text: str) -> Node:
    """The tree of an expression."""
    return Parser(text).parse()


def identifiers(text: str) -> list[str]:
    """What Argo looks for before it evaluates a tag: names and member paths, but none under ``??`` or ``?.``.

    util/template/expression_template.go: a variable of ``let`` counts as such a name too.
    """
    root = parse(text)
    guarded: set[Node] = set()
    for node in walk(root):
        if node.kind == "binary" and node.value == "??":
            guarded |= {n for n in walk(node.nodes[0]) if n.kind == "member"}
        if node.kind == "member" and node.optional and node.nodes[0].kind == "member":
            guarded.add(node.nodes[0])
    found = []
    for node in walk(root):
        if node.kind in ("name", "call") and node.value not in BUILTINS:
            found.append(node.value)
        if node.kind == "member" and node not in guarded and (path := member_path(node)):
            found.append(path)
    return found


def walk(node: Node) -> Iterator[Node]:
    yield node
    for below in node.nodes:
        yield from walk(below)


def member_path(node: Node) -> str:
    """``a.b.c`` of a member access with constant names all the way, else nothing."""
    parts: list[str] = []
    while node.kind == "member":
        of, key = node.nodes
        if node.optional or key.kind != "literal" or not isinstance(key.value, str):
            return ""
        parts.insert(0, key.value)
        node = of
    return ".".join([node.value, *parts]) if node.kind == "name" else ""


# Types


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
NUMBERS = ("int", "float")


def type_of(value: Any) -> str:
    """What ``type()`` says."""
    if callable(value):
        return "func"
    kinds = {bool: "bool", int: "int", float: "float", str: "string", list: "array", dict: "map"}
    return kinds[type(value)] if value is not None else "nil"


class Checker:
    """checker/checker.go for these types; None is what is not known before it runs."""

    def __init__(self, names: Names) -> None:
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
        if len(found) != 1:
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
    if operator in ("startsWith", "endsWith", "contains"):
        return known <= {"string"}
    if operator in ("..", "%"):
        return known <= {"int"}
    return known <= set(NUMBERS) or (operator in ("+", *COMPARISONS) and known <= {"string"})


# Running


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

    def call(self, node: Node, argument: Node) -> Any:
        value = self.run(argument)
        return BUILTINS[node.value](value) if node.value in BUILTINS else self.names[node.value](value)

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


def as_string(value: Any) -> str:
    if type(value) is not str:
        raise ExpressionError(f"{type_of(value)} is not string")
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
        if type(value) is str and not re.search(r"[\s_]", value):
            return float(value)
    except ValueError:
        pass
    raise ExpressionError(f"invalid operation: float({value})")


def to_string(value: Any) -> str:
    """fmt.Sprintf("%v"): a float of a million is 1e+06."""
    if type(value) is float:
        return number(value, 6, -4)
    if type(value) is list:
        return f"[{' '.join(map(to_string, value))}]"
    if type(value) is dict:
        return f"map[{' '.join(f'{k}:{to_string(value[k])}' for k in sorted(value))}]"
    return (
        {None: "<nil>", True: "true", False: "false"}.get(value, value)
        if type(value) in (bool, type(None))
        else str(value)
    )


def number(value: float, large: int, small: int) -> str:
    """The shortest decimal, with an exponent from 10**large on and below 10**small."""
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    sign, digits = ("-", mantissa[1:]) if mantissa[0] == "-" else ("", mantissa)
    if digits in ("inf", "nan"):
        return {"inf": "+Inf", "nan": "NaN"}[digits] if not sign else "-Inf"
    whole, _, part = digits.partition(".")
    part = "" if part == "0" else part
    point = len(whole) + int(exponent or 0)
    all_digits = (whole + part).lstrip("0")
    point -= len(whole + part) - len(all_digits) if all_digits else 0
    all_digits = all_digits.rstrip("0")
    if not all_digits:
        return f"{sign}0"
    if not small <= point - 1 < large:
        rest = f".{all_digits[1:]}" if len(all_digits) > 1 else ""
        return f"{sign}{all_digits[0]}{rest}e{point - 1:+03d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{all_digits}"
    return f"{sign}{all_digits[:point].ljust(point, '0')}" + (
        f".{all_digits[point:]}" if len(all_digits) > point else ""
    )


def go_json(value: Any) -> str:
    """json.Marshal: compact, keys sorted, floats without .0, and what HTML could take for markup escaped."""
    if type(value) is float:
        if value != value or value in (float("inf"), float("-inf")):
            raise ExpressionError(f"json: unsupported value: {value}")
        return re.sub(r"e-0(\d)$", r"e-\1", number(value, 21, -6))
    if type(value) is list:
        return f"[{','.join(map(go_json, value))}]"
    if type(value) is dict:
        return "{" + ",".join(f"{go_json(k)}:{go_json(value[k])}" for k in sorted(value)) + "}"
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[<>&\u2028\u2029]", lambda m: f"\\u{ord(m[0]):04x}", text) if type(value) is str else text


def from_json(value: Any) -> Any:
    try:
        return json.loads(as_string(value), parse_int=float, parse_constant=_no_constant)
    except ValueError as e:
        raise ExpressionError(str(e)) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def length(value: Any) -> int:
    if type(value) not in (str, list, dict):
        raise ExpressionError(f"invalid argument for len (type {type_of(value)})")
    return len(value)


BUILTINS: dict[str, Callable[[Any], Any]] = {
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
