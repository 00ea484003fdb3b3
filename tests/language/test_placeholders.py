"""f-strings, job and task placeholders, environment variables, task settings."""

import re

import pytest
from kfp import dsl

from tests.language.kit import SUCCEEDED, Runner, add, component, flag, outputs, real, say, upto
from tidegate.errors import UsageError

JOB = {
    "name": dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
    "resource": dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER,
    "id": dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    "task": dsl.PIPELINE_TASK_NAME_PLACEHOLDER,
    "task_id": dsl.PIPELINE_TASK_ID_PLACEHOLDER,
    "created": dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
    "scheduled": dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER,
    "root": dsl.PIPELINE_ROOT_PLACEHOLDER,
}


@component
def env(name: str) -> str:
    import os

    return os.environ.get(name, "not set")


@component
def shown(d: dict, xs: list) -> str:
    import json

    return json.dumps([d, xs], sort_keys=True)


@pytest.mark.parametrize("which", JOB)
def test_a_placeholder_of_the_run_gets_a_value(run: Runner, which: str) -> None:
    placeholder = JOB[which]

    @dsl.pipeline(name="the-job")
    def p() -> str:
        return say(text=placeholder).output

    value = run(p).value
    assert value
    assert "{{" not in value


def test_placeholders_of_one_run_agree_and_name_the_pipeline_and_the_task(run: Runner) -> None:
    out = outputs(name=str, again=str, id=str, task=str, created=str)

    @dsl.pipeline(name="the-job")
    def p() -> out:
        return out(
            name=say(text=JOB["name"]).output,
            again=say(text=JOB["name"]).output,
            id=say(text=JOB["id"]).output,
            task=say(text=JOB["task"]).set_display_name("Nice name").output,
            created=say(text=JOB["created"]).output,
        )

    ran = run(p)
    assert ran.values["name"] == ran.values["again"]
    assert ran.values["name"].startswith("the-job")
    assert ran.values["task"] == "say-4"
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", ran.values["created"])
    assert run(p).values["id"] != ran.values["id"]


