"""--resume: finished stays finished, the rest runs; refused when it is not the same run any more."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

import tidegate
from tidegate import Options
from tidegate.errors import Conflict, DefinitionError, NotFound, ParameterError
from tidegate.store.local import LocalStore
from tidegate.store.runs import Runs

PIPELINE = """
import tidegate
from kfp import dsl
from pkg.helper import factor

@tidegate.component
def first(n: int, log: str, data: dsl.Output[dsl.Dataset]) -> int:
    open(log, "a").write("first ")
    open(data.path, "w").write(str(n))
    return n

@tidegate.component
def second(data: dsl.Input[dsl.Dataset], log: str, marker: str) -> int:
    import os, time
    open(log, "a").write("second ")
    while marker.endswith(".hold") and not os.path.exists(marker):
        time.sleep(0.02)
    if not os.path.exists(marker):
        raise ValueError("no marker yet")
    return factor() * int(open(data.path).read())

@tidegate.component
def third(x: int, log: str) -> int:
    open(log, "a").write("third ")
    return x + 1

@dsl.pipeline(name="resumed")
def resumed(log: str, marker: str, n: int = 2) -> int:
    a = first(n=n, log=log)
    b = second(data=a.outputs["data"], log=log, marker=marker).set_caching_options(False)
    return third(x=b.output, log=log).output
"""

MOMENT = """
import tidegate
from kfp import dsl

@tidegate.component
def when(at: str, log: str) -> str:
    open(log, "a").write("when ")
    return at

@tidegate.component
def later(at: str, then: str, marker: str) -> str:
    import os
    if not os.path.exists(marker):
        raise ValueError("no marker yet")
    return f"{at} {then}"

@dsl.pipeline(name="resumed")
def resumed(log: str, marker: str) -> str:
    created = dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER
    return later(at=created, then=when(at=created, log=log).output, marker=marker).output
"""


class Work:
    def __init__(self, root: Path) -> None:
        self.root, self.file = root, root / "resumed.py"
        (root / "pyproject.toml").touch()
        (root / "pkg").mkdir()
        self.helper("2")
        self.file.write_text(PIPELINE)
        self.log, self.marker = root / "log", root / "marker"
        self.store = LocalStore(root / ".tidegate")

    def helper(self, value: str) -> None:
        (self.root / "pkg/helper.py").write_text(f"def factor():\n    return {value}\n")

    def parameters(self) -> dict[str, Any]:
        return {"log": str(self.log), "marker": str(self.marker)}

    def run(self, **options: Any) -> Any:
        for name in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(self.root))]:
            del sys.modules[name]
        sys.path[:] = [p for p in sys.path if "pytest-" not in p]
        given = {} if "resume" in options else self.parameters()
        return tidegate.run(str(self.file), options.pop("parameters", given), Options(mirror=False, **options))

    def steps(self, run: Any) -> dict[str, tuple[str, bool]]:
        return {s.step: (s.state, s.cached) for s in run.outcome.steps}


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def test_finished_steps_stay_finished_and_the_rest_runs(work: Work) -> None:
    failed = work.run(cache=False)
    assert failed.state == "FAILED"
    work.marker.touch()
    again = work.run(resume=failed.id, cache=False)
    assert (again.id, again.state, again.outputs) == (failed.id, "SUCCEEDED", {"Output": 5})
    assert work.log.read_text().split() == ["first", "second", "second", "third"]
    assert work.steps(again) == {
        "first": ("SUCCEEDED", True),
        "second": ("SUCCEEDED", False),
        "third": ("SUCCEEDED", False),
    }
    outcome = Runs(work.store).outcome(failed.id)
    assert outcome
    assert outcome.state == "SUCCEEDED"


def test_a_run_that_is_gone_on_with_was_created_when_it_began(work: Work) -> None:
    work.file.write_text(MOMENT)
    failed = work.run(cache=False)
    time.sleep(1.1)  # the moment is given in seconds
    work.marker.touch()
    again = work.run(resume=failed.id, cache=False)
    created = Runs(work.store).read(failed.id).created
    assert again.outputs == {"Output": f"{created} {created}"}
    assert work.log.read_text().split() == ["when"], "and what it was given is the same, so it stays finished"


def test_a_finished_run_resumed_runs_nothing(work: Work) -> None:
    work.marker.touch()
    run = work.run()
    assert work.run(resume="last").outputs == run.outputs
    assert len(work.log.read_text().split()) == 3


def test_a_killed_run_goes_on_to_the_outputs_of_an_undisturbed_one(work: Work) -> None:
    marker = work.root / "it.hold"
    command = [sys.executable, "-m", "tidegate", "run", "resumed.py", "--no-mirror", "--no-cache"]
    words = ["-p", f"log={work.log}", "-p", f"marker={marker}"]
    process = subprocess.Popen([*command, *words], cwd=work.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not work.log.exists() or "second" not in work.log.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    run_id = Runs(work.store).last()
    with pytest.raises(Conflict, match="still going"):
        work.run(resume=run_id)
    removal = cli(work, "runs", "rm", run_id)
    assert (removal.returncode, "run-going" in removal.stderr) == (3, True), "a run that is going is not forgotten"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Runs(work.store).outcome(run_id) is None
    marker.touch()
    again = work.run(resume=run_id, cache=False)
    assert (again.state, again.outputs) == ("SUCCEEDED", {"Output": 5})
    assert work.log.read_text().split() == ["first", "second", "second", "third"]


def test_what_a_killed_run_left_in_the_scratch_folder_is_swept_by_the_next(work: Work) -> None:
    work.run()
    left = Path(tempfile.mkdtemp(prefix="tidegate-run-20200101-000000-abcdef-"))
    (left / ".lock").touch()
    (left / "1").mkdir()
    work.marker.touch()
    work.run()
    assert not left.exists()


def test_a_changed_definition_is_refused_and_what_changed_is_said(work: Work) -> None:
    failed = work.run()
    work.helper("3")
    with pytest.raises(DefinitionError) as refused:
        work.run(resume=failed.id)
    assert refused.value.code == "resume-changed"
    assert "code of second" in refused.value.found
    work.helper("2")
    work.file.write_text(PIPELINE.replace("return x + 1", "return x + 2"))
    with pytest.raises(DefinitionError, match="code of first; code of second; code of third"):
        work.run(resume=failed.id)
    work.file.write_text(PIPELINE.replace("n: int = 2) -> int:\n    a =", "n: int = 30) -> int:\n    a ="))
    with pytest.raises(DefinitionError, match="of the pipeline"):
        work.run(resume=failed.id)


def test_other_parameters_are_refused(work: Work) -> None:
    failed = work.run()
    with pytest.raises(ParameterError, match="did not begin with this n"):
        work.run(resume=failed.id, parameters={"n": 7})
    work.marker.touch()
    assert work.run(resume=failed.id, parameters=work.parameters()).state == "SUCCEEDED"


def test_no_such_run_is_said(work: Work) -> None:
    for name in ("20200101-000000-aaaaaa", "../x", "last"):
        with pytest.raises(NotFound):
            work.run(resume=name)


def test_a_damaged_output_of_a_finished_step_is_made_again(work: Work) -> None:
    failed = work.run(cache=False)
    blob = next(p for p in (work.root / ".tidegate/blobs").rglob("*") if p.is_file() and p.read_bytes() == b"2")
    blob.chmod(0o644)
    blob.write_bytes(b"7")
    work.marker.touch()
    again = work.run(resume=failed.id, cache=False)
    assert again.outputs == {"Output": 5}
    assert work.steps(again)["first"] == ("SUCCEEDED", False)


CHANGING = """
import tidegate
from kfp import dsl

