"""dsl.ParallelFor, by value."""

from pathlib import Path
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
    flag,
    joined,
    note,
    outputs,
    read,
    real,
    say,
    upto,
    write,
)


@component
def shapes() -> NamedTuple("Shapes", [("sizes", list), ("names", list)]):
    return [3, 5], ["x", "y"]


@component
def table(n: int) -> list[dict[str, int]]:
    return [{"a": i, "b": 10 * i} for i in range(n)]


@component
def typed(x: int) -> str:
    return f"{type(x).__name__} {x}"


@component
def types_in(x: dict) -> str:
    return " ".join(f"{k}={v!r}" for k, v in sorted(x.items()))


@component
def types_of(xs: list) -> str:
    return repr(xs)


@component
def alone(folder: str, me: int, limit: int) -> int:
    """Fail where more than ``limit`` of these are at work at once."""
    import os
    import time

    mine = os.path.join(folder, str(me))
    open(mine, "x").close()
    time.sleep(0.15)
    here = len(os.listdir(folder))
    os.remove(mine)
    assert here <= limit, here
    return here


@pytest.mark.parametrize(
    ("each", "items"),
    [(say, ["b", "a", "b"]), (real, [0.5, 2.0]), (flag, [True, False])],
    ids=["text", "floats", "booleans"],
)
def test_a_loop_over_constants_gives_one_result_each_in_order(run: Runner, each, items: list) -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor(items) as item:
            done = each(text=item) if each is say else each(x=item)
        return dsl.Collected(done.output)

    ran = run(p)
    assert ran.value == items
    assert [type(v) for v in ran.value] == [type(v) for v in items]


@pytest.mark.parametrize("given", [{}, {"xs": [7]}, {"xs": []}, {"xs": list(range(12))}])
def test_a_loop_over_a_pipeline_parameter_takes_what_the_run_is_given(run: Runner, given: dict) -> None:
    @dsl.pipeline(name="p")
    def p(xs: list[int] = [1, 2]) -> list:  # noqa: B006
        with dsl.ParallelFor(xs) as x:
            each = add(a=x, b=1)
        return dsl.Collected(each.output)

    assert run(p, **given).value == [x + 1 for x in given.get("xs", [1, 2])]


def test_loop_items_reach_the_component_as_integers(run: Runner) -> None:
    out = outputs(constant=list, parameter=list, output=list)

    @dsl.pipeline(name="p")
    def p(xs: list[int]) -> out:
        with dsl.ParallelFor([1, 2]) as x:
            constant = typed(x=x)
        with dsl.ParallelFor(xs) as x:
            parameter = typed(x=x)
        with dsl.ParallelFor(upto(n=1).output) as x:
            output = typed(x=x)
        return out(
            constant=dsl.Collected(constant.output),
            parameter=dsl.Collected(parameter.output),
            output=dsl.Collected(output.output),
        )

    assert run(p, xs=[3]).values == {"constant": ["int 1", "int 2"], "parameter": ["int 3"], "output": ["int 0"]}


def test_loops_over_the_fields_of_a_named_tuple(run: Runner) -> None:
    out = outputs(n=list, s=list)

    @dsl.pipeline(name="p")
    def p() -> out:
        made = shapes()
        with dsl.ParallelFor(made.outputs["sizes"]) as size:
            grown = add(a=size, b=100)
        with dsl.ParallelFor(made.outputs["names"]) as name:
            said = say(text=name)
        return out(n=dsl.Collected(grown.output), s=dsl.Collected(said.output))

    assert run(p).values == {"n": [103, 105], "s": ["x", "y"]}


def test_the_whole_item_and_its_keys_can_be_used_together(run: Runner) -> None:
    out = outputs(sums=list, shown=list)

    @dsl.pipeline(name="p")
    def p() -> out:
        with dsl.ParallelFor([{"a": 1, "b": 2}, {"a": 3, "b": -4}]) as item:
            summed = add(a=item.a, b=item.b)
            shown = types_in(x=item)
        return out(sums=dsl.Collected(summed.output), shown=dsl.Collected(shown.output))

    assert run(p).values == {"sums": [3, -1], "shown": ["a=1 b=2", "a=3 b=-4"]}


