"""ParallelFor over constants, over what a task made, inside each other, limited, empty; Collected of both kinds."""

from kfp import dsl

from tests.language.kit import add, joined, outputs, read_all, say, upto, write

ITEMS = [{"v": "a", "w": "it's {{item}}"}, {"v": "b", "w": 'ü 😀 "{{=1+1}}"'}]
OUT = outputs(doubles=list, files=list, inner=str, none=list, length=str)


@dsl.pipeline(name="loops")
def loops(n: int = 2, words: list = ["a", "it's {{workflow.name}}"]) -> OUT:  # noqa: B006 - kfp reads the default
    with dsl.ParallelFor([1, 2], parallelism=1) as a:
        double = add(a=a, b=a)
    with dsl.ParallelFor(ITEMS) as item:
        file = write(text=item.w)
    with dsl.ParallelFor(upto(n=n).output) as i, dsl.ParallelFor([10, 20], parallelism=2) as j, dsl.If(i > 0):
        inner = add(a=i, b=j)
    with dsl.ParallelFor(upto(n=0).output) as k:
        nothing = add(a=k, b=1)
    with dsl.ParallelFor(words) as word:
        said = say(text=word)
    return OUT(
        dsl.Collected(double.output),
        read_all(data=dsl.Collected(file.outputs["out"])).output,
        joined(words=dsl.Collected(inner.output)).output,
        dsl.Collected(nothing.output),
        joined(words=dsl.Collected(said.output)).output,
    )


FLOWS = [loops]
