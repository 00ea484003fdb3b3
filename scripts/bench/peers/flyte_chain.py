"""Flyte 2: ``python flyte_chain.py chain|fan|cached N X``. Local mode: one process, asyncio."""

import asyncio
import sys

import flyte

WORKLOAD, N, X = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
env = flyte.TaskEnvironment(name="bench", cache="auto" if WORKLOAD == "cached" else "disable")


@env.task
async def add(a: int, b: int) -> int:
    return a + b


@env.task
async def nap(x: int, i: int) -> int:
    await asyncio.sleep(0.5)
    return x + i


@env.task
async def chain(x: int, n: int) -> int:
    for _ in range(n):
        x = await add(x, 1)
    return x


@env.task
async def fan(x: int, n: int) -> list[int]:
    return list(await asyncio.gather(*(nap(x, i) for i in range(n))))


if __name__ == "__main__":
    flyte.init()
    ran = flyte.with_runcontext(mode="local").run(fan if WORKLOAD == "fan" else chain, x=X, n=N)
    print(ran.outputs())
