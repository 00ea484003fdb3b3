"""dsl.OneOf and dsl.Collected, by value."""

from typing import NamedTuple

import pytest
from kfp import dsl

from tests.language.kit import (
    FAILED,
    SKIPPED,
    SUCCEEDED,
    Runner,
    add,
    component,
    fail,
    joined,
    outputs,
    read,
    read_all,
    say,
    upto,
    write,
)


@component
def pair(n: int) -> NamedTuple("Pair", [("half", float), ("twice", int)]):
    return n / 2, n * 2


@component
def slow(text: str, seconds: str) -> str:
    import time

    time.sleep(float(seconds))
    return text


@component
def both(x: str, y: str) -> str:
    return x + y


@component
def write_both(x: str, y: str, out: dsl.Output[dsl.Dataset]):
    with open(out.path, "w") as f:
        f.write(x + y)


@component
def shown(xs: list) -> str:
    return repr(xs)


@component
def info(n: int) -> dict:
    return {"n": n, "square": n * n, "list": [n]}


@pytest.mark.parametrize(("x", "value"), [(1, 11), (2, 102)])
def test_one_of_an_integer_is_used_by_a_later_task(run: Runner, x: int, value: int) -> None:
    @dsl.pipeline(name="p")
    def p(x: int) -> int:
        with dsl.If(x == 1):
            one = add(a=x, b=9)
        with dsl.Else():
            other = add(a=x, b=99)
        return add(a=dsl.OneOf(one.output, other.output), b=1).output

    ran = run(p, x=x)
    assert ran.value == value
    assert type(ran.value) is int


@pytest.mark.parametrize(("x", "text"), [("a", "from a"), ("b", "from b"), ("z", "neither")])
def test_one_of_artifacts_is_read_by_a_later_task_and_is_an_output(run: Runner, x: str, text: str) -> None:
    out = outputs(said=str, data=dsl.Dataset)

    @dsl.pipeline(name="p")
    def p(x: str) -> out:
        with dsl.If(x == "a"):
            a = write(text="from a")
        with dsl.Elif(x == "b"):
            b = write(text="from b")
        with dsl.Else():
            c = write(text="neither")
        chosen = dsl.OneOf(a.outputs["out"], b.outputs["out"], c.outputs["out"])
        return out(said=read(data=chosen).output, data=chosen)

    ran = run(p, x=x)
    assert ran.values == {"said": text}
    assert ran.text("data") == text


def test_one_of_artifacts_returned_from_a_nested_pipeline(run: Runner) -> None:
    @dsl.pipeline(name="choose")
    def choose(x: str) -> dsl.Dataset:
        with dsl.If(x == "a"):
            a = write(text="A")
        with dsl.Else():
            b = write(text="B")
        return dsl.OneOf(a.outputs["out"], b.outputs["out"])

    @dsl.pipeline(name="p")
    def p() -> str:
        first, second = read(data=choose(x="a").output), read(data=choose(x="?").output)
        return say(text=f"{first.output}{second.output}").output

    assert run(p).value == "AB"


