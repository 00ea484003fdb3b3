"""What a schedule starts."""

from kfp import dsl

from components.kit.component import nap


@dsl.pipeline(name="kfp-tick")
def tick(seconds: float = 1.0) -> float:
    return nap(seconds=seconds).output
