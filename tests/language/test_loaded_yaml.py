"""Components and pipelines loaded from YAML, and IR that kfp's SDK does not write today."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import components, dsl
from kfp.compiler import Compiler

from tests.language.kit import SUCCEEDED, Runner, add, component, outputs, read, read_all, say, write
from tidegate.errors import UsageError

V1 = """
name: Repeat
description: repeats a word
inputs:
- {name: word, type: String}
- {name: times, type: Integer, default: '2'}
- {name: mark, type: String, optional: true}
outputs:
- {name: text, type: String}
- {name: file, type: Dataset}
implementation:
  container:
    image: alpine:3.20
    command:
    - sh
    - -ec
    - |
      mkdir -p "$(dirname "$2")" "$(dirname "$3")"
      i=0; out=""
      while [ $i -lt "$1" ]; do out="$out$0"; i=$((i+1)); done
      printf "%s%s" "$out" "${5-}" > "$2"
      printf "%s" "$4" > "$3"
    - {inputValue: word}
    - {inputValue: times}
    - {outputPath: text}
    - {outputPath: file}
    - concat: [{inputValue: word}, '-', {inputValue: times}]
    - if: {cond: {isPresent: mark}, then: [{inputValue: mark}]}
"""


@component
def pair(a: int, b: int = 5) -> int:
    return a * b


def ir(pipeline: Any, folder: Path) -> dict[str, Any]:
    Compiler().compile(pipeline, str(folder / "given.yaml"))
    body: dict[str, Any] = yaml.safe_load((folder / "given.yaml").read_text())
    return body


@pytest.mark.usefixtures("on_host")
def test_a_component_in_kfps_first_format(run: Runner) -> None:
    repeat = components.load_component_from_text(V1)
    out = outputs(plain=str, marked=str, file=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        plain = repeat(word="ab")
        marked = repeat(word="x", times=3, mark="!")
        return out(
            plain=plain.outputs["text"], marked=marked.outputs["text"], file=read(data=plain.outputs["file"]).output
        )

    assert run(p).values == {"plain": "abab", "marked": "xxx!", "file": "ab-2"}


@pytest.mark.usefixtures("on_host")
def test_a_component_in_kfps_first_format_with_input_path_and_file_parameters(run: Runner, tmp_path: Path) -> None:
    text = """
name: Upper
inputs: [{name: data, type: Dataset}]
outputs: [{name: text, type: String}]
implementation:
  container:
    image: alpine
    command: [sh, -ec, 'mkdir -p "$(dirname "$1")"; tr a-z A-Z < "$0" > "$1"', {inputPath: data}, {outputPath: text}]
