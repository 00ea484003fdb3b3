"""A step that takes its time."""

from components.kit.component import add, nap
from kfp import dsl


@dsl.pipeline(name="kfp-slow")
def slow(seconds: float = 300.0) -> float:
    return nap(seconds=seconds).after(add(a=1, b=2)).output
