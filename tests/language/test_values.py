"""Parameter values of every type and shape, from the run through components to the outputs."""

import json
import math
from typing import Any, NamedTuple

import pytest
from kfp import dsl

import tidegate
from tests.language.kit import FAILED, SUCCEEDED, Runner, component, flag, outputs, real, say
from tidegate.errors import UsageError


@component
def mapping(x: dict) -> dict:
    return x


@component
def sequence(x: list) -> list:
    return x


@component
def number(x: int) -> int:
    return x


@component
def all_types(i: int, f: float, s: str, b: bool, d: dict, xs: list) -> str:
    return " ".join(type(v).__name__ for v in (i, f, s, b, d, xs))


@component
def written(
    i: dsl.OutputPath(int),
    f: dsl.OutputPath(float),
    s: dsl.OutputPath(str),
    b: dsl.OutputPath(bool),
    d: dsl.OutputPath(dict),
    xs: dsl.OutputPath(list),
):
    texts = {i: "7", f: "0.5", s: "007", b: "true", d: '{"k": [1, 2.5]}', xs: '[1, "a", null]'}
    for path, text in texts.items():
        with open(path, "w") as out:
            out.write(text)


@component
def yes_no(text: str, out: dsl.OutputPath(bool)):
    with open(out, "w") as f:
        f.write(text)


ECHO = {int: number, float: real, str: say, bool: flag, dict: mapping, list: sequence}


def through(run: Runner, value: Any, kind: type) -> Any:
    """Send a value through the run's parameters, a component, and the run's outputs."""
    echo = ECHO[kind]

    @dsl.pipeline(name="p")
    def p(v: kind) -> kind:
        first = echo(text=v) if echo is say else echo(x=v)
        return (echo(text=first.output) if echo is say else echo(x=first.output)).output

    return run(p, v=value).value


