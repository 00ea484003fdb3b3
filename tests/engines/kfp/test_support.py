"""What a KFP backend of 2.14 cannot do: each row is refused with its code before anything is sent, its neighbours are not."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl, kubernetes
from kfp.compiler import Compiler

from tidegate.engines.kfp import support
from tidegate.errors import DefinitionError
from tidegate.ir.load import load
from tidegate.plan.build import build
from tidegate.plan.model import Plan

component = functools.partial(dsl.component, base_image="python:3.11", install_kfp_package=False)


@component
def add(a: int, b: int) -> int:
    return a + b


@component
def say(text: str) -> str:
    return text


@component
def upto(n: int) -> list:
    return list(range(n))


@component
def write(text: str, out: dsl.Output[dsl.Dataset]):
    out.metadata["n"] = text


@component
def read(data: dsl.Input[dsl.Dataset] = None) -> str:
    return data.path if data else ""


@component
def typed(n: int) -> list[int]:
    return [n]


@component
def mapped(x: dict) -> dict:
    return x


@component
def maybe(text: str = "") -> str:
    return text


@component
def sums(xs: list) -> int:
    return sum(xs)


@component
def told(status: dsl.PipelineTaskFinalStatus) -> str:
    return status.state


@component
def fails() -> str:
    raise ValueError


@dsl.container_component
def joined(text: str):
    return dsl.ContainerSpec(image="i", command=["c", dsl.ConcatPlaceholder([text, "-", text])])


@dsl.container_component
def chosen(text: str = None):
    word = dsl.IfPresentPlaceholder(input_name="text", then=["--text", text], else_=["none"])
    return dsl.ContainerSpec(image="i", command=["c"], args=[word])


@dsl.container_component
def tagged(data: dsl.Input[dsl.Dataset]):
    return dsl.ContainerSpec(image="i", command=["c", data.metadata["n"]])


@dsl.pipeline(name="each")
def each(data: dsl.Input[list[dsl.Dataset]]):
    with dsl.ParallelFor(items=data) as item:
        read(data=item)


def artifact_loop() -> None:
    with dsl.ParallelFor(["a", "b"]) as text:
        made = write(text=text)
    each(data=dsl.Collected(made.outputs["out"]))


@dsl.pipeline(name="optional")
def optional(data: dsl.Input[dsl.Dataset] = None):
    read(data=data)


def items_without_a_type() -> None:
    with dsl.ParallelFor(upto(n=2).output) as item:
        add(a=item, b=1)


def items_without_a_type_under_a_condition() -> None:
    with dsl.ParallelFor(upto(n=2).output) as item, dsl.If(say(text="x").output == "x"):
        add(a=item, b=1)


def final_status() -> None:
    with dsl.ExitHandler(told()):
        say(text="x")


def plain_exit() -> None:
    with dsl.ExitHandler(say(text="bye")):
        fails()


def ignored_alone() -> None:
    say(text="x").after(fails()).ignore_upstream_failure()


def imported(metadata: dict) -> None:
    read(data=dsl.importer(artifact_uri="s3://b/k", artifact_class=dsl.Dataset, metadata=metadata).output)


def collected_skips() -> None:
    with dsl.ParallelFor([1, 2]) as item, dsl.If(item > 1):
        made = add(a=item, b=0)
    sums(xs=dsl.Collected(made.output))


def collected_nested() -> None:
    with dsl.ParallelFor([1, 2]) as x, dsl.ParallelFor([10, 20]) as y:
        made = add(a=x, b=y)
    sums(xs=dsl.Collected(made.output))


def collected() -> None:
    with dsl.ParallelFor([1, 2]) as item:
        made = add(a=item, b=0)
    sums(xs=dsl.Collected(made.output))


def security() -> None:
    kubernetes.set_security_context(say(text="x"), run_as_user=1)


CASES: dict[str, tuple[str, Callable[[], Any]]] = {
    "artifact-loop": ("kfp-artifact-loop", artifact_loop),
    "items": ("kfp-loop-item", items_without_a_type),
    "items-if": ("kfp-loop-item", items_without_a_type_under_a_condition),
    "optional-artifact": ("kfp-optional-artifact", lambda: optional()),
    "final-status": ("kfp-final-status", final_status),
    "ignored": ("kfp-ignored-output", lambda: maybe(text=fails().output).ignore_upstream_failure()),
    "importer": ("kfp-importer-metadata", lambda: imported({"deep": {"n": 1}})),
    "collected": ("kfp-collected-condition", collected_skips),
    "nested": ("kfp-collected-nested", collected_nested),
    "inside": ("kfp-number-inside", lambda: mapped(x={"n": add(a=1, b=2).output})),
    "create-time": ("kfp-placeholder", lambda: say(text=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER)),
    "security": ("kfp-security-context", security),
    "concat": ("kfp-concat", lambda: joined(text="x")),
    "if-present": ("kfp-if-present", lambda: chosen()),
    "metadata": ("kfp-placeholder", lambda: tagged(data=write(text="x").outputs["out"])),
    "schedule-time": ("kfp-placeholder", lambda: say(text=dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER)),
    "root": ("kfp-placeholder", lambda: say(text=dsl.PIPELINE_ROOT_PLACEHOLDER)),
    "middle": ("kfp-placeholder-text", lambda: say(text=f"<{dsl.PIPELINE_TASK_NAME_PLACEHOLDER}>")),
}


def planned(body: Callable[[], Any], folder: Path) -> Plan:
    @dsl.pipeline(name="p")
    def p():
        body()

    Compiler().compile(p, str(folder / "p.yaml"))
    definition = load(str(folder / "p.yaml"))
    return build(definition.spec, definition.platforms)


@pytest.mark.parametrize("case", CASES)
def test_what_2_14_cannot_do_is_refused_with_its_code(tmp_path: Path, case: str) -> None:
    code, body = CASES[case]
    plan = planned(body, tmp_path)
    for server in ("2.14.3", ""):
        with pytest.raises(DefinitionError) as refused:
            support.check(plan, server)
        assert refused.value.code == code
        assert refused.value.hint
    support.check(plan, "2.17.0")


def items_with_a_type() -> None:
    with dsl.ParallelFor(typed(n=2).output) as item:
        add(a=item, b=1)


def texts() -> None:
    with dsl.ParallelFor(upto(n=2).output) as item:
        say(text=item)


def constants() -> None:
    with dsl.ParallelFor([1, 2]) as item:
        add(a=item, b=1)


def keys() -> None:
    with dsl.ParallelFor([{"a": 1, "b": 2}]) as item:
        add(a=item.a, b=item.b)
        mapped(x=item)


@pytest.mark.parametrize(
    "body",
    [
        items_with_a_type,
        texts,
        constants,
        keys,
        lambda: optional(data=write(text="x").outputs["out"]),
        lambda: read(),
        plain_exit,
        collected,
        lambda: mapped(x={"s": say(text="x").output, "n": 1}),
        ignored_alone,
        lambda: imported({"n": 1}),
        lambda: say(text=dsl.PIPELINE_TASK_NAME_PLACEHOLDER),
        lambda: say(text=f"sum {add(a=1, b=2).output}"),
    ],
)
def test_what_is_like_it_and_works_there_is_not_refused(tmp_path: Path, body: Callable[[], Any]) -> None:
    support.check(planned(body, tmp_path), "2.14.3")