def test_keys_of_items_of_a_pipeline_parameter(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(rows: list[dict[str, int]]) -> list:
        with dsl.ParallelFor(rows) as row:
            each = add(a=row.a, b=row.b)
        return dsl.Collected(each.output)

    assert run(p, rows=[{"a": 1, "b": 2}, {"a": 30, "b": 40}]).value == [3, 70]


def test_keys_of_items_of_a_task_output(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(n: int) -> list:
        with dsl.ParallelFor(table(n=n).output) as row:
            each = add(a=row.a, b=row.b)
        return dsl.Collected(each.output)

    assert run(p, n=3).value == [0, 11, 22]


def test_keys_that_hold_text_lists_and_mappings(run: Runner) -> None:
    out = outputs(texts=list, lists=list, dicts=list)

    @dsl.pipeline(name="p")
    def p(lists: list[dict[str, list]], dicts: list[dict[str, dict]]) -> out:
        with dsl.ParallelFor([{"label": "it's"}, {"label": '"'}]) as item:
            text = say(text=item.label)
        with dsl.ParallelFor(lists) as item:
            xs = types_of(xs=item.xs)
        with dsl.ParallelFor(dicts) as item:
            d = types_in(x=item.d)
        return out(texts=dsl.Collected(text.output), lists=dsl.Collected(xs.output), dicts=dsl.Collected(d.output))

    ran = run(p, lists=[{"xs": [1, 2.5]}, {"xs": []}], dicts=[{"d": {"k": 1}}, {"d": {"k": [2]}}])
    assert ran.values == {"texts": ["it's", '"'], "lists": ["[1, 2.5]", "[]"], "dicts": ["k=1", "k=[2]"]}


def test_nested_loops_use_both_items(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(xs: list[int], ys: list[int]) -> list:
        with dsl.ParallelFor(xs) as x:
            tens = add(a=x, b=x)
            with dsl.ParallelFor(ys) as y:
                each = add(a=tens.output, b=y)
        return dsl.Collected(each.output)

    assert run(p, xs=[10, 20], ys=[1, 2, 3]).value == [[21, 22, 23], [41, 42, 43]]


@pytest.mark.parametrize(("xs", "ys", "collected"), [([], [1], []), ([1, 2], [], [[], []])])
def test_nested_loops_may_be_empty_outside_or_inside(run: Runner, xs: list, ys: list, collected: list) -> None:
    @dsl.pipeline(name="p")
    def p(xs: list[int], ys: list[int]) -> list:
        with dsl.ParallelFor(xs) as x, dsl.ParallelFor(ys) as y:
            each = add(a=x, b=y)
        return dsl.Collected(each.output)

    assert run(p, xs=xs, ys=ys).value == collected


def test_a_loop_over_an_item_that_is_a_list(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(rows: list[list[int]]) -> list:
        with dsl.ParallelFor(rows) as row, dsl.ParallelFor(row) as x:
            each = add(a=x, b=100)
        return dsl.Collected(each.output)

    assert run(p, rows=[[1, 2], [], [3]]).value == [[101, 102], [], [103]]


def test_a_loop_over_a_key_of_an_item(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        items = [{"label": "a", "xs": [1, 2]}, {"label": "b", "xs": [3]}]
        with dsl.ParallelFor(items) as item, dsl.ParallelFor(item.xs) as x:
            each = add(a=x, b=100)
        return dsl.Collected(each.output)

    assert run(p).value == [[101, 102], [103]]


def test_an_outer_output_is_itself_three_loops_down(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        outer = add(a=400, b=0)
        with dsl.ParallelFor([10, 20]) as x:
            middle = add(a=x, b=outer.output)
            with dsl.ParallelFor([1]) as y:
                inner = add(a=middle.output, b=y)
                with dsl.ParallelFor([1000, 2000]) as z:
                    first = add(a=inner.output, b=z)
                    each = add(a=first.output, b=outer.output)
        return dsl.Collected(each.output)

    assert run(p).value == [[[1811, 2811]], [[1821, 2821]]]


def test_an_output_named_like_the_loop_items_is_not_mixed_up(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        base = add(a=50, b=50)
        items = upto(n=3)
        with dsl.ParallelFor(items.output) as item:
            each = add(a=item, b=base.output)
        return dsl.Collected(each.output)

    assert run(p).value == [100, 101, 102]


def test_two_loops_over_the_same_output_are_independent(run: Runner) -> None:
    out = outputs(one=list, ten=list)

    @dsl.pipeline(name="p")
    def p() -> out:
        items = upto(n=2)
        with dsl.ParallelFor(items.output) as x:
            one = add(a=x, b=1)
        with dsl.ParallelFor(items.output) as x:
            ten = add(a=x, b=10)
        return out(one=dsl.Collected(one.output), ten=dsl.Collected(ten.output))

    assert run(p).values == {"one": [1, 2], "ten": [10, 11]}


def test_a_loop_over_what_an_earlier_loop_collected(run: Runner) -> None:
    @component
    def same(xs: list[int]) -> list[int]:
        return xs

    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor([1, 2]) as x:
            first = add(a=x, b=x)
        with dsl.ParallelFor(same(xs=dsl.Collected(first.output)).output) as y:
            second = add(a=y, b=y)
        return dsl.Collected(second.output)

    assert run(p).value == [4, 8]


@pytest.mark.parametrize("on", [True, False])
def test_a_loop_inside_a_condition_runs_only_when_it_holds(run: Runner, on: bool) -> None:
    @dsl.pipeline(name="p")
    def p(on: bool):
        with dsl.If(on == True), dsl.ParallelFor([1, 2]) as x:  # noqa: E712
            add(a=x, b=0)

    ran = run(p, on=on)
    assert ran.state == SUCCEEDED
    if on:
        assert ran.steps == {f"condition-1/for-loop-3[{i}]/add": SUCCEEDED for i in (0, 1)}
    else:
        assert set(ran.steps.values()) == {SKIPPED}


def test_a_condition_on_the_item_picks_iterations(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(xs: list[int]) -> list:
        with dsl.ParallelFor(xs) as x, dsl.If(x > 2):
            each = add(a=x, b=0)
        return dsl.Collected(each.output)

    ran = run(p, xs=[1, 5, 2, 3])
    assert ran.value == [5, 3]
    assert sorted(ran.steps.values()) == [SKIPPED, SKIPPED, SUCCEEDED, SUCCEEDED]


def test_a_condition_on_a_key_of_the_item(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(rows: list[dict[str, str]]) -> list:
        with dsl.ParallelFor(rows) as row, dsl.If(row.kind == "keep"):
            each = say(text=row.word)
        return dsl.Collected(each.output)

    rows = [{"kind": "keep", "word": "a"}, {"kind": "drop", "word": "b"}, {"kind": "keep", "word": "c"}]
    assert run(p, rows=rows).value == ["a", "c"]


@pytest.mark.parametrize("limit", [1, 2])
def test_parallelism_limits_how_many_iterations_are_at_work(run: Runner, tmp_path: Path, limit: int) -> None:
    parallelism = limit

    @dsl.pipeline(name="p")
    def p(folder: str, limit: int) -> list:
        with dsl.ParallelFor([1, 2, 3, 4, 5], parallelism=parallelism) as x:
            each = alone(folder=folder, me=x, limit=limit)
        return dsl.Collected(each.output)

    folder = tmp_path / "busy"
    folder.mkdir()
    assert max(run(p, jobs=5, folder=str(folder), limit=limit).value) <= limit


def test_a_loop_over_a_list_of_artifacts_from_a_nested_pipeline(run: Runner) -> None:
    @component
    def make(text: str) -> dsl.Dataset:
        made = dsl.Dataset(uri=dsl.get_uri(), metadata={"n": len(text)})
        with open(made.path, "w") as f:
            f.write(text)
        return made

    @dsl.pipeline(name="many")
    def many(texts: list[str]) -> list[dsl.Dataset]:
        with dsl.ParallelFor(texts) as text:
            each = make(text=text)
        return dsl.Collected(each.output)

    @component
    def look(data: dsl.Dataset) -> str:
        return f"{open(data.path).read()} {data.metadata['n']}"

    @dsl.pipeline(name="p")
    def p(texts: list[str]) -> list:
        with dsl.ParallelFor(items=many(texts=texts).output) as item:
            each = look(data=item)
        return dsl.Collected(each.output)

    assert run(p, texts=["one", "zwei"]).value == ["one 3", "zwei 4"]


def test_a_task_after_a_loop_waits_for_all_of_it(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(file: str):
        with dsl.ParallelFor([1, 2, 3], parallelism=1) as x:
            each = note(file=file, word=f"{x}")
        note(file=file, word="last").after(each)

    file = tmp_path / "order"
    assert run(p, jobs=4, file=str(file)).state == SUCCEEDED
    assert file.read_text().split() == ["1", "2", "3", "last"]


def test_one_failed_iteration_fails_the_run_and_the_others_still_end(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> str:
        with dsl.ParallelFor([1, 2, 3]) as x:
            each = say(text=f"{x}")
            with dsl.If(x == 2):
                fail(text="two")
        return joined(words=dsl.Collected(each.output)).output

    ran = run(p)
    assert ran.state == FAILED
    assert "two" in ran.error["message"]
    assert [s for n, s in ran.steps.items() if n.endswith("/say")] == [SUCCEEDED] * 3
    assert ran.steps["joined"] == SKIPPED


def test_steps_are_named_by_loop_and_iteration(run: Runner) -> None:
    @dsl.pipeline(name="inner")
    def inner(x: int):
        with dsl.ParallelFor([0, 0]) as y:
            add(a=x, b=y)

    @dsl.pipeline(name="p")
    def p():
        with dsl.ParallelFor([1, 2]) as x:
            inner(x=x)

    names = {f"for-loop-2[{i}]/inner/for-loop-2[{j}]/add" for i in (0, 1) for j in (0, 1)}
    assert set(run(p).steps) == names


def test_artifacts_made_and_read_inside_one_iteration_stay_in_it(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor(["a", "b", "c"]) as text:
            each = read(data=write(text=text).outputs["out"])
        return dsl.Collected(each.output)

    assert run(p, jobs=4).value == ["a", "b", "c"]


def test_an_outer_artifact_is_read_in_every_iteration(run: Runner) -> None:
    @component
    def with_number(data: dsl.Input[dsl.Dataset], n: int) -> str:
        return open(data.path).read() * n

    @dsl.pipeline(name="p")
    def p() -> list:
        made = write(text="x")
        with dsl.ParallelFor([1, 3]) as n:
            each = with_number(data=made.outputs["out"], n=n)
        return dsl.Collected(each.output)

    assert run(p).value == ["x", "xxx"]


def test_items_with_quotes_newlines_and_other_scripts_arrive_whole(run: Runner) -> None:
    words = ["it's", 'say "hi"', "a\nb", "日本 é", "{{x}} {} %s", "\\n"]

    out = outputs(constant=list, parameter=list)

    @dsl.pipeline(name="p")
    def p(given: list[str]) -> out:
        with dsl.ParallelFor(words) as word:
            constant = say(text=word)
        with dsl.ParallelFor(given) as word:
            parameter = say(text=word)
        return out(constant=dsl.Collected(constant.output), parameter=dsl.Collected(parameter.output))

    assert run(p, given=words).values == {"constant": words, "parameter": words}


@pytest.mark.parametrize("texts", [["a", "b"], []])
def test_a_loop_over_a_list_of_artifacts_that_is_an_input(run: Runner, texts: list[str]) -> None:
    @dsl.pipeline(name="inner")
    def inner(data: dsl.Input[list[dsl.Dataset]], mark: str) -> list:
        with dsl.ParallelFor(items=data, parallelism=1) as item:
            first = read(data=item)
            with dsl.If(first.output != "b"):
                each = say(text=f"{mark}{first.output}")
        return dsl.Collected(each.output)

    @dsl.pipeline(name="p")
    def p(texts: list[str]) -> list:
        with dsl.ParallelFor(texts) as text:
            made = write(text=text)
        return inner(data=dsl.Collected(made.outputs["out"]), mark="-").output

    assert run(p, texts=texts).value == [f"-{t}" for t in texts if t != "b"]


def test_a_loop_over_artifacts_inside_a_loop_over_artifacts(run: Runner) -> None:
    @component
    def both(a: dsl.Input[dsl.Dataset], b: dsl.Input[dsl.Dataset]) -> str:
        return open(a.path).read() + open(b.path).read()

    @dsl.pipeline(name="inner")
    def inner(xs: dsl.Input[list[dsl.Dataset]], ys: dsl.Input[list[dsl.Dataset]]) -> list:
        with dsl.ParallelFor(items=xs) as x, dsl.ParallelFor(items=ys) as y:
            each = both(a=x, b=y)
        return dsl.Collected(each.output)

    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor(["a", "b"]) as text:
            xs = write(text=text)
        with dsl.ParallelFor(["1", "2"]) as text:
            ys = write(text=text)
        return inner(xs=dsl.Collected(xs.outputs["out"]), ys=dsl.Collected(ys.outputs["out"])).output

    assert run(p).value == [["a1", "a2"], ["b1", "b2"]]


def test_an_item_of_unknown_type_is_compared_as_the_text_that_it_is_declared_to_be(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor(upto(n=3).output) as i, dsl.If(i > 0):
            found = add(a=i, b=10)
        return dsl.Collected(found.output)

    assert run(p).value == [11, 12]