def test_one_of_a_field_of_a_named_tuple(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(x: int) -> int:
        with dsl.If(x > 0):
            one = pair(n=x)
        with dsl.Else():
            other = add(a=x, b=0)
        return dsl.OneOf(one.outputs["twice"], other.output)

    assert run(p, x=4).value == 8
    assert run(p, x=-4).value == -4


def test_one_of_inside_a_branch_feeds_a_task_of_that_branch(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(x: int, y: int) -> str:
        with dsl.If(x == 1):
            with dsl.If(y == 1):
                a = say(text="a")
            with dsl.Else():
                b = say(text="b")
            inner = say(text=dsl.OneOf(a.output, b.output))
        with dsl.Else():
            c = say(text="c")
        return dsl.OneOf(inner.output, c.output)

    assert run(p, x=1, y=1).value == "a"
    assert run(p, x=1, y=2).value == "b"
    assert run(p, x=2, y=1).value == "c"


def test_one_of_inside_a_loop_is_chosen_per_iteration_and_collected(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor([1, 2, 3]) as x:
            with dsl.If(x == 2):
                even = say(text="even")
            with dsl.Else():
                odd = say(text="odd")
            each = say(text=dsl.OneOf(even.output, odd.output))
        return dsl.Collected(each.output)

    assert run(p).value == ["odd", "even", "odd"]


def test_the_branch_that_was_taken_failing_fails_what_needs_it(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(x: int) -> str:
        with dsl.If(x == 1):
            a = fail(text="bad")
        with dsl.Else():
            b = say(text="good")
        return say(text=dsl.OneOf(a.output, b.output)).output

    assert run(p, x=2).value == "good"
    ran = run(p, x=1)
    assert (ran.state, ran.values) == (FAILED, {})
    assert [s for n, s in ran.of("say").items() if "/" not in n] == [SKIPPED]


def test_collected_is_in_the_order_of_the_items_however_long_they_take(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor([{"t": "a", "s": "0.4"}, {"t": "b", "s": "0.2"}, {"t": "c", "s": "0"}]) as item:
            each = slow(text=item.t, seconds=item.s)
        return dsl.Collected(each.output)

    assert run(p, jobs=4).value == ["a", "b", "c"]


def test_collected_is_returned_and_used(run: Runner) -> None:
    out = outputs(all=list, text=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        with dsl.ParallelFor(["x", "y"]) as item:
            each = say(text=item)
        text = joined(words=dsl.Collected(each.output))
        return out(all=dsl.Collected(each.output), text=text.output)

    assert run(p).values == {"all": ["x", "y"], "text": "x,y"}


def test_collected_integers_stay_integers_in_the_consumer(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> str:
        with dsl.ParallelFor([1, 2]) as x, dsl.ParallelFor([10]) as y:
            each = add(a=x, b=y)
        return shown(xs=dsl.Collected(each.output)).output

    assert run(p).value == "[[11], [12]]"


def test_collected_lists_and_mappings_keep_their_shape(run: Runner) -> None:
    out = outputs(lists=list, dicts=list)

    @dsl.pipeline(name="p")
    def p() -> out:
        with dsl.ParallelFor([0, 2]) as n:
            lists, dicts = upto(n=n), info(n=n)
        return out(lists=dsl.Collected(lists.output), dicts=dsl.Collected(dicts.output))

    ran = run(p)
    assert ran.values["lists"] == [[], [0, 1]]
    assert ran.values["dicts"] == [{"n": 0, "square": 0, "list": [0]}, {"n": 2, "square": 4, "list": [2]}]
    assert "." not in repr(ran.values)


def test_collected_fields_of_a_named_tuple(run: Runner) -> None:
    out = outputs(halves=list, doubles=list)

    @dsl.pipeline(name="p")
    def p() -> out:
        with dsl.ParallelFor([1, 2]) as n:
            each = pair(n=n)
        return out(halves=dsl.Collected(each.outputs["half"]), doubles=dsl.Collected(each.outputs["twice"]))

    assert run(p).values == {"halves": [0.5, 1.0], "doubles": [2, 4]}


def test_collected_artifacts_arrive_as_a_list_and_leave_as_one(run: Runner) -> None:
    out = outputs(texts=list, data=list[dsl.Dataset])

    @dsl.pipeline(name="p")
    def p() -> out:
        with dsl.ParallelFor(["a", "b", "c"]) as text:
            each = write(text=text)
        texts = read_all(data=dsl.Collected(each.outputs["out"]))
        return out(texts=texts.output, data=dsl.Collected(each.outputs["out"]))

    ran = run(p)
    assert ran.values == {"texts": ["a", "b", "c"]}
    assert ran.texts("data") == ["a", "b", "c"]


def test_artifacts_of_nested_loops_are_one_flat_list(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor(["a", "b"]) as x, dsl.ParallelFor(["1", "2"]) as y:
            each = write_both(x=x, y=y)
        return read_all(data=dsl.Collected(each.outputs["out"])).output

    assert run(p).value == ["a1", "a2", "b1", "b2"]


def test_each_level_of_a_nested_loop_collects_at_its_own_depth(run: Runner) -> None:
    out = outputs(outer=list, inner=list)

    @dsl.pipeline(name="p")
    def p() -> out:
        with dsl.ParallelFor([1, 2]) as x:
            outer = add(a=x, b=0)
            with dsl.ParallelFor([10, 20]) as y:
                inner = add(a=x, b=y)
        return out(outer=dsl.Collected(outer.output), inner=dsl.Collected(inner.output))

    assert run(p).values == {"outer": [1, 2], "inner": [[11, 21], [12, 22]]}


def test_an_inner_loop_is_collected_inside_the_outer_loop(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor(["a", "b"]) as x:
            with dsl.ParallelFor(["1", "2"]) as y:
                each = both(x=x, y=y)
            row = joined(words=dsl.Collected(each.output))
        return dsl.Collected(row.output)

    assert run(p).value == ["a1,a2", "b1,b2"]


@pytest.mark.parametrize(("limit", "kept"), [(0, ["1", "2", "3"]), (2, ["3"]), (9, [])])
def test_skipped_iterations_are_absent_from_collected_artifacts(run: Runner, limit: int, kept: list) -> None:
    @component
    def keep(n: int, out: dsl.Output[dsl.Dataset]):
        with open(out.path, "w") as f:
            f.write(str(n))

    @dsl.pipeline(name="p")
    def p(limit: int) -> list:
        with dsl.ParallelFor([1, 2, 3]) as x, dsl.If(x > limit):
            each = keep(n=x)
        return read_all(data=dsl.Collected(each.outputs["out"])).output

    assert run(p, limit=limit).value == kept


def test_when_every_iteration_is_skipped_the_collection_is_empty(run: Runner) -> None:
    out = outputs(all=list, text=str)

    @dsl.pipeline(name="p")
    def p(on: bool) -> out:
        with dsl.ParallelFor(["a", "b"]) as x, dsl.If(on == True):  # noqa: E712
            each = say(text=x)
        return out(all=dsl.Collected(each.output), text=joined(words=dsl.Collected(each.output)).output)

    assert run(p, on=True).values == {"all": ["a", "b"], "text": "a,b"}
    assert run(p, on=False).values == {"all": [], "text": ""}


def test_skipped_inner_iterations_leave_shorter_rows(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor([1, 2]) as x, dsl.ParallelFor([1, 2, 3]) as y, dsl.If(y > x):
            each = add(a=x, b=y)
        return dsl.Collected(each.output)

    assert run(p).value == [[3, 4], [5]]


def test_no_artifacts_are_collected_from_an_empty_loop(run: Runner) -> None:
    out = outputs(texts=list, data=list[dsl.Dataset])

    @dsl.pipeline(name="p")
    def p(items: list[str]) -> out:
        with dsl.ParallelFor(items) as text:
            each = write(text=text)
        texts = read_all(data=dsl.Collected(each.outputs["out"]))
        return out(texts=texts.output, data=dsl.Collected(each.outputs["out"]))

    ran = run(p, items=[])
    assert (ran.state, ran.values) == (SUCCEEDED, {"texts": []})
    assert list(ran.artifacts.get("data", [])) == []


def test_collected_goes_into_and_out_of_nested_pipelines(run: Runner) -> None:
    @dsl.pipeline(name="produce")
    def produce(items: list[str]) -> list[str]:
        with dsl.ParallelFor(items) as x:
            each = say(text=x)
        return dsl.Collected(each.output)

    @dsl.pipeline(name="consume")
    def consume(words: list[str], data: dsl.Input[list[dsl.Dataset]]) -> list:
        with dsl.ParallelFor(words) as word:
            each = say(text=f"<{word}>")
        read_all(data=data)
        return dsl.Collected(each.output)

    @dsl.pipeline(name="p")
    def p() -> list:
        made = produce(items=["a", "b"])
        with dsl.ParallelFor(made.output) as x:
            written = write(text=x)
        return consume(words=made.output, data=dsl.Collected(written.outputs["out"])).output

    assert run(p).value == ["<a>", "<b>"]


def test_a_condition_decides_whether_the_collection_is_used(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(on: bool):
        with dsl.ParallelFor([1, 2]) as x:
            each = add(a=x, b=0)
        with dsl.If(on == True):  # noqa: E712
            joined(words=dsl.Collected(each.output))

    assert [s for n, s in run(p, on=True).steps.items() if n.endswith("joined")] == [SUCCEEDED]
    assert [s for n, s in run(p, on=False).steps.items() if n.endswith("joined")] == [SKIPPED]
