"""If, Elif, Else, and OneOf of parameters and artifacts, in nested pipelines."""

from kfp import dsl

from tests.language.kit import add, fail, flag, outputs, read, real, say, write

OUT = outputs(size=str, small=str, text=str, data=dsl.Dataset)
QUOTED = 'it\'s "{{workflow.name}}" {{=1+1}} ü 😀'


@dsl.pipeline(name="by-size")
def by_size(n: int) -> str:
    with dsl.If(n > 10):
        large = say(text="large")
    with dsl.Elif(n == 10):
        ten = say(text="ten")
    with dsl.Else():
        small = say(text="small")
    return dsl.OneOf(large.output, ten.output, small.output)


@dsl.pipeline(name="by-kind")
def by_kind(good: bool) -> dsl.Dataset:
    with dsl.If(good == True):  # noqa: E712 - kfp makes a condition of it
        best = write(text="good")
    with dsl.Else():
        rest = write(text="bad")
    return dsl.OneOf(best.outputs["out"], rest.outputs["out"])


@dsl.pipeline(name="deeper")
def deeper(size: str, word: str):
    with dsl.If(size == "ten"):
        same = say(text=word)
        with dsl.If(same.output == word):
            say(text="inside")
    with dsl.If(real(x=0.5).output > 1.5):
        fail(text="never")


@dsl.pipeline(name="choices")
def choices(n: int = 4, word: str = QUOTED) -> OUT:
    """All conditions are in nested pipelines: kfp mixes up theirs with those around them."""
    size = by_size(n=add(a=n, b=6).output)
    data = by_kind(good=flag(x=False).output)
    deeper(size=size.output, word=word)
    return OUT(size.output, by_size(n=n).output, read(data=data.output).output, data.output)


FLOWS = [choices]
