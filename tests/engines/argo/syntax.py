"""The trees of expr-lang 1.17, as far as compiled workflows use it: parser/parser.go, function for function."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tests.engines.argo.govalue import ExpressionError

# Words


@dataclass(frozen=True)
class Token:
    kind: str
    value: str


OPERATOR = r"\?\?|\?\.|\.\.|&&|\|\||==|!=|<=|>=|\*\*|::|[?.#|:,;%+\-^&!=*<>/]"
TOKEN = re.compile(
    rf"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<number>(?:0[xX][0-9a-fA-F_]+|(?:[0-9][0-9_]*(?:\.(?!\.)[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]+)?))
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
BUILTINS = ("int", "float", "string", "len", "type", "fromJSON", "floor", "sum", "replace")
OTHERS = """abs bitand bitnand bitnot bitor bitshl bitshr bitushr bitxor ceil concat date duration findLast findLastIndex first
flatten fromBase64 fromPairs get groupBy hasPrefix hasSuffix indexOf join keys last lastIndexOf lower max mean median min
now one reduce repeat reverse round sort sortBy split splitAfter take timezone toBase64 toJSON toPairs trim trimPrefix
trimSuffix uniq upper values""".split()
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
        if operator in ("|", "**", "^"):
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
        if name in OTHERS:
            raise NotImplementedError(name)
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
        if self.at("("):
            raise NotImplementedError(f"{name.value} as a method")
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
