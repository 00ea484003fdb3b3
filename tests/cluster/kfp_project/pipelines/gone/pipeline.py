"""Its pipeline is deleted on the server between two runs."""

from components.kit.component import add
from kfp import dsl


@dsl.pipeline(name="kfp-gone")
def gone(n: int = 3) -> int:
    return add(a=n, b=1).output
