"""The command line as a user meets it: real processes, exit codes, one line of JSON, errors that say what to type."""

import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.disks import small_disk
from tests.servers import create_bucket, free_port, moto
from tidegate import cli
from tidegate.store.local import LocalStore
from tidegate.store.runs import RunRecord, Runs, StepRecord

ROOT = Path(__file__).parents[2]
PIPELINE = """
from kfp import dsl
from kfp.dsl import Dataset, Input, Output
import tidegate
from steps.work import make, read, explode

@dsl.pipeline(name="work")
def work(n: int = 2, x: float = 1.0, text: str = "t", flag: bool = False, items: list = [1, 2.5], fail: bool = False) -> int:
    made = make(n=n, text=text, items=items)
    with dsl.If(fail == True):
        explode(x=x)
    return read(data=made.outputs["data"]).output
"""
STEPS = """
import tidegate
from kfp.dsl import Dataset, Input, Output

@tidegate.component
def make(n: int, text: str, items: list, data: Output[Dataset]) -> float:
    print("making", n)
    with open(data.path, "w") as f:
        f.write(text * n)
    return float("nan") if text == "nan" else 0.5

@tidegate.component
def read(data: Input[Dataset]) -> int:
    with open(data.path) as f:
        return len(f.read())

@tidegate.component
def explode(x: float) -> float:
    return helper(x)

def helper(x):
    raise RuntimeError(f"cannot take {x}")
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        found: dict[str, Any] = json.loads(lines[0], parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
        return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[tool.tidegate]\nmlflow = false\n")
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "work.py").write_text(STEPS)
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    return tmp_path


def tidegate(project: Path, *args: str, env: dict[str, str] | None = None) -> Said:
    command = [sys.executable, "-m", "tidegate", *args]
    done = subprocess.run(
        command, cwd=project, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False
    )
    assert "Traceback" not in done.stderr.replace("| Traceback", ""), done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


def test_a_run_shows_its_steps_and_outputs_and_again_says_that_they_are_cached(project: Path) -> None:
    first = tidegate(project, "run", "pipeline.py")
    assert first.code == 0
    assert "✓ make" in first.out
    assert "Output = 2" in first.out
    assert "2 steps ran, 0 from the cache" in first.out
    again = tidegate(project, "run", "pipeline.py")
    assert "✓ make cached" in again.out
    assert "0 steps ran, 2 from the cache" in again.out


def test_json_is_one_line_with_typed_outputs_and_every_step(project: Path) -> None:
    said = tidegate(project, "run", "pipeline.py", "-p", "n=3", "-p", 'items=["a"]', "-p", "flag=true", "--json")
    assert said.code == 0
    body = said.json
    assert (body["state"], body["outputs"], body["error"]) == ("SUCCEEDED", {"Output": 3}, None)
    steps = {s["name"]: (s["state"], s["cached"]) for s in body["steps"]}
    assert steps == {
        "condition-1/explode": ("SKIPPED", False),
        "make": ("SUCCEEDED", False),
        "read": ("SUCCEEDED", False),
    }
    assert "make | making 3" in said.err


def test_a_failed_step_is_told_in_fifteen_lines_with_the_authors_frame_and_what_to_type(project: Path) -> None:
    said = tidegate(project, "run", "pipeline.py", "-p", "fail=true", "-p", "x=7")
    assert said.code == 1
    lines = said.err.splitlines()
    assert len(lines) <= 15
    assert "step condition-1/explode failed" in lines[0]
    assert any("steps/work.py:22 in helper" in line for line in lines)
    assert "error[step-failed]: RuntimeError: cannot take 7.0" in said.err
    assert "tidegate run pipeline.py -p fail=true -p x=7 --resume " in lines[-1]
    body = tidegate(project, "run", "pipeline.py", "-p", "fail=true", "--json").json
    assert (body["state"], body["error"]["code"], body["error"]["step"]) == (
        "FAILED",
        "step-failed",
        "condition-1/explode",
    )


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["run", "none.py"], 2, "no file none.py"),
        (["run", "pipeline.py:other"], 2, "Its pipelines: work"),
        (["run", "pipeline.py", "-p", "m=1"], 2, "Its parameters: fail, flag, items, n, text, x"),
        (["run", "pipeline.py", "-p", "n=one"], 2, "an integer"),
        (["run", "pipeline.py", "-p", "n=1.5"], 2, "an integer"),
        (["run", "pipeline.py", "-p", "x=high"], 2, "a number"),
        (["run", "pipeline.py", "-p", "flag=perhaps"], 2, "true or false"),
        (["run", "pipeline.py", "-p", "n"], 2, "NAME=VALUE"),
        (["run", "pipeline.py", "--params", "none.json"], 2, "none.json"),
        (["run", "pipeline.py", "-a", "data=none"], 2, "none"),
        (["run", "pipeline.py", "--store", "ftp://x"], 2, "s3://"),
        (["run", "pipeline.py", "--engine", "slurm"], 2, "local"),
        (["run", "pipeline.py", "--jobs", "0"], 2, "jobs"),
        (["run"], 2, "FILE"),
        (["rn"], 2, "rn"),
        (["runs", "show", "nothing"], 2, "tidegate runs ls"),
        (["runs", "show", "../../etc"], 2, "no run"),
        (["runs", "logs"], 2, "no run yet"),
        (["model", "show", "iris"], 2, "tidegate model ls"),
        (["model", "promote", "iris:1"], 2, "no version"),
        (["serve", "iris"], 2, "no version"),
        (["gate", "check", "none.toml", "none.json"], 2, "none"),
        (["model", "ls", "--store", "/proc/none"], 0, "no model is registered in /proc/none"),
        (["model", "ls", "--store", "pyproject.toml"], 3, "cannot open the store"),
        (["run", "pipeline.py", "--store", "/proc/none"], 3, "in /proc/none: No such file or directory"),
        (["run", "pipeline.py", "--store", "s3://b/x"], 3, "tidegate doctor"),
    ],
)  # fmt: skip
def test_a_mistake_gets_its_exit_code_and_what_is_allowed(
    project: Path, args: Sequence[str], code: int, says: str
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
        env = {
            "AWS_ENDPOINT_URL": nowhere,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "us-east-1",
        }
        said = tidegate(project, *args, env=env)
    assert said.code == code, said
    assert says in said.err, said.err


def test_a_mistake_with_json_is_still_one_line(project: Path) -> None:
    said = tidegate(project, "run", "pipeline.py", "-p", "n=one", "--json")
    assert said.code == 2
    assert (said.json["state"], said.json["error"]["code"]) == ("FAILED", "parameter-type")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def f(:\n", "pipeline.py:1"),
        ("import nothing_of_that_name\n", "nothing_of_that_name"),
        (PIPELINE.replace("made = make(", "made = make(1 / 0, "), "pipeline.py:9"),
        (PIPELINE.replace('outputs["data"]', 'outputs["date"]'), "pipeline.py"),
        ("x = 1\n", "no @dsl.pipeline"),
    ],
)
def test_a_pipeline_that_raises_while_tracing_names_its_line(project: Path, text: str, says: str) -> None:
    (project / "pipeline.py").write_text(text)
    said = tidegate(project, "run", "pipeline.py")
    assert said.code == 2
    assert says in said.err
    assert len(said.err.splitlines()) <= 5


def test_a_kfp_that_cannot_be_imported_is_told_like_any_mistake(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site = tmp_path_factory.mktemp("other") / "site-packages"
    (site / "kfp").mkdir(parents=True)
    (site / "kfp" / "__init__.py").write_text("raise RuntimeError('protobuf is too old')\n")
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    said = tidegate(project, "compile", "pipeline.py", "--to", "ir", env={"PYTHONPATH": path})
    assert said.code == 2
    assert "RuntimeError while reading the pipeline" in said.err
    assert "pipeline.py:2: protobuf is too old" in said.err
    (project / "pipeline.py").write_text("x = 1\n")
    assert tidegate(project, "compile", "pipeline.py", "--to", "ir", env={"PYTHONPATH": path}).code == 2


def test_a_command_called_in_a_process_of_others_leaves_the_garbage_collector_alone() -> None:
    before, args = gc.get_freeze_count(), ["runs", "--help"]
    assert cli._main(args) == 0
    assert gc.get_freeze_count() <= before, "what others hold would never be put away"


def test_parameters_come_from_a_file_and_flags_come_first(project: Path) -> None:
    (project / "p.yaml").write_text("n: 5\ntext: ab\n")
    (project / "p.json").write_text('{"n": 5}')
    assert tidegate(project, "run", "pipeline.py", "--params", "p.yaml", "--json").json["outputs"] == {"Output": 10}
    assert tidegate(project, "run", "pipeline.py", "--params", "p.json", "-p", "n=1", "--json").json["outputs"] == {
        "Output": 1
    }


def test_a_dry_run_lists_the_steps_and_runs_nothing(project: Path) -> None:
    said = tidegate(project, "run", "pipeline.py", "--dry-run")
    assert said.code == 0
    assert "condition-1/explode" in said.out
    assert not (project / ".tidegate").exists()


def test_what_is_compiled_runs_the_same_and_compiles_to_the_same_bytes(project: Path) -> None:
    assert tidegate(project, "compile", "pipeline.py", "-o", "work.yaml").code == 0
    text = (project / "work.yaml").read_text()
    assert tidegate(project, "compile", "pipeline.py").out == text
    assert tidegate(project, "compile", "work.yaml", "--to", "ir").out == text
    assert tidegate(project, "run", "work.yaml", "--json").json["outputs"] == {"Output": 2}
    refused = tidegate(project, "compile", "pipeline.py", "--pinned")
    assert (refused.code, "images.lock" in refused.err) == (2, True)


def test_runs_are_listed_shown_and_their_logs_kept(project: Path) -> None:
    run_id = tidegate(project, "run", "pipeline.py", "--json").json["run_id"]
    assert run_id in tidegate(project, "runs", "ls").out
    shown = tidegate(project, "runs", "show")
    assert "make" in shown.out
    assert json.loads(tidegate(project, "runs", "show", run_id, "--json").out)["outcome"]["state"] == "SUCCEEDED"
    assert tidegate(project, "runs", "logs", run_id, "make").out == "making 2\n"
    assert "no step" in tidegate(project, "runs", "logs", run_id, "mkae").err


def test_an_input_artifact_of_the_root_comes_from_a_path(project: Path) -> None:
    (project / "given").write_text("12345")
    source = "from kfp import dsl\nfrom kfp.dsl import Dataset, Input\nfrom steps.work import read\n"
    source += (
        '@dsl.pipeline(name="given")\ndef given(data: Input[Dataset]) -> int:\n    return read(data=data).output\n'
    )
    (project / "given_pipeline.py").write_text(source)
    assert tidegate(project, "run", "given_pipeline.py", "-a", "data=given", "--json").json["outputs"] == {"Output": 5}
    missing = tidegate(project, "run", "given_pipeline.py")
    assert (missing.code, "-a data=PATH" in missing.err) == (2, True)


def test_a_full_disk_ends_the_run_with_3_or_1_and_no_traceback(project: Path) -> None:
    with small_disk(project / "small", "200k") as small:
        said = tidegate(
            project, "run", "pipeline.py", "-p", "n=1000", "-p", "text=" + "x" * 1000, "--store", str(small)
        )
        assert said.code in (1, 3)
        assert "No space left" in said.err
        assert tidegate(project, "runs", "ls", "--store", str(small)).code == 0


def test_a_damaged_cache_entry_is_set_aside_and_the_run_goes_on(project: Path) -> None:
    tidegate(project, "run", "pipeline.py")
    for entry in (project / ".tidegate" / "cache").rglob("*"):
        if entry.is_file():
            entry.write_bytes(entry.read_bytes()[:-7])
    said = tidegate(project, "run", "pipeline.py")
    assert said.code == 0
    assert "a cache entry was damaged and is set aside" in said.out
    assert "2 steps ran" in said.out
    assert list((project / ".tidegate" / "damaged").rglob("*"))


def test_a_new_project_is_told_which_images_a_cluster_needs_and_how_to_get_them(project: Path) -> None:
    (project / "steps" / "work.py").write_text(
        STEPS.replace("@tidegate.component\n", "@tidegate.component(image='sea')\n")
    )
    words = ["run", "pipeline.py", "--engine", "argo", "--store", "s3://b/x", "--dry-run"]
    said = tidegate(project, *words)
    assert said.code == 2
    assert "these families: base, sea" in said.err
    assert "cp -r TIDEGATE/images/base images/sea" in said.err
    assert "tidegate images build base sea --push REGISTRY" in said.err
    said = tidegate(project, *words, "--allow-tags", env={"TIDEGATE_ARGO_IMAGE": "registry.example/tidegate"})
    assert "the family: sea" in said.err, "the launcher's image is named; a family is no tag"
    compiled = tidegate(project, "compile", "pipeline.py", "--to", "argo")
    assert (compiled.code, "these families: base, sea" in compiled.err) == (2, True)


def test_logs_of_a_run_come_in_the_order_in_which_its_steps_began(project: Path, tmp_path: Path) -> None:
    runs = Runs(LocalStore(project / ".tidegate"))
    runs.create(RunRecord("r", "work", "d", engine="argo"))
    for path, began, seconds in (("c-first", 10.0, 30.0), ("b-second", 11.0, 1.0), ("a-third", 13.0, 5.0)):
        (tmp_path / "log").write_text(f"{path}\n")
        log = runs.write_log("r", path, tmp_path / "log")
        runs.step("r", StepRecord(path, "SUCCEEDED", seconds=seconds, ended=began + seconds, log=log))
    assert tidegate(project, "runs", "logs", "r").out.split() == ["c-first", "b-second", "a-third"]


def test_help_is_there_for_every_command_and_imports_nothing_heavy(project: Path) -> None:
    probe = (
        "import sys; sys.argv = ['tidegate', '--help']\n"
        "from tidegate.cli import _main\n_main(['--help'])\n"
        "print([m for m in ('kfp', 'mlflow', 'pandas', 'torch', 'numpy', 'polars', 'obstore', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("run", "compile", "runs", "model", "gate", "audit", "serve", "doctor"):
        assert command in done.stdout
        assert tidegate(project, command, "--help").code == 0


def test_doctor_says_what_is_well_and_what_is_not(project: Path) -> None:
    assert tidegate(project, "doctor").code == 0
    ledger = project / ".tidegate" / "ledger" / "_root"
    ledger.mkdir(parents=True)
    (ledger / "000000000000.json").write_text("{")
    said = tidegate(project, "doctor")
    assert said.code == 3
    assert "BAD ledger" in said.out


def test_a_team_shares_cache_runs_and_registry_through_one_bucket(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import shutil

    with moto(free_port()) as endpoint:
        create_bucket(endpoint, "team-bucket")
        env = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "us-east-1",
        }
        env["TIDEGATE_STORE"] = "s3://team-bucket/shared"
        mine = tidegate(project, "run", "pipeline.py", "--json", env=env).json
        assert mine["state"] == "SUCCEEDED"
        theirs = tmp_path_factory.mktemp("colleague") / "checkout"
        shutil.copytree(project, theirs)
        again = tidegate(theirs, "run", "pipeline.py", "--json", env=env).json
        assert all(s["cached"] for s in again["steps"] if s["state"] == "SUCCEEDED")
        assert mine["run_id"] in tidegate(theirs, "runs", "ls", env=env).out
        assert tidegate(theirs, "runs", "logs", mine["run_id"], "make", env=env).out == "making 2\n"
        assert tidegate(theirs, "doctor", env=env).code == 0
    assert not (project / ".tidegate").exists()


def test_a_folder_without_a_project_file_is_a_project_too(project: Path) -> None:
    (project / "pyproject.toml").unlink()
    said = tidegate(project, "run", "pipeline.py", "--json", "--no-mirror")
    assert said.json["outputs"] == {"Output": 2}
    nested = project / "deeper"
    nested.mkdir()
    again = tidegate(nested, "run", "../pipeline.py", "--json", "--no-mirror").json
    assert again["steps"][1]["cached"] is True, "the store stands beside the pipeline, wherever one stands"


LISTS = """
from typing import List
from kfp import dsl
from kfp.dsl import Dataset, Output

