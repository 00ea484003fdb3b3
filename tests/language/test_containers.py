"""Container components: commands with placeholders, run on this machine."""

import importlib
import json
from pathlib import Path
from typing import Optional

import pytest
from kfp import dsl

from tests.language.kit import FAILED, SKIPPED, SUCCEEDED, Runner, add, joined, outputs, read, say, write
from tidegate.errors import DefinitionError

pytestmark = pytest.mark.usefixtures("on_host")

PRINT_ALL = 'out="$1"; shift; mkdir -p "$(dirname "$out")"; printf "<%s>" "$@" > "$out"'


def words(*args) -> dsl.ContainerSpec:
    """A container that writes each of its words in angle brackets to the path that comes first."""
    return dsl.ContainerSpec(image="alpine:3.20", command=["sh", "-c", PRINT_ALL, "sh"], args=list(args))


def shell(script: str, *args) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image="alpine:3.20", command=["sh", "-ec", script, "sh"], args=list(args))


@dsl.container_component
def greet(name: str, out: dsl.OutputPath(str)):
    return shell('mkdir -p "$(dirname "$2")"; printf "hello %s" "$1" > "$2"', name, out)


@dsl.container_component
def put(text: str, data: dsl.Output[dsl.Dataset]):
    return shell('mkdir -p "$(dirname "$2")"; printf %s "$1" > "$2"', text, data.path)


@dsl.container_component
def count(data: dsl.Input[dsl.Dataset], n: dsl.OutputPath(int)):
    return shell('wc -c < "$1" > "$2"', data.path, n)


@dsl.container_component
def number(text: str, n: dsl.OutputPath(int)):
    return shell('echo "$1" > "$2"', text, n)


@dsl.container_component
def typed(
    i: dsl.OutputPath(int), f: dsl.OutputPath(float), d: dsl.OutputPath(dict), xs: dsl.OutputPath(list), s: dsl.OutputPath(str)
):  # fmt: skip
    script = 'echo 7 > "$1"; echo 0.5 > "$2"; echo \'{"k": [1]}\' > "$3"; echo "[1, 2.5]" > "$4"; echo s > "$5"'
    return shell(script, i, f, d, xs, s)


@dsl.container_component
def yes_no(text: str, out: dsl.OutputPath(bool)):
    return shell('printf %s "$1" > "$2"', text, out)


def test_a_command_without_inputs_or_outputs_runs_and_its_log_is_kept(run: Runner) -> None:
    @dsl.container_component
    def hello():
        return dsl.ContainerSpec(image="alpine", command=["echo", "hello", "container"], args=["and args"])

    ran = run(hello)
    assert (ran.state, ran.log("hello")) == (SUCCEEDED, "hello container and args\n")


def test_parameters_go_in_and_a_parameter_comes_out(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(name: str) -> str:
        return greet(name=greet(name=name).output).output

    assert run(p, name='it\'s "me" $HOME').value == 'hello hello it\'s "me" $HOME'


def test_artifacts_go_between_commands_and_python(run: Runner) -> None:
    out = outputs(data=dsl.Dataset, n=int, said=str, m=int)

    @dsl.pipeline(name="p")
    def p() -> out:
        data = put(text="12345").output
        back = count(data=write(text="123").outputs["out"])
        return out(data=data, n=count(data=data).output, said=read(data=data).output, m=add(a=back.output, b=1).output)

    ran = run(p)
    assert ran.text("data") == "12345"
    assert ran.values == {"n": 5, "said": "12345", "m": 4}


def test_outputs_of_every_type_may_end_in_a_newline_as_echo_writes_them(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> (out := outputs(i=int, f=float, d=dict, xs=list, s=str)):
        done = typed()
        return out(**{name: done.outputs[name] for name in out._fields})

    wanted = {"i": 7, "f": 0.5, "d": {"k": [1]}, "xs": [1, 2.5], "s": "s\n"}
    ran = run(p)
    assert ran.state == SUCCEEDED, ran.error
    assert ran.values == wanted


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("true\n", True),
        (" FALSE \n", False),
        ("1", True),
        ("0", False),
        ("t", True),
        ("F", False),
    ],
)
def test_a_boolean_is_read_as_kfps_launcher_reads_it(run: Runner, text: str, value: bool) -> None:
    ran = run(yes_no, text=text)
    assert ran.values == {"out": value}, ran.error


