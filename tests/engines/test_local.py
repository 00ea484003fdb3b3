"""The local engine with real processes and a real store."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.engines.project import Project
from tidegate.ir.load import load
from tidegate.plan.events import Notice, StepLog
from tidegate.store.blobs import Blobs
from tidegate.store.runs import Runs

HEAD = """
import tidegate
from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output, OutputPath
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


CHAIN = (
    HEAD
    + """
from pkg.helper import factor

@tidegate.component
def make(n: int, data: Output[Dataset]) -> int:
    with open(data.path, "w") as f:
        f.write(" ".join(map(str, range(n))))
    data.metadata["rows"] = n
    print("made", n)
    return n

@tidegate.component
def scale(data: Input[Dataset], out: Output[Dataset], metrics: Output[Metrics]):
    numbers = [factor() * int(x) for x in open(data.path).read().split()]
    metrics.log_metric("sum", sum(numbers))
    with open(out.path, "w") as f:
        f.write(" ".join(map(str, numbers)))

@dsl.component(base_image="python:3.11")
def total(data: Input[Dataset]) -> int:
    return sum(int(x) for x in open(data.path).read().split())

@dsl.pipeline(name="chain")
def chain(n: int = 4) -> int:
    made = make(n=n)
    return total(data=scale(data=made.outputs["data"]).outputs["out"]).output
"""
)


@pytest.fixture
def chain(project: Project) -> Path:
    project.write("pkg/helper.py", "def factor():\n    return 2\n")
    return project.write("chain_pipeline.py", CHAIN)


def test_components_of_both_kinds_pass_artifacts_parameters_and_metadata(project: Project, chain: Path) -> None:
    outcome = project.run(chain)
    assert (outcome.state, outcome.parameters) == ("SUCCEEDED", {"Output": 12})
    records = {s.path: s for s in Runs(project.store).steps(outcome.run_id)}
    assert records["make"].outputs["artifacts"]["data"][0]["metadata"] == {"rows": 4}
    assert records["scale"].outputs["artifacts"]["metrics"][0]["metadata"] == {"sum": 12}
    assert Runs(project.store).read_log(outcome.run_id, "make") == b"made 4\n"
    assert StepLog("make", "made 4") in project.events


def test_the_same_run_again_comes_from_the_cache_and_says_so(project: Project, chain: Path) -> None:
    project.run(chain)
    again = project.run(chain)
    assert again.parameters == {"Output": 12}
    assert project.cached() == {"make": True, "scale": True, "total": True}
    project.run(chain, cache=False)
    assert project.cached() == {"make": False, "scale": False, "total": False}


def test_an_edited_helper_runs_exactly_its_component_and_what_depends_on_it(project: Project, chain: Path) -> None:
    project.run(chain)
    project.write("pkg/other.py", "unrelated = 1\n")
    project.write("pkg/helper.py", "def factor():\n    return 3\n")
    assert project.run(chain).parameters == {"Output": 18}
    # make, scale share a file that imports the helper, so both run; their input to total changed
    assert project.cached() == {"make": False, "scale": False, "total": False}


def test_an_edit_that_changes_no_output_stops_there(project: Project, chain: Path) -> None:
    project.run(chain)
    project.write("pkg/helper.py", "def factor():\n    return 1 + 1\n")
    project.run(chain)
    assert project.cached() == {"make": False, "scale": False, "total": True}


def test_a_damaged_blob_is_never_a_hit_and_is_reported(project: Project, chain: Path) -> None:
    outcome = project.run(chain)
    records = {s.path: s for s in Runs(project.store).steps(outcome.run_id)}
    digest = records["scale"].outputs["artifacts"]["out"][0]["digest"]
    path = Path(Blobs(project.store).uri(digest))
    path.chmod(0o644)
    path.write_bytes(b"0 0 0 9")
    assert project.run(chain).parameters == {"Output": 12}
    assert project.cached() == {"make": True, "scale": False, "total": True}
    assert [e.text for e in project.events if isinstance(e, Notice) and "set aside" in e.text]


FAILING = (
    HEAD
    + """
@tidegate.component
def bad(x: int) -> int:
    return inner(x)

def inner(x):
    raise ValueError(f"no {x}")

@tidegate.component
def die() -> int:
    import os
    print("last words", flush=True)
    os.kill(os.getpid(), 9)

@tidegate.component
def fine() -> int:
    return 1

@dsl.pipeline(name="failing")
def failing():
    bad(x=fine().output)

@dsl.pipeline(name="dying")
def dying():
    die()
"""
)


