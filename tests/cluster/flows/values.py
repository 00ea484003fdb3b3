"""Values that are hard to carry: quotes, tags, control characters, long ones, many."""

from kfp import dsl

from tests.language.kit import add, component, outputs, say

TEXTS = [
    'it\'s "{{workflow.name}}" {{=1+1}} `$(id)` \\ %s }} {{',
    "\x01\x1b\x7f\u0085\u2028\t\r\n tab and line\n",
    "😀 \U000e0001 é e\u0301 \u202e \ufffe",
    "",
    "null",
    '{"v": 1}',
    "@file",
]
DEEP = {"a": [1, 2.5, -1e300, 2**53, True, {"{{x}}": "}}", "\x1b": "\U0001f600"}], "": {}, "é": []}
OUT = outputs(same=dict, length=int, mega=int, many=int, one=str)


@component
def ident(v: dict) -> dict:
    return v


@component
def long(n: int) -> str:
    return "0123456789 ü{{" * (n // 14)


@component
def length(text: str) -> int:
    return len(text.encode())


@component
def all_equal(texts: list, wanted: list) -> bool:
    assert texts == wanted, [(a, b) for a, b in zip(texts, wanted, strict=False) if a != b]
    return True


@dsl.pipeline(name="values")
def values(texts: list = TEXTS, deep: dict = DEEP) -> OUT:
    with dsl.ParallelFor(texts) as text:
        each = say(text=text)
    all_equal(texts=dsl.Collected(each.output), wanted=texts)
    return OUT(
        ident(v=ident(v=deep).output).output,
        length(text=long(n=200_000).output).output,
        length(text=long(n=3_000_000).output).output,
        add(a=1, b=2).output,
        say(text=TEXTS[1]).output,
    )


FLOWS = [values]
