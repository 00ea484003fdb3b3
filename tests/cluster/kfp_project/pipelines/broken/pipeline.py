"""The second step fails by its own fault."""

from kfp import dsl

from components.kit.component import add, divide


@dsl.pipeline(name="kfp-broken")
def broken(n: int = 1, m: int = -1) -> int:
    return divide(a=n, b=add(a=n, b=m).output).output