@dsl.component(base_image="python:3.11")
def part(i: int, o: Output[Dataset]):
    with open(o.path, "w") as f:
        f.write("x" * i)

@dsl.pipeline(name="lists")
def lists(items: list) -> List[Dataset]:
    with dsl.ParallelFor(items) as i:
        p = part(i=i)
    return dsl.Collected(p.outputs["o"])
"""


def test_a_list_of_artifacts_is_printed_as_a_list_however_long(project: Path) -> None:
    (project / "lists.py").write_text(LISTS)
    for items in ([1, 2], [1], []):
        body = tidegate(project, "run", "lists.py", "-p", f"items={items}", "--json").json
        assert [len(Path(a["path"]).read_text()) for a in body["outputs"]["Output"]] == items


def test_a_full_disk_behind_stdout_loses_words_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(
        "from kfp import dsl\n@dsl.component(base_image='python:3.11', install_kfp_package=False)\n"
        "def one() -> int:\n    return 1\n@dsl.pipeline(name='p')\ndef p() -> int:\n    return one().output\n"
    )
    command = [sys.executable, "-m", "tidegate", "run", "p.py", "--no-mirror", "--store", str(tmp_path / "store")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert "output-lost" in done.stderr
    assert "Traceback" not in done.stderr
    [outcome] = (tmp_path / "store/runs").glob("*/outcome.json")
    assert '"SUCCEEDED"' in outcome.read_text()


@pytest.mark.parametrize("words", [["model", "ls", "--json"], ["runs", "ls"]])
def test_a_reader_that_left_is_no_no(tmp_path: Path, words: Sequence[str]) -> None:
    command = [sys.executable, "-m", "tidegate", *words, "--store", str(tmp_path / "s")]
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(command, stdout=theirs, stderr=theirs if words[0] == "runs" else subprocess.PIPE, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, None if words[0] == "runs" else b"")


@pytest.mark.parametrize(
    ("words", "out", "code"),
    [
        (["--help"], "left", 141),
        (["model", "ls"], "closed", 0),
        (["model", "ls", "--json"], "full", 3),
        (["model", "show", "none", "--json"], "left", 2),
        (["model", "show", "none", "--json"], "closed", 2),
    ],
)
def test_the_exit_code_is_the_same_where_nobody_takes_the_words(
    tmp_path: Path, words: Sequence[str], out: str, code: int
) -> None:
    more = [] if words == ["--help"] else ["--store", str(tmp_path / "s")]
    command = [sys.executable, "-m", "tidegate", *words, *more]
    if out == "closed":
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    ours, left = os.pipe()
    os.close(ours)
    with open("/dev/full", "wb") as full, os.fdopen(left, "wb", buffering=0) as unread:
        stdout = {"full": full, "left": unread}.get(out)
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
