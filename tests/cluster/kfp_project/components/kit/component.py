"""Components of ours for runs on Kubeflow Pipelines."""

from kfp import dsl

import tidegate


@tidegate.component
def add(a: int, b: int) -> int:
    return a + b


@tidegate.component
def joined(words: list) -> str:
    return ",".join(str(w) for w in words)


@tidegate.component
def shown(x: dict, xs: list) -> str:
    return repr([x, xs])


@tidegate.component
def write(text: str, out: dsl.Output[dsl.Dataset]):
    out.metadata["length"] = len(text)
    with open(out.path, "w") as f:
        f.write(text)


@tidegate.component
def read(data: dsl.Input[dsl.Dataset]) -> str:
    with open(data.path) as f:
        return f"{f.read()} {data.metadata['length']}"


@tidegate.component
def told(word: str) -> str:
    return word


@tidegate.component
def divide(a: int, b: int) -> int:
    return a // b


@tidegate.component
def nap(seconds: float) -> float:
    import time

    time.sleep(seconds)
    return seconds


@tidegate.component
def gate(seconds: int) -> int:
    import os

    if os.environ["GATE"] != "open":
        raise RuntimeError("the gate is closed")
    return seconds