@tidegate.component
def counts(log: str, data: dsl.Output[dsl.Dataset]):
    open(log, "a").write("x")
    open(data.path, "w").write(open(log).read())

@tidegate.component
def measures(data: dsl.Input[dsl.Dataset]) -> int:
    return len(open(data.path).read())

@tidegate.component
def fails_without(marker: str, x: int) -> int:
    assert __import__("os").path.exists(marker)
    return x

@dsl.pipeline(name="changing")
def changing(log: str, marker: str) -> int:
    measured = measures(data=counts(log=log).outputs["data"])
    return fails_without(marker=marker, x=measured.output).output
"""


def test_a_finished_step_runs_again_when_what_it_reads_came_out_different(work: Work) -> None:
    work.file.write_text(CHANGING)
    failed = work.run(cache=False)
    assert work.steps(failed)["measures"] == ("SUCCEEDED", False)
    blob = next(p for p in (work.root / ".tidegate/blobs").rglob("*") if p.is_file() and p.read_bytes() == b"x")
    blob.unlink()
    work.marker.touch()
    again = work.run(resume=failed.id, cache=False)
    assert again.outputs == {"Output": 2}, "the value of now, not the one of before"
    assert work.steps(again)["measures"] == ("SUCCEEDED", False)


def cli(work: Work, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tidegate", *words]
    return subprocess.run(command, cwd=work.root, capture_output=True, text=True, check=False)


def test_a_failed_run_names_the_command_that_goes_on_and_it_does(work: Work) -> None:
    first = cli(work, "run", "resumed.py", "--no-mirror", "-p", f"log={work.log}", "-p", f"marker={work.marker}")
    hint = first.stderr.strip().splitlines()[-1]
    assert "--resume" in hint
    work.marker.touch()
    words = hint.partition("tidegate ")[2].split()
    again = cli(work, *words, "--json")
    assert json.loads(again.stdout)["outputs"] == {"Output": 5}


def test_the_last_line_tells_what_finished_before_apart_from_what_ran_and_what_the_cache_had(work: Work) -> None:
    given = ["run", "resumed.py", "--no-mirror", "-p", f"log={work.log}", "-p", f"marker={work.marker}"]
    assert "1 step ran, 0 from the cache\n" in cli(work, *given).stdout
    work.marker.touch()
    said = cli(work, "run", "resumed.py", "--no-mirror", "--resume", "last").stdout
    assert "✓ first finished before\n" in said
    assert said.endswith("2 steps ran, 0 from the cache, 1 finished before\n")
    again = json.loads(cli(work, "run", "resumed.py", "--no-mirror", "--resume", "last", "--json").stdout)
    assert [(s["name"], s["cached"]) for s in again["steps"]] == [("first", True), ("second", True), ("third", True)]


def test_a_run_is_not_compared_with_itself(work: Work) -> None:
    run = work.run()
    said = cli(work, "runs", "diff", run.id)
    assert (said.returncode, "is both runs" in said.stderr) == (2, True)


def test_runs_diff_says_which_steps_ran_again_and_why(work: Work) -> None:
    work.marker.touch()
    first = work.run()
    second = work.run(parameters={**work.parameters(), "n": 3})
    work.helper("10")
    third = work.run(parameters={**work.parameters(), "n": 3})
    text = cli(work, "runs", "diff", first.id, second.id).stdout
    assert "ran        first  parameter n: 2 → 3" in text
    assert "artifact data: sha256:" in text
    assert "ran        third  parameter x: 4 → 6" in text
    text = cli(work, "runs", "diff", second.id).stdout
    assert "definition: code of first; code of second; code of third" in text
    assert "code or command" in text
    changes = json.loads(cli(work, "runs", "diff", second.id, third.id, "--json").stdout)
    assert {c["step"]: c["how"] for c in changes} == {"first": "ran", "second": "ran", "third": "ran"}
