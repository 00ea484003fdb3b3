"""Steps of ours and of others: a condition, a loop, what it collects, an exit task."""

from kfp import dsl

from components.kit.component import add, joined, read, shown, told, write


@dsl.component(base_image="THEIRS", install_kfp_package=False)
def theirs(n: int) -> int:
    return n * n


@dsl.pipeline(name="kfp-mixed")
def mixed(n: int = 2):
    with dsl.ExitHandler(told(word="bye")):
        square = theirs(n=n)
        with dsl.If(square.output == 4):
            told(word="four")
        with dsl.Else():
            told(word="not four")
        with dsl.ParallelFor([1, 2]) as item:
            each = add(a=item, b=square.output)
        joined(words=dsl.Collected(each.output))
        file = write(text="it's ü")
        read(data=file.outputs["out"])
        shown(x={"n": n, "deep": {"n": square.output}}, xs=[n, 1.5, "c"])