"""
    (tmp_path / "upper.yaml").write_text(text)
    upper = components.load_component_from_file(str(tmp_path / "upper.yaml"))

    @dsl.pipeline(name="p")
    def p() -> str:
        return upper(data=write(text="abc").outputs["out"]).output

    assert run(p).value == "ABC"


def test_a_python_component_saved_as_yaml_and_loaded_again(run: Runner, tmp_path: Path) -> None:
    Compiler().compile(pair, str(tmp_path / "pair.yaml"))
    loaded = components.load_component_from_file(str(tmp_path / "pair.yaml"))
    out = outputs(default=int, given=int)

    @dsl.pipeline(name="p")
    def p() -> out:
        return out(default=loaded(a=2).output, given=loaded(a=2, b=3).output)

    assert run(p).values == {"default": 10, "given": 6}


def test_a_pipeline_saved_as_yaml_is_nested_with_loops_conditions_and_artifacts(run: Runner, tmp_path: Path) -> None:
    inner_out = outputs(sums=list, data=dsl.Dataset, said=str)

    @dsl.pipeline(name="inner")
    def inner(xs: list[int], word: str = "default") -> inner_out:
        with dsl.ParallelFor(xs) as x:
            each = add(a=x, b=1)
        with dsl.If(word == "default"):
            one = say(text="it was the default")
        with dsl.Else():
            two = say(text=word)
        return inner_out(
            sums=dsl.Collected(each.output),
            data=write(text=word).outputs["out"],
            said=dsl.OneOf(one.output, two.output),
        )

    Compiler().compile(inner, str(tmp_path / "inner.yaml"))
    loaded = components.load_component_from_file(str(tmp_path / "inner.yaml"))
    out = outputs(sums=list, text=str, said=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        first, second = loaded(xs=[1, 2]), loaded(xs=[3], word="mine")
        return out(
            sums=first.outputs["sums"], text=read(data=second.outputs["data"]).output, said=first.outputs["said"]
        )

    assert run(p).values == {"sums": [2, 3], "text": "mine", "said": "it was the default"}


def test_a_pipeline_loaded_from_yaml_is_run_alone(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="inner")
    def inner(a: int = 2) -> int:
        return add(a=a, b=1).output

    Compiler().compile(inner, str(tmp_path / "inner.yaml"))
    assert run(components.load_component_from_file(str(tmp_path / "inner.yaml"))).value == 3


def test_a_compiled_pipeline_with_parameters_fixed_by_the_compiler(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(a: int, b: int = 1) -> int:
        return add(a=a, b=b).output

    Compiler().compile(p, str(run.folder / "fixed.yaml"), pipeline_parameters={"a": 40, "b": 2}, pipeline_name="other")
    assert run((run.folder / "fixed.yaml").read_text()).value == 42


def test_ir_as_json_and_in_a_pipeline_job(run: Runner, tmp_path: Path) -> None:
    import json

    @dsl.pipeline(name="p")
    def p(a: int = 1) -> int:
        return add(a=a, b=1).output

    spec = ir(p, tmp_path)
    assert run(json.dumps(spec)).value == 2
    assert run(json.dumps({"pipelineSpec": spec, "displayName": "x", "runtimeConfig": {}})).value == 2


def test_allowed_values_are_checked_before_the_run(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(mode: str = "fast") -> str:
        return say(text=mode).output

    spec = ir(p, tmp_path)
    spec["root"]["inputDefinitions"]["parameters"]["mode"]["literals"] = ["fast", "slow"]
    text = yaml.safe_dump(spec)
    assert run(text).value == "fast"
    assert run(text, mode="slow").value == "slow"
    with pytest.raises(UsageError, match="medium"):
        run(text, mode="medium")


def test_the_old_form_of_constants(run: Runner, tmp_path: Path) -> None:
    @component
    def types(i: int, f: float, s: str) -> str:
        return f"{i!r} {f!r} {s!r}"

    @dsl.pipeline(name="p")
    def p() -> str:
        return types(i=0, f=0.0, s="").output

    spec = ir(p, tmp_path)
    given = spec["root"]["dag"]["tasks"]["types"]["inputs"]["parameters"]
    given["i"] = {"runtimeValue": {"constantValue": {"intValue": "7"}}}
    given["f"] = {"runtimeValue": {"constantValue": {"doubleValue": 0.5}}}
    given["s"] = {"runtimeValue": {"constantValue": {"stringValue": "old"}}}
    assert run(yaml.safe_dump(spec)).value == "7 0.5 'old'"


def test_a_run_time_parameter_that_nobody_gave_is_an_error_not_an_empty_value(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p() -> str:
        return say(text="x").output

    spec = ir(p, tmp_path)
    spec["root"]["dag"]["tasks"]["say"]["inputs"]["parameters"]["text"] = {"componentInputParameter": "absent"}
    with pytest.raises(UsageError, match="absent"):
        run(yaml.safe_dump(spec))


def test_ir_that_is_damaged_is_refused(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p() -> str:
        return say(text="x").output

    good = ir(p, tmp_path)
    damaged: list[Any] = [
        {**good, "components": {}},
        {**good, "deploymentSpec": {"executors": {}}},
        {k: v for k, v in good.items() if k != "root"},
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow"},
        [1, 2],
    ]
    for body in damaged:
        with pytest.raises(UsageError):
            run(yaml.safe_dump(body))
    with pytest.raises(UsageError):
        run("root: [unclosed")


def test_loop_items_given_as_json_text_are_a_list(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(xs: list) -> list:
        with dsl.ParallelFor(xs) as x:
            each = add(a=x, b=1)
        return dsl.Collected(each.output)

    assert run(p, xs="[1, 2]").value == [2, 3]


def test_lists_of_lists_of_artifacts_are_flat_wherever_they_come_from(run: Runner) -> None:
    @dsl.pipeline(name="many")
    def many(words: list[str]) -> list[dsl.Dataset]:
        with dsl.ParallelFor(words) as word:
            each = write(text=word)
        return dsl.Collected(each.outputs["out"])

    @dsl.pipeline(name="p")
    def p() -> list:
        with dsl.ParallelFor([["a", "b"], ["c"]]) as words:
            each = many(words=words)
        return read_all(data=dsl.Collected(each.output)).output

    assert run(p).value == ["a", "b", "c"]


def test_a_notebook_runs_with_its_parameters(run: Runner, tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason="notebooks need nbclient and ipykernel")
    pytest.importorskip("ipykernel")
    import json

    cells = [
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "n = 1", "outputs": [], "execution_count": None},
        {"cell_type": "code", "metadata": {}, "source": "result = n * 2\nopen(path, 'w').write(str(result))", "outputs": [], "execution_count": None},
    ]  # fmt: skip
    book = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "book.ipynb").write_text(json.dumps(book))

    @dsl.notebook_component(
        notebook_path=str(tmp_path / "book.ipynb"), base_image="python:3.11", install_kfp_package=False
    )
    def notebook(n: int, path: str) -> int:
        dsl.run_notebook(n=n, path=path)
        return int(open(path).read())

    ran = run(notebook, n=21, path=str(tmp_path / "result"))
    assert (ran.state, ran.value) == (SUCCEEDED, 42)
