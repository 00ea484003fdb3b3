"""Steps of ours and of others: a condition, a loop, what it collects, an exit task."""

from typing import NamedTuple

from kfp import dsl

from components.kit.component import add, joined, read, shown, told, write


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def theirs(n: int) -> int:
    return n * n


Out = NamedTuple("Out", [("words", str), ("text", str), ("seen", str)])


@dsl.pipeline(name="kfp-mixed")
def mixed(n: int = 2) -> Out:
    with dsl.ExitHandler(told(word="bye")):
        square = theirs(n=n)
        with dsl.If(square.output == 4):
            told(word="four")
        with dsl.Else():
            told(word="not four")
        with dsl.ParallelFor([1, 2]) as item:
            each = add(a=item, b=square.output)
        words = joined(words=dsl.Collected(each.output))
        file = write(text="it's ü")
        text = read(data=file.outputs["out"])
        seen = shown(x={"n": n, "deep": {"n": square.output}}, xs=[n, 1.5, "c"])
    return Out(words.output, text.output, seen.output)
