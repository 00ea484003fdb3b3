"""A step that takes its time."""

from kfp import dsl

from components.kit.component import add, nap


@dsl.pipeline(name="kfp-slow")
def slow(seconds: float = 300.0) -> float:
    return nap(seconds=seconds).after(add(a=1, b=2)).output
