"""dsl.ExitHandler and ignore_upstream_failure, by value."""

from pathlib import Path

import pytest
from kfp import dsl

from tests.language.kit import FAILED, SKIPPED, SUCCEEDED, Runner, add, component, fail, note, read, say, write


@component
def tell(file: str, status: dsl.PipelineTaskFinalStatus):
    import json

    said = [status.state, status.pipeline_task_name, status.error_message or "", status.pipeline_job_resource_name]
    with open(file, "w") as f:
        json.dump(said, f)


@component
def maybe(ok: bool, text: str = "done") -> str:
    assert ok, "was told to fail"
    return text


@component
def either(text: str = "nothing came") -> str:
    return text


@component
def flaky(ok: bool, out: dsl.Output[dsl.Dataset]):
    assert ok
    with open(out.path, "w") as f:
        f.write("made")


@component
def look(data: dsl.Input[dsl.Dataset] = None) -> str:
    return open(data.path).read() if data else "nothing came"


@pytest.mark.parametrize(("ok", "state"), [(True, SUCCEEDED), (False, FAILED)])
def test_the_exit_task_runs_last_however_the_body_ended(run: Runner, tmp_path: Path, ok: bool, state: str) -> None:
    @dsl.pipeline(name="p")
    def p(ok: bool, file: str):
        with dsl.ExitHandler(note(file=file, word="exit")):
            note(file=file, word="body").after(maybe(ok=ok))
            note(file=file, word="beside")

    ran = run(p, ok=ok, file=str(tmp_path / "order"))
    assert ran.state == state
    said = (tmp_path / "order").read_text().split()
    assert said[-1] == "exit"
    assert sorted(said[:-1]) == (["beside", "body"] if ok else ["beside"])


@pytest.mark.parametrize(("ok", "state"), [(True, SUCCEEDED), (False, FAILED)])
def test_the_exit_task_is_told_how_the_body_ended(run: Runner, tmp_path: Path, ok: bool, state: str) -> None:
    import json

    @dsl.pipeline(name="p")
    def p(ok: bool, file: str):
        with dsl.ExitHandler(tell(file=file)):
            maybe(ok=ok)

    ran = run(p, ok=ok, file=str(tmp_path / "said"))
    assert ran.state == state
    told, task, message, job = json.loads((tmp_path / "said").read_text())
    assert (told, task) == (state, "exit-handler-1")
    assert ("was told to fail" in message) is not ok
    assert job