def test_the_task_name_placeholder_is_that_of_each_task(run: Runner) -> None:
    out = outputs(a=str, b=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        return out(a=say(text=JOB["task"]).output, b=say(text=JOB["task"]).output)

    assert run(p).values == {"a": "say", "b": "say-2"}


def test_a_placeholder_in_the_middle_of_a_text(run: Runner) -> None:
    @dsl.pipeline(name="the-job")
    def p() -> str:
        return say(text=f"<{JOB['task']}> in <{JOB['name']}>").output

    assert re.fullmatch(r"<say> in <the-job[^<>{}]*>", run(p).value)


def test_an_f_string_joins_parameters_outputs_and_constants(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(who: str, n: int = 3) -> str:
        summed = add(a=n, b=1)
        return say(text=f"{who}: {n}+1={summed.output}, {who}! {{}} 100%").output

    assert run(p, who="Zoë 'Z'").value == "Zoë 'Z': 3+1=4, Zoë 'Z'! {} 100%"


@pytest.mark.parametrize(("value", "text"), [(2.5, "2.5"), (2.0, "2"), (1e-7, "1e-07"), (-3.25, "-3.25")], ids=str)
def test_a_float_in_an_f_string_reads_as_that_number(run: Runner, value: float, text: str) -> None:
    @dsl.pipeline(name="p")
    def p(x: float) -> str:
        return say(text=f"x={real(x=x).output}").output

    said = run(p, x=value).value
    assert said.startswith("x=")
    assert float(said[2:]) == value == float(text)


def test_lists_and_mappings_in_an_f_string_are_json(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(d: dict) -> str:
        return say(text=f"{upto(n=3).output} ; {d}").output

    import json

    xs, d = run(p, d={"k": [1, "é"]}).value.split(" ; ")
    assert (json.loads(xs), json.loads(d)) == ([0, 1, 2], {"k": [1, "é"]})


def test_a_boolean_in_an_f_string_is_json(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> str:
        return say(text=f"{flag(x=True).output}").output

    assert run(p).value.lower() == "true"


def test_a_value_that_looks_like_a_placeholder_is_only_text(run: Runner) -> None:
    out = outputs(plain=str, joined=str)
    tricky = "{{$.inputs.parameters['text']}} {{$.pipeline_job_name}} {{workflow.name}}"

    @dsl.pipeline(name="p")
    def p(x: str) -> out:
        return out(plain=say(text=x).output, joined=say(text=f"<{x}>").output)

    assert run(p, x=tricky).values == {"plain": tricky, "joined": f"<{tricky}>"}


def test_constants_with_parameters_and_outputs_inside_keep_their_types(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(n: int, s: str) -> str:
        made = add(a=n, b=1)
        return shown(
            d={"n": n, "deep": {"out": made.output, "s": s, "one": 1}}, xs=[n, made.output, "c", 1.5, s]
        ).output

    wanted = '[{"deep": {"one": 1, "out": 3, "s": "x"}, "n": 2}, [2, 3, "c", 1.5, "x"]]'
    assert run(p, n=2, s="x").value == wanted


def test_environment_variables_are_the_tasks_own(run: Runner) -> None:
    out = outputs(a=str, b=str, c=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        a = env(name="MODE").set_env_variable("MODE", "fast = 'yes' é").set_env_variable("OTHER", "1")
        return out(a=a.output, b=env(name="OTHER").set_env_variable("OTHER", "").output, c=env(name="MODE").output)

    assert run(p).values == {"a": "fast = 'yes' é", "b": "", "c": "not set"}


def test_settings_that_only_a_cluster_needs_change_nothing_here(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> int:
        task = add(a=1, b=2)
        task.set_cpu_limit("1").set_memory_limit("1Gi").set_cpu_request("100m").set_memory_request("64Mi")
        task.set_caching_options(False).set_display_name("Sum of two")
        return task.output

    ran = run(p)
    assert (ran.value, ran.steps) == (3, {"add": SUCCEEDED})


def test_the_image_and_the_resources_may_come_from_parameters_and_outputs(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(cpu: str = "1", image: str = "python:3.12") -> int:
        memory = say(text="64Mi")
        task = add(a=1, b=2).set_cpu_limit(cpu).set_memory_request(memory.output)
        return task.set_container_image(image).output

    assert run(p).value == 3


def test_after_orders_tasks_that_share_no_data(run: Runner, tmp_path) -> None:
    from tests.language.kit import note

    @dsl.pipeline(name="p")
    def p(file: str):
        third = note(file=file, word="3")
        second = note(file=file, word="2")
        first = note(file=file, word="1")
        third.after(second, first)
        second.after(first)

    assert run(p, jobs=3, file=str(tmp_path / "order")).state == SUCCEEDED
    assert (tmp_path / "order").read_text().split() == ["1", "2", "3"]


def item_in_a_condition() -> None:
    with dsl.If(add(a=1, b=1).output == 2), dsl.ParallelFor([1, 2]) as x:
        say(text=f"item {x}")


def items_of_two_loops() -> None:
    with dsl.ParallelFor(["a", "b"]) as x, dsl.ParallelFor(["1", "2"]) as y:
        say(text=f"{x}{y}")


def key_of_an_item() -> None:
    with dsl.ParallelFor([{"a": "1"}, {"a": "2"}]) as x:
        say(text=f"<{x.a}>")


@pytest.mark.parametrize("body", [item_in_a_condition, items_of_two_loops, key_of_an_item])
def test_an_f_string_that_kfp_compiles_to_undeclared_inputs_is_refused_before_anything_runs(run: Runner, body) -> None:
    """kfp 2.17 reads the loop item from the root, which has none; KFP fails such a run when its driver gets there."""

    @dsl.pipeline(name="p")
    def p():
        body()

    with pytest.raises(UsageError, match="loop-item"):
        run(p)
    assert not (run.folder / "store" / "runs").exists()


def in_the_items_of_a_loop(x) -> None:
    with dsl.ParallelFor([f"{x}-1", "2"]) as item:
        say(text=item)


def in_an_environment_variable(x) -> None:
    env(name="MODE").set_env_variable("MODE", f"<{x}>")


def in_an_address_to_import(x) -> None:
    dsl.importer(artifact_uri=f"https://example.invalid/{x}", artifact_class=dsl.Dataset)


@pytest.mark.parametrize("where", [in_the_items_of_a_loop, in_an_environment_variable, in_an_address_to_import])
def test_an_f_string_where_kfp_does_not_compile_them_never_runs_as_it_stands(run: Runner, where) -> None:
    @dsl.pipeline(name="p")
    def p(x: str):
        where(x)

    with pytest.raises(UsageError):
        run(p, x="given")


def test_an_f_string_with_an_outer_output_and_the_item(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p(words: list[str]) -> list:
        outer = say(text="outer")
        with dsl.ParallelFor(words) as word, dsl.If(word != "skip"):
            each = say(text=f"{outer.output} {word}")
        return dsl.Collected(each.output)

    assert run(p, words=["a", "skip", "b"]).value == ["outer a", "outer b"]


def test_an_f_string_is_an_argument_of_a_nested_pipeline(run: Runner) -> None:
    @dsl.pipeline(name="inner")
    def inner(text: str, other: str = "x") -> str:
        return say(text=f"({text}|{other})").output

    @dsl.pipeline(name="p")
    def p(x: str) -> str:
        return inner(text=f"{x}-{say(text='said').output}").output

    assert run(p, x="given").value == "(given-said|x)"


def test_the_workspace_is_one_folder_for_the_whole_run(run: Runner) -> None:
    @component
    def put(folder: str, text: str) -> str:
        import os

        with open(os.path.join(folder, "shared.txt"), "w") as f:
            f.write(text)
        return folder

    @component
    def get(folder: str) -> str:
        import os

        return open(os.path.join(folder, "shared.txt")).read()

    config = dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi", kubernetes=dsl.KubernetesWorkspaceConfig()))
    out = outputs(folder=str, text=str)

    @dsl.pipeline(name="p", pipeline_config=config)
    def p() -> out:
        done = put(folder=dsl.WORKSPACE_PATH_PLACEHOLDER, text="left here")
        return out(folder=done.output, text=get(folder=dsl.WORKSPACE_PATH_PLACEHOLDER).after(done).output)

    ran = run(p)
    assert ran.state == SUCCEEDED, ran.error
    assert ran.values["text"] == "left here"
    assert "{{" not in ran.values["folder"]
