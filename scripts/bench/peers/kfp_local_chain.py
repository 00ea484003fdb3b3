"""kfp.local: ``python kfp_local_chain.py chain|fan|cached N X``. A process a step; no venv, no install of kfp."""

import sys

from kfp import dsl, local

WORKLOAD, N, X = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def add(a: int, b: int) -> int:
    return a + b


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def nap(x: int, i: int) -> int:
    import time

    time.sleep(0.5)
    return x + i


@dsl.pipeline(name="chain")
def chain(x: int) -> int:
    value = x
    for _ in range(N):
        value = add(a=value, b=1).output
    return value


@dsl.pipeline(name="fan")
def fan(x: int):
    with dsl.ParallelFor(items=list(range(N)), parallelism=N) as i:
        nap(x=x, i=i)


if __name__ == "__main__":
    local.init(runner=local.SubprocessRunner(use_venv=False), enable_caching=WORKLOAD == "cached")
    if WORKLOAD == "fan":
        fan(x=X)
    else:
        print(chain(x=X).output)