def test_a_failing_exit_task_fails_the_run(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p():
        with dsl.ExitHandler(fail(text="at exit")):
            say(text="fine")

    ran = run(p)
    assert ran.state == FAILED
    assert ran.steps == {"exit-handler-1/say": SUCCEEDED, "fail": FAILED}
    assert "at exit" in ran.error["message"]


def test_a_failure_of_the_body_is_the_error_even_when_the_exit_task_fails_too(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p():
        with dsl.ExitHandler(fail(text="at exit")):
            fail(text="in the body")

    ran = run(p)
    assert ran.state == FAILED
    assert "in the body" in ran.error["message"]


def test_every_exit_handler_runs_its_own_exit_task(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(file: str):
        with dsl.ExitHandler(note(file=file, word="exit-one")):
            fail()
        with dsl.ExitHandler(note(file=file, word="exit-two")):
            note(file=file, word="body-two")

    ran = run(p, file=str(tmp_path / "order"))
    said = (tmp_path / "order").read_text().split()
    assert ran.state == FAILED
    assert sorted(said) == ["body-two", "exit-one", "exit-two"]
    assert said.index("body-two") < said.index("exit-two")


def test_a_nested_pipeline_can_be_the_exit_task(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="clean")
    def clean(file: str):
        first = say(text="cleaned")
        note(file=file, word=first.output)

    @dsl.pipeline(name="p")
    def p(file: str):
        with dsl.ExitHandler(clean(file=file)):
            fail()

    ran = run(p, file=str(tmp_path / "order"))
    assert (ran.state, ran.steps["clean/say"], ran.steps["clean/note"]) == (FAILED, SUCCEEDED, SUCCEEDED)
    assert (tmp_path / "order").read_text().split() == ["cleaned"]


def test_loops_conditions_and_artifacts_work_inside_an_exit_handler(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(file: str):
        with dsl.ExitHandler(note(file=file, word="exit")):
            made = write(text="go")
            got = read(data=made.outputs["out"])
            with dsl.If(got.output == "go"), dsl.ParallelFor(["a", "b"], parallelism=1) as x:
                note(file=file, word=x)

    assert run(p, file=str(tmp_path / "order")).state == SUCCEEDED
    assert (tmp_path / "order").read_text().split() == ["a", "b", "exit"]


def test_the_exit_task_runs_when_the_failure_is_deep_inside(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="deep")
    def deep(x: int):
        with dsl.If(x == 2):
            fail(text="deep")

    @dsl.pipeline(name="p")
    def p(file: str):
        with dsl.ExitHandler(tell(file=file)), dsl.ParallelFor([1, 2]) as x:
            deep(x=x)

    ran = run(p, file=str(tmp_path / "said"))
    assert ran.state == FAILED
    assert '"FAILED"' in (tmp_path / "said").read_text()


def test_an_exit_handler_inside_a_nested_pipeline_belongs_to_it(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="inner")
    def inner(file: str, ok: bool):
        with dsl.ExitHandler(note(file=file, word="exit")):
            maybe(ok=ok)

    @dsl.pipeline(name="p")
    def p(file: str, ok: bool):
        done = inner(file=file, ok=ok)
        note(file=file, word="after").after(done)

    ran = run(p, file=str(tmp_path / "good"), ok=True)
    assert ran.state == SUCCEEDED
    assert (tmp_path / "good").read_text().split() == ["exit", "after"]
    ran = run(p, file=str(tmp_path / "bad"), ok=False)
    assert (ran.state, ran.steps["note"]) == (FAILED, SKIPPED)
    assert (tmp_path / "bad").read_text().split() == ["exit"]


@pytest.mark.parametrize(("ok", "said"), [(True, "done"), (False, "nothing came")])
def test_a_task_that_ignores_failures_gets_the_value_or_its_default(run: Runner, ok: bool, said: str) -> None:
    @dsl.pipeline(name="p")
    def p(ok: bool) -> str:
        return either(text=maybe(ok=ok).output).ignore_upstream_failure().output

    ran = run(p, ok=ok)
    assert ran.values == {"Output": said}
    assert ran.state == (SUCCEEDED if ok else FAILED)


@pytest.mark.parametrize(("ok", "said"), [(True, "made"), (False, "nothing came")])
def test_a_task_that_ignores_failures_gets_the_artifact_or_none(run: Runner, ok: bool, said: str) -> None:
    @dsl.pipeline(name="p")
    def p(ok: bool) -> str:
        return look(data=flaky(ok=ok).outputs["out"]).ignore_upstream_failure().output

    assert run(p, ok=ok).values == {"Output": said}


def test_a_task_that_ignores_failures_runs_after_one_whose_outputs_it_does_not_use(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(file: str):
        bad = fail()
        note(file=file, word="ran").after(bad).ignore_upstream_failure()
        note(file=file, word="not").after(bad)

    ran = run(p, file=str(tmp_path / "order"))
    assert (ran.state, ran.steps) == (FAILED, {"fail": FAILED, "note": SUCCEEDED, "note-2": SKIPPED})
    assert (tmp_path / "order").read_text().split() == ["ran"]


def test_what_follows_a_task_that_ignored_a_failure_goes_on(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> str:
        rescued = either(text=fail().output).ignore_upstream_failure()
        return say(text=f"then {rescued.output}").output

    assert run(p).values == {"Output": "then nothing came"}


def test_a_task_that_ignores_failures_waits_for_all_of_its_upstreams(run: Runner, tmp_path: Path) -> None:
    @component
    def late(file: str) -> str:
        import time

        time.sleep(0.3)
        with open(file, "a") as f:
            f.write("late\n")
        return "late"

    @dsl.pipeline(name="p")
    def p(file: str):
        note(file=file, word="last").after(fail(), late(file=file)).ignore_upstream_failure()

    assert run(p, file=str(tmp_path / "order"), jobs=3).state == FAILED
    assert (tmp_path / "order").read_text().split() == ["late", "last"]


def test_independent_work_goes_on_after_a_failure_in_a_flat_pipeline_too(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p():
        fail()
        first = add(a=1, b=2)
        second = add(a=first.output, b=2)
        add(a=second.output, b=3)

    ran = run(p, jobs=1)
    assert ran.state == FAILED
    assert [s for n, s in ran.steps.items() if n.startswith("add")] == [SUCCEEDED] * 3