def test_a_failed_step_names_its_authors_frames_and_nothing_of_ours(project: Project) -> None:
    outcome = project.run(project.write("failing_pipeline.py", FAILING).with_name("failing_pipeline.py:failing"))
    assert outcome.state == "FAILED"
    error = outcome.error
    assert error is not None
    assert (error["step"], error["message"]) == ("bad", "ValueError: no 1")
    assert [(Path(f["file"]).name, f["function"]) for f in error["frames"]] == [
        ("failing_pipeline.py", "bad"),
        ("failing_pipeline.py", "inner"),
    ]


def test_a_killed_step_is_told_from_a_failed_one_with_its_last_words(project: Project) -> None:
    outcome = project.run(project.write("failing_pipeline.py", FAILING).with_name("failing_pipeline.py:dying"))
    assert outcome.error is not None
    assert outcome.error["code"] == "step-died"
    assert outcome.error["tail"] == ["last words"]


def test_a_step_refuses_code_other_than_it_was_compiled_from(project: Project, chain: Path) -> None:
    from tidegate.ir.write import to_yaml

    compiled = project.write("chain.yaml", to_yaml(load(str(chain))))
    project.write("pkg/helper.py", "def factor():\n    return 5\n")
    outcome = project.run(compiled)
    assert outcome.error is not None
    assert outcome.error["code"] == "code-mismatch"


PARALLEL = (
    HEAD
    + """
@tidegate.component
def meet(folder: str, me: str, other: str) -> str:
    import pathlib, time
    (pathlib.Path(folder) / me).touch()
    end = time.monotonic() + 20
    while not (pathlib.Path(folder) / other).exists():
        if time.monotonic() > end:
            raise TimeoutError("alone")
        time.sleep(0.01)
    return me

@dsl.pipeline(name="parallel")
def parallel(folder: str):
    meet(folder=folder, me="a", other="b")
    meet(folder=folder, me="b", other="a")
"""
)


