"""The second step fails by its own fault."""

from components.kit.component import add, divide
from kfp import dsl


@dsl.pipeline(name="kfp-broken")
def broken(n: int = 1) -> int:
    return divide(a=n, b=add(a=n, b=-n).output).output
