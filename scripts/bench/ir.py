"""Write PipelineSpecs of any size without kfp's compiler, whose tracing takes time quadratic in the tasks.

``python scripts/bench/ir.py SHAPE N [-o FILE]``. Every task has a component and an executor of its own, as kfp 2.17
compiles them, and runs a lightweight Python function; no two tasks have the same inputs, so that none is another's
cache hit. Shapes:

* ``chain``: each task adds 1 to what the one before it made; the output is x + N.
* ``fan``: one task, N - 1 that add their number to its output; the output is x + N.
* ``layered``: layers of ten, each task mixes two of the layer before.
* ``sleep``: N tasks that sleep for half a second, none after another.
* ``log``: one task that prints N lines.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

WIDTH = 10
SOURCES = {
    "add": "def add(a: int, b: int) -> int:\n    return a + b\n",
    "join": "def join(a: int, b: int) -> int:\n    return (31 * a + b) % 1_000_003\n",
    "nap": "def nap(a: int, b: int) -> int:\n    import time\n    time.sleep(0.5)\n    return a + b\n",
    "say": "def say(a: int, b: int) -> int:\n    for i in range(b):\n        print('line', i)\n    return a + b\n",
}
_HEAD = "\nimport kfp\nfrom kfp import dsl\nfrom kfp.dsl import *\nfrom typing import *\n\n"
_RUN = (
    'program_path=$(mktemp -d)\n\nprintf "%s" "$0" > "$program_path/ephemeral_component.py"\n'
    "_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path"
    ' "$program_path/ephemeral_component.py" "$@"\n'
)
X = ""  # where a task's name could stand: the pipeline's own parameter


@dataclass(frozen=True)
class Call:
    """One task: a function of ``SOURCES`` and its two arguments, each a number, the name of a task, or ``X``."""

    function: str
    a: int | str
    b: int | str

    @property
    def after(self) -> list[str]:
        return sorted({v for v in (self.a, self.b) if isinstance(v, str) and v != X})


def _chain(n: int) -> list[Call]:
    return [Call("add", f"t{i - 1}" if i else X, 1) for i in range(n)]


def _fan(n: int) -> list[Call]:
    return [Call("add", "t0", i) if i else Call("add", X, 1) for i in range(n)]


def _layered(n: int) -> list[Call]:
    return [Call("join", *_two_before(i)) if i >= WIDTH else Call("join", X, i) for i in range(n)]


def _two_before(i: int) -> tuple[str, str]:
    start = (i // WIDTH - 1) * WIDTH
    return f"t{start + i % WIDTH}", f"t{start + (i + 1) % WIDTH}"


def _sleep(n: int) -> list[Call]:
    return [Call("nap", X, i) for i in range(n)]


def _log(n: int) -> list[Call]:
    return [Call("say", X, n)]


SHAPES: Mapping[str, Callable[[int], list[Call]]] = {
    "chain": _chain,
    "fan": _fan,
    "layered": _layered,
    "sleep": _sleep,
    "log": _log,
}


def spec(shape: str, n: int) -> dict[str, Any]:
    """The PipelineSpec of a shape with n tasks: one integer parameter ``x``, one output, that of the last task."""
    calls = {f"t{i}": call for i, call in enumerate(SHAPES[shape](n))}
    last = {"producerSubtask": list(calls)[-1], "outputParameterKey": "Output"}
    dag = {
        "tasks": {name: _task(name, call) for name, call in calls.items()},
        "outputs": {"parameters": {"Output": {"valueFromParameter": last}}},
    }
    return {
        "pipelineInfo": {"name": f"{shape}-{n}"},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.17.0",
        "components": {f"comp-{name}": _component(name) for name in calls},
        "deploymentSpec": {"executors": {f"exec-{name}": _executor(c.function) for name, c in calls.items()}},
        "root": {
            "dag": dag,
            **_interface(x={"parameterType": "NUMBER_INTEGER", "defaultValue": 1, "isOptional": True}),
        },
    }


def _interface(**inputs: Any) -> dict[str, Any]:
    output = {"parameters": {"Output": {"parameterType": "NUMBER_INTEGER"}}}
    return {"inputDefinitions": {"parameters": inputs}, "outputDefinitions": output}


def _component(name: str) -> dict[str, Any]:
    number = {"parameterType": "NUMBER_INTEGER"}
    return {"executorLabel": f"exec-{name}", **_interface(a=dict(number), b=dict(number))}


def _executor(function: str) -> dict[str, Any]:
    args = ["--executor_input", "{{$}}", "--function_to_execute", function]
    command = ["sh", "-ec", _RUN, f"{_HEAD}{SOURCES[function]}\n"]
    return {"container": {"image": "python:3.11", "args": args, "command": command}}


def _task(name: str, call: Call) -> dict[str, Any]:
    task = {
        "taskInfo": {"name": name},
        "componentRef": {"name": f"comp-{name}"},
        "cachingOptions": {"enableCache": True},
        "inputs": {"parameters": {"a": _argument(call.a), "b": _argument(call.b)}},
    }
    return {**task, "dependentTasks": call.after} if call.after else task


def _argument(value: int | str) -> dict[str, Any]:
    if isinstance(value, int):
        return {"runtimeValue": {"constant": float(value)}}
    if value == X:
        return {"componentInputParameter": "x"}
    return {"taskOutputParameter": {"producerTask": value, "outputParameterKey": "Output"}}


def write(path: Path, shape: str, n: int) -> Path:
    """Write a spec as YAML; return where."""
    path.write_text(text(shape, n))
    return path


def text(shape: str, n: int) -> str:
    return yaml.dump(spec(shape, n), sort_keys=True, width=2**31 - 1, Dumper=yaml.CSafeDumper)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("n", type=int)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    if args.output:
        write(args.output, args.shape, args.n)
    else:
        sys.stdout.write(text(args.shape, args.n))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
