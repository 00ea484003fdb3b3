"""Malformed definitions end in an error with a code, in bounded time, and never in a traceback."""

import copy
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl

from conftest import LONG
from tidegate.errors import TidegateError, UsageError
from tidegate.ir.check import check
from tidegate.ir.load import of_pipeline, read_spec
from tidegate.plan.build import build

CASES = 20_000 if LONG else 600


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def number(x: int, label: str = "a") -> int:
    return x


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def write(x: int, data: dsl.Output[dsl.Dataset]):
    pass


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def read(data: dsl.Input[dsl.Dataset]):
    pass


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def clean(status: dsl.PipelineTaskFinalStatus):
    pass


@dsl.pipeline(name="inner")
def inner(x: int, items: list = [1, 2]) -> list:  # noqa: B006
    with dsl.ParallelFor(items, parallelism=2) as item:
        each = number(x=item, label=f"{x} of all")
    return dsl.Collected(each.output)


@dsl.pipeline(name="everything")
def everything(x: int = 1, items: list = [{"a": 1}]) -> list:  # noqa: B006
    read(data=dsl.importer(artifact_uri="data", artifact_class=dsl.Dataset, metadata={"k": "v"}).output)
    with dsl.ExitHandler(clean()):
        first = number(x=x).set_retry(2, backoff_duration="1s").set_memory_limit("1G").set_env_variable("A", "b")
        with dsl.If(first.output > 3):
            write(x=first.output)
        with dsl.ParallelFor(items) as item:
            number(x=item.a).set_caching_options(False)
    return inner(x=x).output


SPEC = dict(of_pipeline(everything, "").spec)
HOSTILE: list[Any] = [
    None, True, 0, -1, 1e308, float("nan"), 10**40, "", "x" * 10_000, "{{$.inputs", "'" * 99, [], {}, [[]], [None], {"": None},
    {"a": {"b": {"c": []}}}, "9" * 400, "\ud800", "\x00", ["x"] * 1000, {"taskOutputParameter": {}}, {"runtimeValue": {"constant": 1}},
]  # fmt: skip


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a spec, but for the text of components."""
    if path:
        yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


PLACES = list(places(SPEC))


def mutated(seed: int) -> dict[str, Any]:
    """A spec with one to three places deleted, replaced or exchanged."""
    chance, spec = random.Random(seed), copy.deepcopy(SPEC)
    for _ in range(chance.randint(1, 3)):
        path = chance.choice(PLACES)
        with_parent = spec
        try:
            for key in path[:-1]:
                with_parent = with_parent[key]
            how = chance.random()
            if how < 0.25:
                del with_parent[path[-1]]
            elif how < 0.8:
                with_parent[path[-1]] = copy.deepcopy(chance.choice(HOSTILE))
            else:
                other = chance.choice(PLACES)
                value: Any = SPEC
                for key in other:
                    value = value[key]
                with_parent[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return spec


@contextmanager
def bounded() -> Iterator[None]:
    """A hang is a failure; the bound is far beyond what any case needs."""
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)


def outcome(folder: Path, spec: Any, platforms: Any = None) -> str:
    """The code of the error, or ``planned``."""
    file = folder / "p.json"
    file.write_text(json.dumps(spec))
    with bounded():
        try:
            definition = read_spec(file)
            build(check(definition.spec, platforms), platforms)
        except UsageError as e:
            return e.code if str(e).strip() else "without words"
    return "planned"


@pytest.mark.parametrize("part", range(4))
def test_a_mutated_spec_is_planned_or_refused_with_a_code(part: int, tmp_path: Path) -> None:
    seen = {}
    for seed in range(part, CASES, 4):
        try:
            code = outcome(tmp_path, mutated(seed))
        except Exception as e:
            raise AssertionError(f"seed {seed}") from e
        seen[code] = seen.get(code, 0) + 1
    assert seen["planned"]
    assert not {"without words", ""} & set(seen)
    assert len(seen) > 5, seen


@pytest.mark.parametrize("value", HOSTILE, ids=lambda v: repr(v)[:20])
def test_a_hostile_platform_document_is_read_or_refused(value: Any, tmp_path: Path) -> None:
    for platforms in (
        value,
        {"kubernetes": value},
        {"kubernetes": {"deploymentSpec": {"executors": {"exec-number": value}}}},
    ):
        outcome(tmp_path, SPEC, platforms)


DEEP = "[" * 100_000
TEXTS = {
    "empty": b"",
    "null": b"--- null\n",
    "a word": b"pipeline",
    "a list": b"- 1\n- 2\n",
    "three documents": b"a: 1\n---\nb: 2\n---\nc: 3\n",
    "tabs": b"root:\n\tdag: 1\n",
    "binary": bytes(range(256)),
    "utf-16": "root: 1".encode("utf-16"),
    "truncated": yaml.safe_dump(SPEC).encode()[:-500] + b": {",
    "truncated json": json.dumps(SPEC).encode()[:-50],
    "deep yaml": DEEP.encode(),
    "deep json": b'{"root": ' + DEEP.encode(),
    "deep flow": b"a: " + b"{a: " * 5000,
    "aliases": b"a: &a [1]\nb: [" + b", ".join([b"*a"] * 5000) + b"]\n",
    "billion laughs": b"a: &a [x, x]\n"
    + b"".join(f"b{i}: &b{i} [{', '.join(['*a' if not i else f'*b{i - 1}'] * 9)}]\n".encode() for i in range(9)),
    "a cycle": b"root: &r {dag: *r}\npipelineInfo: {name: x}\n",
    "a tag": b"root: !!python/object/apply:os.system ['echo']\n",
    "a date": b"pipelineInfo: {name: 2020-01-01}\nroot: {}\n",
    "a merge key": b"<<: 1\n",
    "a huge number": b"pipelineInfo: {name: 1e400}\n",
    "a complex key": b"? [a, b]\n: c\n",
    "a nan": b"pipelineInfo: {name: .nan}\nroot: {}\n",
    "nul": b"a: \x00\n",
}


def checked(file: Path) -> None:
    definition = read_spec(file)
    check(definition.spec, definition.platforms)


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_is_no_pipeline_is_refused_with_a_code(tmp_path: Path, name: str) -> None:
    file = tmp_path / ("p.json" if "json" in name else "p.yaml")
    file.write_bytes(TEXTS[name])
    with bounded(), pytest.raises(TidegateError) as refused:
        checked(file)
    assert refused.value.code
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("name", ["empty", "truncated", "deep yaml", "a cycle", "a date"])
def test_the_command_says_so_in_one_line_of_json_and_no_traceback(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.yaml").write_bytes(TEXTS[name])
    command = [sys.executable, "-m", "tidegate", "run", "p.yaml", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"]
    assert "Traceback" not in done.stderr


def test_one_poisoned_definition_among_many_harms_no_other(tmp_path: Path) -> None:
    ends = [outcome(tmp_path, SPEC if i % 10 else mutated(i)) for i in range(100)]
    assert ends.count("planned") >= 90