def test_arguments_of_every_type_stand_in_the_command_as_text_or_json(run: Runner) -> None:
    @dsl.container_component
    def every(i: int, f: float, s: str, b: bool, d: dict, xs: list, out: dsl.OutputPath(str)):
        return words(out, i, f, s, b, d, xs)

    @dsl.pipeline(name="p")
    def p(xs: list) -> str:
        return every(i=3, f=0.5, s="a b", b=True, d={"k": 1}, xs=xs).output

    i, f, s, b, d, xs = run(p, xs=[1, "é"]).value.strip("<>").split("><")
    assert (i, f, s, b.lower()) == ("3", "0.5", "a b", "true")
    assert (d.replace(" ", ""), xs.replace(" ", "").replace("\\u00e9", "é")) == ('{"k":1}', '[1,"é"]')


@pytest.mark.parametrize(("name", "said"), [(None, "<>"), ("Eve", "<--name><Eve><--greeting=hi-Eve>")])
def test_if_present_adds_words_only_for_an_input_that_was_given(run: Runner, name: str | None, said: str) -> None:
    @dsl.container_component
    def maybe(out: dsl.OutputPath(str), name: Optional[str] = None):
        return words(
            out,
            dsl.IfPresentPlaceholder(input_name="name", then=["--name", name]),
            dsl.IfPresentPlaceholder(
                input_name="name", then=[dsl.ConcatPlaceholder(["--greeting=", "hi-", name])], else_=[]
            ),
        )

    @dsl.pipeline(name="p")
    def p(name: Optional[str] = None) -> str:
        return maybe(name=name).output

    assert run(p, name=name).value == said


@pytest.mark.parametrize(("n", "said"), [(None, "<--n><none>"), (0, "<--n=0>")])
def test_if_present_takes_its_else_branch_and_zero_is_present(run: Runner, n: int | None, said: str) -> None:
    @dsl.container_component
    def maybe(out: dsl.OutputPath(str), n: Optional[int] = None):
        then = [dsl.ConcatPlaceholder(["--n=", n])]
        return words(out, dsl.IfPresentPlaceholder(input_name="n", then=then, else_=["--n", "none"]))

    @dsl.pipeline(name="p")
    def p(n: Optional[int] = None) -> str:
        return maybe(n=n).output

    assert run(p, n=n).value == said


def test_a_default_counts_as_present(run: Runner) -> None:
    @dsl.container_component
    def maybe(out: dsl.OutputPath(str), n: str = "own"):
        return words(out, dsl.IfPresentPlaceholder(input_name="n", then=["--n", n], else_="none"))

    @dsl.pipeline(name="p")
    def p() -> str:
        return maybe().output

    assert run(p).value == "<--n><own>"


def test_concat_joins_nested_pieces_into_one_word(run: Runner) -> None:
    @dsl.container_component
    def join(a: str, n: int, out: dsl.OutputPath(str), c: Optional[str] = None):
        inner = dsl.ConcatPlaceholder([a, ":", n])
        tail = dsl.IfPresentPlaceholder(input_name="c", then=dsl.ConcatPlaceholder(["+", c]), else_="-")
        return words(out, dsl.ConcatPlaceholder(["--x=", inner, tail]), "last")

    @dsl.pipeline(name="p")
    def p() -> (out := outputs(some=str, none=str)):
        return out(some=join(a="a 'b'", n=2, c="c").output, none=join(a="", n=-1).output)

    assert run(p).values == {"some": "<--x=a 'b':2+c><last>", "none": "<--x=:-1-><last>"}


def test_placeholders_inside_f_strings_of_the_command(run: Runner) -> None:
    @dsl.container_component
    def flags(name: str, data: dsl.Input[dsl.Dataset], out: dsl.OutputPath(str)):
        return shell(f'printf "%s " {name} > {out}; cat {data.path} >> {out}', f"--name={name}")

    @dsl.pipeline(name="p")
    def p() -> str:
        return flags(name="plain", data=write(text="inside").outputs["out"]).output

    assert run(p).value == "plain inside"


