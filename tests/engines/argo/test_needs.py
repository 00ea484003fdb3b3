"""What Argo has to know of a plan's values, and of what it only counts the items."""

from typing import Any

from kfp import dsl

from tests.language.kit import add, read, say, upto, write
from tidegate.engines.argo.control import COUNT, VALUE
from tidegate.engines.argo.needs import Analysis
from tidegate.ir.check import check
from tidegate.ir.load import of_pipeline
from tidegate.plan.build import build
from tidegate.plan.model import Dag


def needs(pipeline: Any) -> tuple[Any, dict[str, Any]]:
    """Of the pipeline's inputs, and of the outputs of its tasks."""
    definition = of_pipeline(pipeline, "")
    plan = build(check(dict(definition.spec), definition.platforms), definition.platforms)
    analysis = Analysis(plan)
    assert isinstance(plan.root.body, Dag)
    outputs = {t: dict(n) for t, n in analysis.outputs(plan.root.body, {}).items()}
    return dict(analysis.inputs(plan.root)), outputs


def test_a_pipeline_without_conditions_and_loops_tells_argo_nothing() -> None:
    @dsl.pipeline(name="p")
    def p(a: int) -> int:
        return add(a=add(a=a, b=1).output, b=2).output

    assert needs(p) == ({}, {})


def test_operands_are_values_and_items_are_counted() -> None:
    @dsl.pipeline(name="p")
    def p(n: int, words: list):
        with dsl.If(add(a=n, b=1).output > 3):
            say(text="more")
        with dsl.ParallelFor(upto(n=n).output) as i:
            add(a=i, b=n)
        with dsl.ParallelFor(words) as word:
            say(text=word)

    assert needs(p) == (
        {("parameter", "words"): COUNT},
        {"add": {("parameter", "Output"): VALUE}, "upto": {("parameter", "Output"): COUNT}},
    )


def test_items_that_a_condition_reads_are_values() -> None:
    @dsl.pipeline(name="p")
    def p(words: list):
        with dsl.ParallelFor(words) as word, dsl.If(word == "x"):
            say(text=word)

    assert needs(p) == ({("parameter", "words"): VALUE}, {})


def test_what_a_nested_pipeline_decides_by_is_needed_outside_of_it() -> None:
    @dsl.pipeline(name="inner")
    def inner(n: int, unread: str) -> list:
        with dsl.If(n > 1):
            say(text=unread)
        return upto(n=n).output

    @dsl.pipeline(name="p")
    def p(n: int):
        made = inner(n=add(a=n, b=1).output, unread=say(text="x").output)
        with dsl.ParallelFor(made.output) as i:
            add(a=i, b=1)

    assert needs(p) == ({}, {"add": {("parameter", "Output"): VALUE}, "inner": {("parameter", "Output"): COUNT}})


def test_artifacts_are_only_ever_counted() -> None:
    @dsl.pipeline(name="parts")
    def parts(words: list) -> list[dsl.Dataset]:
        with dsl.ParallelFor(words) as word:
            made = write(text=word)
        return dsl.Collected(made.outputs["out"])

    @dsl.pipeline(name="p")
    def p(words: list):
        with dsl.ParallelFor(parts(words=words).output) as one:
            read(data=one)

    assert needs(p) == ({("parameter", "words"): COUNT}, {"parts": {("artifact", "Output"): COUNT}})
