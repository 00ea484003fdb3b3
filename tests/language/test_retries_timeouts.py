"""set_retry and time limits."""

import time
from pathlib import Path

import pytest
from kfp import dsl
from kfp.compiler import Compiler

from tests.language.kit import FAILED, SKIPPED, SUCCEEDED, Runner, add, component, note, say


@component
def after_tries(file: str, needed: int) -> int:
    """Count the calls in a file, and fail until there were enough."""
    import os

    with open(file, "a") as f:
        f.write("x")
    tries = os.path.getsize(file)
    assert tries >= needed, f"only try {tries}"
    return tries


@component
def times(file: str):
    import time

    with open(file, "a") as f:
        f.write(f"{time.time()}\n")
    raise ValueError("again")


@component
def sleep(seconds: float) -> str:
    import time

    time.sleep(seconds)
    return "slept"


@pytest.mark.parametrize(
    ("retries", "needed", "state"), [(2, 3, SUCCEEDED), (2, 4, FAILED), (0, 2, FAILED), (3, 1, SUCCEEDED)]
)
def test_a_task_is_tried_as_often_as_it_says_and_no_more(
    run: Runner, tmp_path: Path, retries: int, needed: int, state: str
) -> None:
    @dsl.pipeline(name="p")
    def p(file: str, needed: int) -> int:
        return after_tries(file=file, needed=needed).set_retry(num_retries=retries).output

    ran = run(p, file=str(tmp_path / "tries"), needed=needed)
    assert ran.state == state
    assert (tmp_path / "tries").stat().st_size == min(retries + 1, needed)


def test_the_pauses_between_tries_grow_by_the_factor(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(file: str):
        times(file=file).set_retry(num_retries=2, backoff_duration="1s", backoff_factor=2.0)

    assert run(p, file=str(tmp_path / "times")).state == FAILED
    first, second, third = map(float, (tmp_path / "times").read_text().split())
    assert second - first >= 1
    assert third - second >= 2


def test_a_pause_is_never_longer_than_the_longest_allowed(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(file: str):
        task = times(file=file)
        task.set_retry(num_retries=1, backoff_duration="60s", backoff_factor=2.0, backoff_max_duration="1s")

    started = time.monotonic()
    assert run(p, file=str(tmp_path / "times")).state == FAILED
    assert time.monotonic() - started < 30
    assert len((tmp_path / "times").read_text().split()) == 2


def test_a_nested_pipeline_is_tried_again_as_a_whole(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="inner")
    def inner(file: str, needed: int, log: str) -> int:
        note(file=log, word="first")
        return after_tries(file=file, needed=needed).output

    @dsl.pipeline(name="p")
    def p(file: str, log: str) -> int:
        return inner(file=file, needed=2, log=log).set_retry(num_retries=3).output

    ran = run(p, file=str(tmp_path / "tries"), log=str(tmp_path / "log"))
    assert ran.value == 2
    assert (tmp_path / "tries").stat().st_size == 2
    assert (tmp_path / "log").read_text().split() == ["first", "first"]


def test_retries_inside_a_loop_are_counted_per_iteration(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(files: list[str]) -> list:
        with dsl.ParallelFor(files) as file:
            each = after_tries(file=file, needed=2).set_retry(num_retries=1)
        return dsl.Collected(each.output)

    assert run(p, files=[str(tmp_path / n) for n in "abc"]).value == [2, 2, 2]


def test_a_try_that_failed_leaves_nothing_to_the_next(run: Runner, tmp_path: Path) -> None:
    @component
    def untidy(file: str, out: dsl.Output[dsl.Dataset]) -> bool:
        import os

        again = os.path.exists(file)
        found = os.path.exists(out.path)
        open(file, "w").close()
        with open(out.path, "w") as f:
            f.write("left")
        assert again
        return found

    @dsl.pipeline(name="p")
    def p(file: str) -> bool:
        return untidy(file=file).set_retry(num_retries=1).outputs["Output"]

    assert run(p, file=str(tmp_path / "seen")).value is False


def test_an_exit_task_runs_once_after_the_last_try(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(file: str, log: str):
        with dsl.ExitHandler(note(file=log, word="exit")):
            after_tries(file=file, needed=9).set_retry(num_retries=1)

    assert run(p, file=str(tmp_path / "tries"), log=str(tmp_path / "log")).state == FAILED
    assert (tmp_path / "log").read_text().split() == ["exit"]
    assert (tmp_path / "tries").stat().st_size == 2


def limited(pipeline, seconds: int) -> str:
    """The pipeline's IR with a time limit on the executor of ``sleep``, as kfp-kubernetes' set_timeout writes it."""
    path = Path(pipeline.name)
    Compiler().compile(pipeline, f"{path}.yaml")
    text = Path(f"{path}.yaml").read_text()
    config = f"exec-sleep:\n            activeDeadlineSeconds: '{seconds}'\n"
    return f"{text}\n---\nplatforms:\n  kubernetes:\n    deploymentSpec:\n      executors:\n          {config}"


@pytest.mark.parametrize(("seconds", "state"), [(60, SUCCEEDED), (1, FAILED)])
def test_a_task_that_takes_longer_than_its_time_limit_fails_in_time(
    run: Runner, monkeypatch, tmp_path: Path, seconds: int, state: str
) -> None:
    monkeypatch.chdir(tmp_path)

    @dsl.pipeline(name="p")
    def p(seconds: float):
        say(text=sleep(seconds=seconds).output)

    started = time.monotonic()
    ran = run(limited(p, seconds), seconds=20.0 if state == FAILED else 0.0)
    assert ran.steps == {"sleep": state, "say": SUCCEEDED if state == SUCCEEDED else SKIPPED}
    assert time.monotonic() - started < 15


def test_a_nested_pipeline_that_is_tried_again_reads_nothing_of_its_first_try(run: Runner, tmp_path: Path) -> None:
    @component
    def count(file: str) -> int:
        with open(file, "a+") as f:
            f.write("x")
            return f.tell()

    @component
    def at_least(n: int, least: int) -> int:
        if n < least:
            raise ValueError("too early")
        return n

    @dsl.pipeline(name="inner")
    def inner(file: str) -> int:
        n = count(file=file).output
        with dsl.If(n == 1):
            first = add(a=100, b=0)
        with dsl.Else():
            second = add(a=200, b=0)
        chosen = add(a=dsl.OneOf(first.output, second.output), b=1)
        return add(a=chosen.output, b=at_least(n=n, least=2).output).output

    @dsl.pipeline(name="p")
    def p(file: str) -> int:
        return add(a=inner(file=file).set_retry(1).output, b=0).output

    assert run(p, file=str(tmp_path / "count")).value == 203