def test_uri_and_metadata_of_artifacts_stand_in_the_command(run: Runner) -> None:
    @dsl.container_component
    def show(data: dsl.Input[dsl.Dataset], out: dsl.OutputPath(str)):
        return words(out, data.uri, data.metadata["rows"], data.metadata["label"])

    @dsl.pipeline(name="p")
    def p(address: str) -> str:
        found = dsl.importer(artifact_uri=address, artifact_class=dsl.Dataset, metadata={"rows": 3, "label": "a b"})
        return show(data=found.output).output

    (run.folder / "data.csv").write_text("x")
    uri, rows, label = run(p, address=str(run.folder / "data.csv")).value.strip("<>").split("><")
    assert uri
    assert (rows, label) == ("3", "a b")


def test_a_folder_made_by_a_command_is_an_artifact(run: Runner) -> None:
    @dsl.container_component
    def make(model: dsl.Output[dsl.Model]):
        return shell('mkdir -p "$1/sub"; echo 1 > "$1/sub/one"; echo 2 > "$1/two"', model.path)

    @dsl.container_component
    def tree(model: dsl.Input[dsl.Model], out: dsl.OutputPath(str)):
        return shell('cd "$1" && find . -type f | sort | tr "\\n" " " > "$2"', model.path, out)

    @dsl.pipeline(name="p")
    def p() -> str:
        return tree(model=make().output).output

    assert run(p).value == "./sub/one ./two "


def test_the_whole_executor_input_can_be_an_argument(run: Runner) -> None:
    @dsl.container_component
    def whole(x: int, xs: list, out: dsl.OutputPath(str)):
        return shell('printf %s "$1" > "$2"', dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER, out)

    @dsl.pipeline(name="p")
    def p() -> str:
        return whole(x=3, xs=[1, 2.5]).output

    seen = json.loads(run(p).value)
    assert seen["inputs"]["parameterValues"] == {"x": 3, "xs": [1, 2.5]}
    assert "out" in seen["outputs"]["parameters"]


def test_job_and_task_placeholders_stand_in_the_command(run: Runner) -> None:
    @dsl.container_component
    def who(out: dsl.OutputPath(str)):
        return words(out, dsl.PIPELINE_TASK_NAME_PLACEHOLDER, dsl.PIPELINE_JOB_NAME_PLACEHOLDER)

    @dsl.pipeline(name="the-job")
    def p() -> str:
        return who().output

    task, job = run(p).value.strip("<>").split("><")
    assert task == "who"
    assert job.startswith("the-job")


def test_environment_variables_reach_the_command(run: Runner) -> None:
    @dsl.container_component
    def show(out: dsl.OutputPath(str)):
        return shell('printf %s "$MODE" > "$1"', out)

    @dsl.pipeline(name="p")
    def p() -> str:
        return show().set_env_variable("MODE", "a b 'c'").output

    assert run(p).value == "a b 'c'"


def test_a_command_that_fails_fails_the_run_with_its_code_and_last_words(run: Runner) -> None:
    @dsl.container_component
    def broken():
        return shell("echo last words >&2; exit 3")

    @dsl.pipeline(name="p")
    def p():
        say(text="after").after(broken())

    ran = run(p)
    assert (ran.state, ran.steps) == (FAILED, {"broken": FAILED, "say": SKIPPED})
    assert "3" in ran.error["message"]
    assert "last words" in ran.log("broken")


def test_a_command_that_does_not_write_its_output_fails(run: Runner) -> None:
    @dsl.container_component
    def forgetful(out: dsl.OutputPath(str)):
        return shell("true", out)

    ran = run(forgetful)
    assert ran.state == FAILED
    assert "out" in ran.error["message"]


def test_a_program_that_is_not_here_fails_the_step_and_is_named(run: Runner) -> None:
    @dsl.container_component
    def nowhere():
        return dsl.ContainerSpec(image="alpine", command=["no-such-program-here"])

    ran = run(nowhere)
    assert ran.state == FAILED
    assert "no-such-program-here" in str(ran.error) + ran.log("nowhere")


