"""Container components: on the host by the project's image map, refused where nothing can run them."""

import os
import subprocess
from pathlib import Path

import pytest
from kfp import dsl

from tests.engines.project import Project
from tidegate.engines.local import command
from tidegate.engines.local.host import Host, container_runtime
from tidegate.errors import ConfigError, DefinitionError
from tidegate.ir.placeholder import Text, parse
from tidegate.plan.model import Container

HOST = '[tool.tidegate.images]\n"alpine:*" = "host"\n"python*" = "env GREETING=hello"\n'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write("pyproject.toml", HOST)
    return made


@dsl.container_component
def write(text: str, count: int, out: dsl.OutputPath(str), data: dsl.Output[dsl.Dataset], extra: str = None):
    script = 'printf %s "$0" > "$1"; printf "%s " "$@" > "$2"; printf %s "$ENV" >> "$2"'
    return dsl.ContainerSpec(
        image="alpine:3.20",
        command=["sh", "-c", script, dsl.ConcatPlaceholder(["<", text, ">"])],
        args=[out, data.path, count, dsl.IfPresentPlaceholder("extra", then=["--extra", extra], else_=["plain"])],
    )


@dsl.container_component
def read(data: dsl.Input[dsl.Dataset], out: dsl.OutputPath(str)):
    code = "import os, sys; open(sys.argv[2], 'w').write(open(sys.argv[1]).read() + os.environ['GREETING'])"
    return dsl.ContainerSpec(image="python:3.11-slim", command=["python3", "-c", code], args=[data.path, out])


@dsl.pipeline(name="containers")
def containers(text: str) -> str:
    written = write(text=text, count=3).set_env_variable("ENV", "set")
    return read(data=written.outputs["data"]).outputs["out"]


@dsl.container_component
def fails():
    return dsl.ContainerSpec(image="alpine", command=["sh", "-c", "echo a reason >&2; exit 7"])


@dsl.container_component
def absent():
    return dsl.ContainerSpec(image="alpine", command=["no-such-program"])


@dsl.container_component
def entrypoint():
    return dsl.ContainerSpec(image="alpine", args=["--help"])


def words(project: Project, text: str) -> list[str]:
    outcome = project.run_traced(containers, text=text)
    assert outcome.state == "SUCCEEDED", outcome.error
    return outcome.parameters["Output"].split(" ")[2:]


def test_a_container_command_runs_on_the_host_with_its_placeholders_resolved(project: Project) -> None:
    assert words(project, "a 'quoted' $HOME `text`\n") == ["3", "plain", "sethello"]
    records = project.records(project.run_traced(containers, text="a 'quoted' $HOME `text`\n"))
    assert records["write"].outputs["parameters"] == {"out": "<a 'quoted' $HOME `text`\n>"}
    assert project.cached() == {"write": True, "read": True}


def test_another_image_or_word_before_the_command_is_another_result(project: Project) -> None:
    words(project, "x")
    project.write("pyproject.toml", HOST.replace("hello", "moin"))
    assert words(project, "x")[-1] == "setmoin"
    assert project.cached() == {"write": True, "read": False}


def test_a_command_that_fails_says_its_code_and_the_end_of_its_log(project: Project) -> None:
    error = project.run_traced(fails).error
    assert error
    assert (error["message"], error["tail"]) == ("the step exited with 7", ["a reason"])


def test_a_program_that_is_not_here_is_named(project: Project) -> None:
    error = project.run_traced(absent).error
    assert error
    assert error["tail"] == ["tidegate: cannot run 'no-such-program': No such file or directory"]


def test_without_anything_to_run_an_image_the_plan_is_refused_before_it_starts(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "container_runtime", lambda: "")
    project.write("pyproject.toml", "")
    with pytest.raises(DefinitionError) as refused:
        project.run_traced(containers, text="x")
    assert refused.value.code == "container-refused"
    assert "podman" in str(refused.value)
    assert any(f'"{image}" = "host"' in str(refused.value) for image in ("alpine:3.20", "python:3.11-slim"))
    assert not project.events


def test_on_the_host_the_entrypoint_of_an_image_is_not_known(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "container_runtime", lambda: "")
    with pytest.raises(DefinitionError, match="only the image knows its command"):
        project.run_traced(entrypoint)


@pytest.mark.parametrize("module", ["kfp.dsl", "kfp.components", "kfp.v2.components"])
def test_what_any_kfp_2_compiled_of_a_python_function_is_recognised(module: str) -> None:
    script = (
        f'program_path=$(mktemp -d)\nprintf "%s" "$0" > "$program_path/e.py"\npython3 -m {module}.executor_main "$@"\n'
    )
    pip = 'python3 -m pip install --quiet --no-warn-script-location \'kfp==2.0.1\' && "$0" "$@"'
    words = ["sh", "-c", pip, "sh", "-ec", script, "def f(): pass"]
    container = Container(Text(("python:3.7",)), tuple(map(parse, words)), (parse("--function_to_execute"), parse("f")))
    step = command.asked(container, Host(Path()), "python:3.7")
    assert isinstance(step, command.PythonStep)
    assert (step.function, step.packages.requirements) == ("f", ())


@pytest.mark.parametrize("said", ["images = 3", 'images."a*" = 3', 'images."a*" = ""'])
def test_an_image_map_of_another_shape_is_said(project: Project, said: str) -> None:
    project.write("pyproject.toml", f"[tool.tidegate]\n{said}\n")
    with pytest.raises(ConfigError):
        project.run_traced(containers, text="x")


@pytest.mark.skipif(not container_runtime(), reason="neither podman nor docker answers here")
def test_a_container_runs_in_its_image(project: Project, tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "bin").mkdir(parents=True)
    (image / "bin" / "sh").write_bytes(Path("/bin/busybox").read_bytes())
    (image / "bin" / "sh").chmod(0o755)
    packed = subprocess.run(["tar", "-C", str(image), "-c", "."], capture_output=True, check=True).stdout
    imported = [container_runtime(), "import", "-", "localhost/tidegate-test:1"]
    subprocess.run(imported, input=packed, check=True, capture_output=True)

    @dsl.container_component
    def inside(text: str, out: dsl.OutputPath(str)):
        script = 'test -e /etc/passwd && exit 9; echo -n "$0 $NAME" > "$1"'
        return dsl.ContainerSpec(image="localhost/tidegate-test:1", command=["/bin/sh", "-c", script, text, out])

    @dsl.pipeline(name="inside")
    def pipeline(text: str) -> str:
        return inside(text=text).set_env_variable("NAME", "tide").set_memory_limit("64Mi").outputs["out"]

    outcome = project.run_traced(pipeline, text="in an image")
    assert outcome.error is None
    assert outcome.parameters == {"Output": "in an image tide"}
    assert os.environ.get("NAME") is None
