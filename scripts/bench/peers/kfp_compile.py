"""kfp's compiler alone: ``python kfp_compile.py compile N X`` traces and compiles N tasks in layers of ten."""

import sys

from kfp import compiler, dsl

N, WIDTH = int(sys.argv[2]), 10


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def join(a: int, b: int) -> int:
    return (31 * a + b) % 1_000_003


@dsl.pipeline(name="layered")
def layered(x: int = 1) -> int:
    made = [join(a=x, b=i).output for i in range(WIDTH)]
    for i in range(WIDTH, N):
        start = (i // WIDTH - 1) * WIDTH
        made.append(join(a=made[start + i % WIDTH], b=made[start + (i + 1) % WIDTH]).output)
    return made[-1]


if __name__ == "__main__":
    compiler.Compiler().compile(layered, "compiled.yaml")