def test_commands_in_loops_conditions_retries_and_exit_handlers(run: Runner, tmp_path: Path) -> None:
    @dsl.container_component
    def tick(file: str, need: int):
        return shell('echo x >> "$1"; test "$(wc -l < "$1")" -ge "$2"', file, need)

    @dsl.container_component
    def bye(file: str):
        return shell('echo bye > "$1"', file)

    @dsl.pipeline(name="p")
    def p(folder: str):
        with dsl.ExitHandler(bye(file=f"{folder}/bye")):
            tick(file=f"{folder}/ticks", need=3).set_retry(num_retries=2)
            with dsl.ParallelFor(["1", "22"]) as text:
                n = number(text=text)
                with dsl.If(n.output > 1):
                    greet(name=text)

    ran = run(p, folder=str(tmp_path))
    assert ran.state == SUCCEEDED
    assert (tmp_path / "bye").read_text() == "bye\n"
    assert (tmp_path / "ticks").read_text().split() == ["x"] * 3
    assert sorted(ran.of("greet").values()) == [SKIPPED, SUCCEEDED]


def test_outputs_of_commands_are_collected(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> str:
        with dsl.ParallelFor(["a", "b"]) as name:
            each = greet(name=name)
        return joined(words=dsl.Collected(each.output)).output

    assert run(p).value == "hello a,hello b"


def test_python_in_the_command_is_run_as_it_is(run: Runner) -> None:
    @dsl.container_component
    def python(a: int, b: int, out: dsl.OutputPath(int)):
        code = "import sys; open(sys.argv[3], 'w').write(str(int(sys.argv[1]) * int(sys.argv[2])))"
        return dsl.ContainerSpec(image="python:3.11", command=["python3", "-c", code], args=[a, b, out])

    @dsl.pipeline(name="p")
    def p() -> int:
        return python(a=6, b=7).output

    assert run(p).value == 42


def test_a_container_component_alone_is_a_pipeline(run: Runner) -> None:
    assert run(greet, name="you").value == "hello you"


def test_the_same_command_again_comes_from_the_cache(run: Runner, tmp_path: Path) -> None:
    @dsl.container_component
    def tick(file: str, out: dsl.OutputPath(str)):
        return shell('echo x >> "$1"; printf done > "$2"', file, out)

    for _ in range(2):
        assert run(tick, cache=True, file=str(tmp_path / "ticks")).value == "done"
    assert (tmp_path / "ticks").read_text() == "x\n"


def test_without_a_map_and_without_containers_the_run_is_refused_before_it_starts(
    run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TIDEGATE_IMAGES")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DefinitionError, match="alpine"):
        run(greet, name="x")


def test_the_image_map_of_the_project_is_read_from_beside_the_pipeline(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEGATE_IMAGES")
    (run.folder / "pyproject.toml").write_text('[tool.tidegate.images]\n"alpine:*" = "host"\n')
    assert run(greet, name="map").value == "hello map"


def test_a_containerised_python_component_runs_in_the_folder_that_stands_for_its_image(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``target_image`` compiles to: kfp's executor, which finds the function through the image's kfp_config.ini."""
    image = run.folder / "image"
    image.mkdir()
    (image / "kfp_job.py").write_text(
        "from kfp import dsl\n\n\n@dsl.component(base_image='python:3.11', target_image='me/job:1')\n"
        "def double(x: int) -> int:\n    return 2 * x\n"
    )
    (image / "kfp_config.ini").write_text("[Components]\ndouble = kfp_job.py\n")
    monkeypatch.syspath_prepend(str(image))
    monkeypatch.setenv("TIDEGATE_IMAGES", json.dumps({"me/job:*": f"env --chdir={image}"}))
    double = importlib.import_module("kfp_job").double

    @dsl.pipeline(name="p")
    def p() -> int:
        return double(x=double(x=4).output).output

    assert run(p).value == 16


def test_a_parameter_keeps_every_kind_of_line_end(run: Runner) -> None:
    @dsl.container_component
    def ends(out: dsl.OutputPath(str)):
        return shell(r'mkdir -p "$(dirname "$1")"; printf "a\rb\r\nc\n" > "$1"', out)

    assert run(ends).value == "a\rb\r\nc\n"
