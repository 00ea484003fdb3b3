"""Its pipeline is deleted on the server between two runs."""

from kfp import dsl

from components.kit.component import add


@dsl.pipeline(name="kfp-gone")
def gone(n: int = 3) -> int:
    return add(a=n, b=1).output
