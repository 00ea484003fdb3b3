"""What a schedule starts."""

from components.kit.component import nap
from kfp import dsl


@dsl.pipeline(name="kfp-tick")
def tick(seconds: float = 1.0) -> float:
    return nap(seconds=seconds).output