def same(a: Any, b: Any) -> bool:
    """Equal at every depth, with the same types."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


@pytest.mark.parametrize("value", [0, -1, 2**31, 2**53, -(2**53), 10**18], ids=str)
def test_integers_arrive_exactly(run: Runner, value: int) -> None:
    assert same(through(run, value, int), value)


@pytest.mark.parametrize("value", [0.1, -0.0, 1e-300, 1e300, 2.0, 1 / 3], ids=str)
def test_floats_arrive_exactly(run: Runner, value: float) -> None:
    assert same(through(run, value, float), value)


@pytest.mark.parametrize(
    "value",
    ["", " ", "null", "1", "true", "[1]", '{"a": 1}', "it's \"both\"", "a\nb\r\n\tc", "\\n \\", "日本語 😀", "a" * 3_000_000, "$HOME `ls` $(ls) %s {0}", "-x --flag=1"],
    ids=lambda v: ascii(v)[:14],
)  # fmt: skip
def test_text_arrives_character_by_character(run: Runner, value: str) -> None:
    assert through(run, value, str) == value


@pytest.mark.parametrize("value", [True, False])
def test_booleans_arrive(run: Runner, value: bool) -> None:
    assert through(run, value, bool) is value


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": 1, "b": 2.5, "c": {"d": [1, 2, {"e": 3}]}},
        {"é 'x' \"y\"": "\n"},
        {"none": None, "t": True},
        {"a": 1.0},
    ],
    ids=str,
)
def test_mappings_arrive_with_integers_as_integers_at_every_depth(run: Runner, value: dict) -> None:
    assert same(through(run, value, dict), value)


@pytest.mark.parametrize("value", [[], [1, 2], [1, [2, [3, []]]], ["a", None, True, 1.5, {"k": [1]}], [2**53]], ids=str)
def test_lists_arrive_with_integers_as_integers_at_every_depth(run: Runner, value: list) -> None:
    assert same(through(run, value, list), value)


def test_a_mapping_of_three_megabytes_arrives(run: Runner) -> None:
    value = {f"k{i}": ["x" * 100, i] for i in range(25_000)}
    assert same(through(run, value, dict), value)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_number_that_is_none_is_an_output_like_any_other(run: Runner, text: str) -> None:
    @component
    def made(text: str) -> float:
        return float(text)

    @dsl.pipeline(name="p")
    def p(text: str) -> float:
        return real(x=made(text=text).output).output

    value, wanted = run(p, text=text).value, float(text)
    assert math.isnan(value) if math.isnan(wanted) else value == wanted


def test_defaults_of_every_type_reach_the_component_with_that_type(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(
        i: int = 3,
        f: float = 2,
        s: str = "3",
        b: bool = False,
        d: dict = {"n": 1, "deep": [1, 2.5]},  # noqa: B006
        xs: list = [1, "é", [2]],  # noqa: B006
    ) -> outs:
        return outs(
            types=all_types(i=i, f=f, s=s, b=b, d=d, xs=xs).output, d=mapping(x=d).output, xs=sequence(x=xs).output
        )

    ran = run(p)
    assert ran.values["types"] == "int float str bool dict list"
    assert same(ran.values["d"], {"n": 1, "deep": [1, 2.5]})
    assert same(ran.values["xs"], [1, "é", [2]])


outs = outputs(types=str, d=dict, xs=list)


def test_defaults_of_the_component_itself_are_filled_in(run: Runner) -> None:
    @component
    def own(i: int = 3, f: float = 2.0, s: str = "x", b: bool = True, d: dict = {"n": 1}, xs: list = [1]) -> str:  # noqa: B006
        import json

        return json.dumps([i, f, s, b, d, xs])

    @dsl.pipeline(name="p")
    def p() -> str:
        return own(i=4).output

    assert run(p).value == '[4, 2.0, "x", true, {"n": 1}, [1]]'


def test_constants_of_every_type_reach_the_component_with_that_type(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> outs:
        types = all_types(i=1, f=1.0, s="1", b=True, d={"a": 1}, xs=[1]).output
        return outs(types=types, d=mapping(x={"a": {"b": [1, 0.5]}}).output, xs=sequence(x=[0, -1, [2]]).output)

    ran = run(p)
    assert ran.values["types"] == "int float str bool dict list"
    assert same(ran.values["d"], {"a": {"b": [1, 0.5]}})
    assert same(ran.values["xs"], [0, -1, [2]])


def test_parameters_written_to_a_path_are_read_by_their_declared_type(run: Runner) -> None:
    out = outputs(i=int, f=float, s=str, b=bool, d=dict, xs=list)

    @dsl.pipeline(name="p")
    def p() -> out:
        done = written()
        return out(**{name: done.outputs[name] for name in out._fields})

    wanted = {"i": 7, "f": 0.5, "s": "007", "b": True, "d": {"k": [1, 2.5]}, "xs": [1, "a", None]}
    assert same(run(p).values, wanted)


@pytest.mark.parametrize(("text", "value"), [("True", True), ("false", False), ("FALSE", False)])
def test_a_boolean_written_to_a_path_may_be_in_any_case(run: Runner, text: str, value: bool) -> None:
    @dsl.pipeline(name="p")
    def p(text: str) -> bool:
        return yes_no(text=text).output

    assert run(p, text=text).value is value


def test_a_written_value_of_another_type_fails_the_step_and_names_the_output(run: Runner) -> None:
    @component
    def wrong(count: dsl.OutputPath(int)):
        with open(count, "w") as f:
            f.write("many")

    ran = run(wrong)
    assert ran.state == FAILED
    assert "count" in ran.error["message"]


def test_text_written_to_a_path_keeps_its_newlines(run: Runner) -> None:
    @component
    def lines(out: dsl.OutputPath(str)):
        with open(out, "w") as f:
            f.write("a\nb\n")

    assert run(lines).value == "a\nb\n"


def test_a_named_tuple_gives_each_field_its_type(run: Runner) -> None:
    @component
    def several() -> NamedTuple("S", [("i", int), ("f", float), ("s", str), ("b", bool), ("d", dict), ("xs", list)]):
        return 1, 2.0, "3", True, {"k": 4}, [5]

    assert same(run(several).values, {"i": 1, "f": 2.0, "s": "3", "b": True, "d": {"k": 4}, "xs": [5]})


def test_a_whole_number_given_for_a_float_is_a_float(run: Runner) -> None:
    value = through(run, 3, float)
    assert (value, type(value)) == (3.0, float)


def test_generic_types_are_lists_and_mappings(run: Runner) -> None:
    @component
    def counts(words: list[str]) -> dict[str, int]:
        return {w: words.count(w) for w in words}

    @component
    def keys(table: dict[str, int]) -> list[str]:
        return sorted(table)

    @dsl.pipeline(name="p")
    def p(words: list[str]) -> list[str]:
        return keys(table=counts(words=words).output).output

    assert run(p, words=["b", "a", "b"]).value == ["a", "b"]


@pytest.mark.parametrize(
    ("kind", "value"), [(int, "three"), (int, 1.5), (bool, "maybe"), (list, {"a": 1}), (dict, [1]), (float, "x")]
)
def test_a_run_parameter_of_another_type_is_refused_before_anything_runs(run: Runner, kind: type, value: Any) -> None:
    @dsl.pipeline(name="p")
    def p(v: kind):
        ECHO[kind](x=v)

    with pytest.raises(UsageError):
        run(p, v=value)
    assert not (run.folder / "store" / "runs").exists()


def test_a_component_that_returns_another_type_than_it_declares_fails(run: Runner) -> None:
    @component
    def lies() -> int:
        return "many"

    assert run(lies).state == FAILED


def test_the_default_component_with_its_pip_line_runs_as_it_is(run: Runner) -> None:
    @dsl.component(base_image="python:3.11")
    def plain(xs: list) -> dict:
        return {"n": len(xs), "xs": xs}

    @dsl.component(base_image="python:3.11", packages_to_install=["packaging", "pyyaml>=6"])
    def with_packages(version: str) -> str:
        import packaging.version
        import yaml

        return yaml.safe_dump({"major": packaging.version.Version(version).major}).strip()

    @dsl.component(
        base_image="python:3.11", packages_to_install=["packaging>=20"], pip_index_urls=["https://pypi.org/simple"]
    )
    def with_index() -> bool:
        import packaging

        return bool(packaging.__version__)

    out = outputs(a=dict, b=str, c=bool)

    @dsl.pipeline(name="p")
    def p() -> out:
        return out(a=plain(xs=[1]).output, b=with_packages(version="3.1").output, c=with_index().output)

    ran = run(p)
    assert (ran.state, ran.values) == (SUCCEEDED, {"a": {"n": 1, "xs": [1]}, "b": "major: 3", "c": True})


def test_what_a_component_prints_is_its_log_and_nothing_else(run: Runner) -> None:
    @component
    def chatty() -> str:
        import sys

        print("to stdout é")
        print("to stderr", file=sys.stderr)
        return "quiet"

    ran = run(chatty)
    assert ran.value == "quiet"
    log = ran.log("chatty")
    assert "to stdout é" in log
    assert "to stderr" in log


def test_the_public_function_takes_a_pipeline_without_a_file(tmp_path) -> None:
    options = tidegate.Options(store=str(tmp_path / "store"), mirror=False, cache=False)
    assert tidegate.run(say, {"text": "direct"}, options).outputs == {"Output": "direct"}
