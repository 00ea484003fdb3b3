"""The same language through ``tidegate run FILE.yaml --json``: one line, values, exit codes."""

from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from tests.language.kit import FAILED, SKIPPED, SUCCEEDED, Runner, add, component, fail, outputs, read, say, upto, write


@component
def numbers() -> list:
    return [float("nan"), float("inf"), -float("inf"), 1, 2.5, {"n": float("nan"), "i": 1}]


@component
def ratio() -> float:
    return float("nan")


def test_one_line_says_the_run_its_state_outputs_and_steps(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(n: int, items: list = [1]) -> (out := outputs(sum=int, items=list, text=str)):  # noqa: B006
        made = add(a=n, b=1)
        return out(sum=made.output, items=upto(n=made.output).output, text=say(text="é\n'\"").output)

    said = run.cli(p, "-p", "n=2")
    assert said.code == 0
    body = said.body
    assert body["run_id"]
    assert (body["state"], body["error"]) == (SUCCEEDED, None)
    assert body["outputs"] == {"sum": 3, "items": [0, 1, 2], "text": "é\n'\""}
    assert {s["name"]: s["state"] for s in body["steps"]} == dict.fromkeys(["add", "upto", "say"], SUCCEEDED)
    assert all(s["cached"] is False and s["seconds"] >= 0 for s in body["steps"])


def test_values_that_json_cannot_say_are_words(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> (out := outputs(xs=list, ratio=float)):
        return out(xs=numbers().output, ratio=ratio().output)

    said = run.cli(p)
    assert said.code == 0
    assert said.body["outputs"] == {
        "xs": ["NaN", "Infinity", "-Infinity", 1, 2.5, {"n": "NaN", "i": 1}],
        "ratio": "NaN",
    }


def test_integers_stay_integers_in_the_printed_outputs(run: Runner) -> None:
    @component
    def same(d: dict) -> dict:
        return d

    @dsl.pipeline(name="p")
    def p(d: dict) -> (out := outputs(d=dict, xs=list)):
        with dsl.ParallelFor([1, 2]) as x:
            each = add(a=x, b=0)
        return out(d=same(d=d).output, xs=dsl.Collected(each.output))

    said = run.cli(p, "-p", 'd={"a": [1, 2.0, {"b": 3}]}')
    assert '"d": {"a": [1, 2.0, {"b": 3}]}' in said.out
    assert '"xs": [1, 2]' in said.out


def test_artifacts_are_printed_with_their_place_digest_type_and_metadata(run: Runner) -> None:
    @component
    def made(out: dsl.Output[dsl.Model]):
        out.metadata["score"] = 0.5
        with open(out.path, "w") as f:
            f.write("weights")

    @dsl.pipeline(name="p")
    def p(texts: list[str]) -> (out := outputs(model=dsl.Model, data=list[dsl.Dataset])):
        with dsl.ParallelFor(texts) as text:
            each = write(text=text)
        return out(model=made().output, data=dsl.Collected(each.outputs["out"]))

    printed = run.cli(p, "-p", 'texts=["a", "b"]').body["outputs"]
    model = printed["model"]
    assert set(model) == {"uri", "digest", "type", "metadata", "path"}
    assert (model["type"], model["metadata"]) == ("system.Model", {"score": 0.5})
    assert model["digest"].startswith("sha256:")
    assert Path(model["path"]).read_text() == "weights"
    assert [Path(d["path"]).read_text() for d in printed["data"]] == ["a", "b"]


def test_an_empty_list_of_artifacts_is_printed_as_a_list(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(texts: list[str]) -> list[dsl.Dataset]:
        with dsl.ParallelFor(texts) as text:
            each = write(text=text)
        return dsl.Collected(each.outputs["out"])

    said = run.cli(p, "-p", "texts=[]")
    assert (said.code, said.body["outputs"]) == (0, {"Output": []})


def test_input_artifacts_of_the_root_are_given_by_path(run: Runner, tmp_path: Path) -> None:
    @component
    def names(folder: dsl.Input[dsl.Artifact]) -> list:
        import os

        return sorted(os.listdir(folder.path))

    @dsl.pipeline(name="p")
    def p(data: dsl.Input[dsl.Dataset], folder: dsl.Input[dsl.Artifact]) -> (out := outputs(text=str, names=list)):
        return out(text=read(data=data).output, names=names(folder=folder).output)

    (tmp_path / "in.txt").write_text("given")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()
    said = run.cli(p, "-a", "data=in.txt", "-a", f"folder={tmp_path / 'folder'}")
    assert said.body["outputs"] == {"text": "given", "names": ["x"]}


@pytest.mark.parametrize(
    ("typed", "value"),
    [("i=3", 3), ("f=2", 2.0), ("s=3", "3"), ("s=", ""), ("s=a=b c", "a=b c"), ("b=true", True), ("b=False", False),
     ('d={"a": [1]}', {"a": [1]}), ("xs=[1, null]", [1, None])],
    ids=str,
)  # fmt: skip
def test_typed_values_become_the_declared_type(run: Runner, typed: str, value: Any) -> None:
    @component
    def shown(i: int, f: float, s: str, b: bool, d: dict, xs: list) -> dict:
        return {"i": i, "f": f, "s": s, "b": b, "d": d, "xs": xs}

    @dsl.pipeline(name="p")
    def p(i: int = 0, f: float = 0.0, s: str = "x", b: bool = True, d: dict = {}, xs: list = []) -> dict:  # noqa: B006
        return shown(i=i, f=f, s=s, b=b, d=d, xs=xs).output

    printed = run.cli(p, "-p", typed).body["outputs"]["Output"]
    assert printed[typed.partition("=")[0]] == value
    assert type(printed[typed.partition("=")[0]]) is type(value) or value == 2.0


def test_a_failed_run_says_no_names_the_error_and_lists_what_was_skipped(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p():
        with dsl.ParallelFor([1, 2]) as x:
            bad = fail(text="it's broken")
            say(text=bad.output)
            add(a=x, b=1)

    said = run.cli(p)
    assert said.code == 1
    body = said.body
    assert (body["state"], body["outputs"]) == (FAILED, {})
    assert "it's broken" in body["error"]["message"]
    assert body["error"]["code"]
    steps = {s["name"]: s["state"] for s in body["steps"]}
    assert steps == {
        f"for-loop-2[{i}]/{n}": s for i in (0, 1) for n, s in {"fail": FAILED, "say": SKIPPED, "add": SUCCEEDED}.items()
    }


@pytest.mark.parametrize(
    "arguments",
    [(), ("-p", "n=many"), ("-p", "n=1", "-p", "other=2"), ("-p", "n"), ("-p", "n=1", "-a", "data=in.txt")],
    ids=["missing", "type", "unknown", "syntax", "artifact"],
)
def test_wrong_usage_is_told_apart_from_a_run_that_failed(run: Runner, arguments: tuple[str, ...]) -> None:
    @dsl.pipeline(name="p")
    def p(n: int):
        add(a=n, b=1)

    (run.folder / "in.txt").touch()
    assert run.cli(p, *arguments).code == 2


def test_a_file_that_is_no_pipeline_is_wrong_usage(run: Runner) -> None:
    assert run.cli("just: text\n").code == 2


def test_the_second_run_comes_from_the_cache_and_says_so(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(n: int) -> int:
        first = add(a=n, b=1)
        return add(a=first.output, b=1).set_caching_options(False).output

    assert run.cli(p, "-p", "n=1").body["outputs"] == {"Output": 3}
    again = run.cli(p, "-p", "n=1").body
    assert {s["name"]: s["cached"] for s in again["steps"]} == {"add": True, "add-2": False}
    other = run.cli(p, "-p", "n=2").body
    assert (other["outputs"], [s["cached"] for s in other["steps"]]) == ({"Output": 4}, [False, False])


def test_containers_run_on_this_machine_where_the_environment_says_so(run: Runner, on_host: None) -> None:
    @dsl.container_component
    def hello(name: str, out: dsl.OutputPath(str)):
        return dsl.ContainerSpec(
            image="alpine",
            command=["sh", "-c", 'mkdir -p "$(dirname "$1")"; printf "hi %s" "$0" > "$1"'],
            args=[name, out],
        )

    said = run.cli(hello, "-p", "name=you")
    assert (said.code, said.body["outputs"]) == (0, {"out": "hi you"})