def test_independent_steps_run_at_the_same_time(project: Project, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    outcome = project.run(project.write("parallel_pipeline.py", PARALLEL), jobs=2, folder=str(tmp_path / "here"))
    assert outcome.state == "SUCCEEDED"


IMPORTING = (
    HEAD
    + """
@tidegate.component
def read(data: Input[Dataset]) -> str:
    return open(data.path).read() + str(data.metadata["k"])

@tidegate.component
def folder(out: Output[Model], text: OutputPath(str)):
    import os
    os.makedirs(out.path + "/sub")
    open(out.path + "/sub/a", "w").write("A")
    open(text, "w").write("said")

@tidegate.component
def look(model: Input[Model], text: str) -> str:
    return open(model.path + "/sub/a").read() + text

@dsl.pipeline(name="importing")
def importing(uri: str) -> str:
    imported = dsl.importer(artifact_uri=uri, artifact_class=Dataset, metadata={"k": 7})
    read(data=imported.output)
    made = folder()
    return look(model=made.outputs["out"], text=made.outputs["text"]).output
"""
)


def test_imported_files_folders_and_written_parameters_arrive(project: Project) -> None:
    data = project.write("data.txt", "seven ")
    outcome = project.run(project.write("importing_pipeline.py", IMPORTING), uri=str(data))
    assert (outcome.state, outcome.parameters) == ("SUCCEEDED", {"Output": "Asaid"})
    records = {s.path: s for s in Runs(project.store).steps(outcome.run_id)}
    assert records["read"].outputs["parameters"] == {"Output": "seven 7"}


BIG = (
    HEAD
    + """
@tidegate.component
def size(text: str) -> int:
    return len(text)

@dsl.pipeline(name="big")
def big(text: str) -> int:
    return size(text=text).output
"""
)


def test_a_parameter_of_several_megabytes_arrives(project: Project) -> None:
    assert project.run(project.write("big_pipeline.py", BIG), text="x" * 3_000_000).parameters == {"Output": 3_000_000}


RETRYING = (
    HEAD
    + """
@tidegate.component
def third(file: str) -> int:
    import pathlib
    path = pathlib.Path(file)
    tries = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(tries))
    assert tries >= 3
    return tries

@dsl.pipeline(name="retrying")
def retrying(file: str) -> int:
    return third(file=file).set_retry(num_retries=3).output
"""
)


def test_a_step_is_tried_again_and_the_record_counts(project: Project, tmp_path: Path) -> None:
    outcome = project.run(project.write("retrying_pipeline.py", RETRYING), file=str(tmp_path / "tries"))
    assert outcome.parameters == {"Output": 3}
    assert Runs(project.store).steps(outcome.run_id)[0].attempts == 3


ORPHANS = (
    HEAD
    + """
@tidegate.component
def leave(file: str):
    import os, subprocess, sys, time
    for new_session in (False, True):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=new_session)
        with open(file, "a") as f:
            f.write(f"{child.pid}\\n")
    if file.endswith("wait"):
        open(file + ".pid", "w").write(f"{os.getpid()}\\n")
        time.sleep(600)
    if file.endswith("fail"):
        raise ValueError("and fails")

@dsl.pipeline(name="orphans")
def orphans(file: str):
    leave(file=file)
"""
)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("how", ["end", "fail"])
def test_no_process_survives_its_run(project: Project, tmp_path: Path, how: str) -> None:
    project.run(project.write("orphans_pipeline.py", ORPHANS), file=str(tmp_path / how))
    pids = [int(p) for p in (tmp_path / how).read_text().split()]
    assert len(pids) == 2
    assert [p for p in pids if alive(p)] == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_step_behind(project: Project, tmp_path: Path, how: signal.Signals) -> None:
    file = project.write("orphans_pipeline.py", ORPHANS)
    pids = tmp_path / "wait"
    command = [sys.executable, "-m", "tidegate", "run", str(file), "-p", f"file={pids}", "--no-mirror"]
    run = subprocess.Popen(command, cwd=project.root, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    said = tmp_path / "wait.pid"
    wait_until(lambda: (said.exists() and said.read_text().endswith("\n")) or run.poll() is not None)
    assert run.poll() is None
    step = int(said.read_text())
    run.send_signal(how)
    code = run.wait(30)
    assert code == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    wait_until(lambda: not alive(step))
    if how != signal.SIGKILL:
        assert [p for p in map(int, pids.read_text().split()) if alive(p)] == []
        run_id = Runs(project.store).last()
        outcome = Runs(project.store).outcome(run_id)
        assert outcome is not None
        assert outcome.state == "CANCELED"
    for pid in map(int, pids.read_text().split()):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        tick.wait(0.02)


NAMED = (
    HEAD
    + """
@tidegate.component
def echo(text: str) -> str:
    return text

@dsl.pipeline(name="named")
def named(text: str) -> str:
    return echo(text=text).set_caching_options(True, cache_key="mine").output

@dsl.pipeline(name="never")
def never(text: str) -> str:
    return echo(text=text).set_caching_options(False).output
"""
)


def test_a_task_with_a_named_key_is_cached_by_it_alone_and_one_without_caching_never(project: Project) -> None:
    file = project.write("named_pipeline.py", NAMED)
    assert project.run(file.with_name("named_pipeline.py:named"), text="a").parameters == {"Output": "a"}
    assert project.run(file.with_name("named_pipeline.py:named"), text="b").parameters == {"Output": "a"}
    for _ in range(2):
        project.run(file.with_name("named_pipeline.py:never"), text="a")
        assert project.cached() == {"echo": False}


LIGHT = """
from kfp import dsl

@dsl.component(base_image="python:3.11")
def light() -> str:
    import typing
    try:
        import my_helper
        return "found"
    except ImportError:
        return "not there, as in its image"

@dsl.component(base_image="python:3.11")
def ends() -> str:
    import sys
    sys.exit(0)

@dsl.component(base_image="python:3.11")
def silent(out: dsl.OutputPath(str)):
    print("wrote nothing")

@dsl.pipeline(name="lightweight")
def lightweight() -> str:
    return light().output

@dsl.pipeline(name="forgetful")
def forgetful():
    silent().set_retry(num_retries=2)

@dsl.component(base_image="python:3.11")
def mixed() -> list:
    return [1, 2, "x"]

@dsl.component(base_image="python:3.11")
def one(i: int) -> int:
    return i

@dsl.component(base_image="python:3.11")
def last(s: dsl.PipelineTaskFinalStatus):
    print(s.state)

@dsl.pipeline(name="uneven")
def uneven():
    with dsl.ExitHandler(last()):
        with dsl.ParallelFor(mixed().output, parallelism=1) as i:
            one(i=i)
"""


def test_a_lightweight_component_sees_no_module_that_its_key_does_not_hold(project: Project) -> None:
    project.write("my_helper.py", "x = 1\n")
    outcome = project.run(project.write("light_pipeline.py", LIGHT).with_name("light_pipeline.py:lightweight"))
    assert outcome.parameters == {"Output": "not there, as in its image"}


def test_an_output_that_was_not_written_fails_the_step_again_and_again_and_keeps_its_log(project: Project) -> None:
    outcome = project.run(project.write("light_pipeline.py", LIGHT).with_name("light_pipeline.py:forgetful"))
    (record,) = Runs(project.store).steps(outcome.run_id)
    assert outcome.error
    assert (outcome.error["code"], record.attempts) == ("output-missing", 3)
    said = b"wrote nothing\n"
    assert (
        Runs(project.store).read_log(outcome.run_id, "silent")
        == said + b"== attempt 2\n" + said + b"== attempt 3\n" + said
    )


def test_an_item_of_a_wrong_type_fails_its_iteration_and_the_exit_handler_runs(project: Project) -> None:
    outcome = project.run(project.write("light_pipeline.py", LIGHT).with_name("light_pipeline.py:uneven"))
    states = {s.path: s.state for s in Runs(project.store).steps(outcome.run_id)}
    assert outcome.state == "FAILED"
    assert (states["exit-handler-1/for-loop-2[2]/one"], states["last"]) == ("FAILED", "SUCCEEDED")


WITH_DSL = (
    HEAD
    + """
import numpy
import wave

@tidegate.component
def mean(xs: list) -> float:
    return float(numpy.mean(xs))

@dsl.pipeline(name="same-file")
def same_file() -> float:
    return mean(xs=[1, 2]).output
"""
)


def test_a_component_beside_its_pipeline_and_extension_modules_loads_in_any_interpreter(project: Project) -> None:
    project.write("wave.py", "import xml.parsers.expat\n")
    assert project.run(project.write("same_pipeline.py", WITH_DSL)).parameters == {"Output": 1.5}


def test_a_src_layout_is_first_party_and_an_edit_there_is_never_stale(project: Project) -> None:
    project.write("src/deep/helper.py", "def factor():\n    return 2\n")
    text = HEAD + "from deep.helper import factor\n@tidegate.component\ndef f() -> int:\n    return factor()\n"
    text += "@dsl.pipeline(name='src')\ndef src() -> int:\n    return f().output\n"
    file = project.write("src_pipeline.py", text)
    assert project.run(file).parameters == {"Output": 2}
    project.write("src/deep/helper.py", "def factor():\n    return 3\n")
    assert project.run(file).parameters == {"Output": 3}


RETRIED = """
from kfp import dsl

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def third_time(log: str) -> int:
    open(log, "a").write("x")
    n = len(open(log).read())
    print("attempt number", n)
    assert n == 3
    return n

@dsl.pipeline(name="retried")
def retried(log: str) -> int:
    return third_time(log=log).set_retry(3).output
"""


def test_every_attempt_of_a_retried_step_is_in_its_log_and_passed_on_once(project: Project) -> None:
    outcome = project.run(project.write("retried.py", RETRIED), log=str(project.root / "log"))
    assert outcome.parameters == {"Output": 3}
    text = Runs(project.store).read_log(outcome.run_id, "third-time").decode()
    assert [line for line in text.splitlines() if line.startswith(("attempt", "=="))] == [
        *("attempt number 1", "== attempt 2", "attempt number 2", "== attempt 3", "attempt number 3")
    ]
    said = [e.line for e in project.events if isinstance(e, StepLog) and e.line.startswith("attempt")]
    assert said == ["attempt number 1", "attempt number 2", "attempt number 3"]
    assert [s.note for s in outcome.steps] == ["3 attempts"]


ENDLESS = """
from kfp import dsl

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def waits(marker: str):
    import time
    open(marker, "w").close()
    time.sleep(60)

@dsl.pipeline(name="endless")
def endless(marker: str):
    waits(marker=marker)
"""


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGHUP], [signal.SIGTERM, signal.SIGINT]])
def test_a_run_that_is_ended_says_so_once_however_often_it_is_told(
    project: Project, signals: list[signal.Signals]
) -> None:
    project.write("endless.py", ENDLESS)
    marker = project.root / "marker"
    command = [sys.executable, "-m", "tidegate", "run", "endless.py", "-p", f"marker={marker}", "--no-mirror", "--json"]
    process = subprocess.Popen(command, cwd=project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not marker.exists():
        assert process.poll() is None
        time.sleep(0.02)
    for each in signals:
        process.send_signal(each)
        time.sleep(0.03)
    while process.poll() is None:  # also while the interpreter ends
        process.send_signal(signals[-1])
        time.sleep(0.005)
    out, _ = process.communicate()
    assert process.returncode == 130
    [line] = out.splitlines()
    body = json.loads(line)
    assert body["state"] == "CANCELED"
    outcome = Runs(project.store).outcome(body["run_id"])
    assert outcome
    assert outcome.state == "CANCELED"


LEAVES = """
from kfp import dsl

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def leaves() -> int:
    import subprocess
    return subprocess.Popen(["sleep", "60"]).pid

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def looks(pid: int) -> bool:
    import time
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True

@dsl.pipeline(name="leaving")
def leaving() -> bool:
    return looks(pid=leaves().output).output
"""


def test_what_a_step_leaves_running_is_ended_with_it_and_not_with_the_run(project: Project) -> None:
    assert project.run(project.write("leaving.py", LEAVES)).parameters == {"Output": False}
