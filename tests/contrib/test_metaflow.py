"""Real Metaflow flows as steps of real runs."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tidegate
from tests.engines.argo.simulated import Simulation
from tests.servers import free_port, moto
from tidegate import Options
from tidegate.errors import StepFailed
from tidegate.store.local import LocalStore
from tidegate.store.runs import Runs, StepRecord

pytestmark = pytest.mark.early

EVERYTHING = """
from pathlib import Path

from metaflow import FlowSpec, IncludeFile, JSONType, Parameter, current, step

from helper import double


class EverythingFlow(FlowSpec):
    '''Takes and gives one thing of each kind.'''

    rate = Parameter("learning-rate", default=0.5, help="how fast")
    n = Parameter("n", default=2)
    careful = Parameter("careful", type=bool, default=True)
    name_ = Parameter("who", default="nobody")
    grid = Parameter("grid", type=JSONType, default='{"a": [1]}')
    maybe = Parameter("maybe", type=float)
    text = IncludeFile("text", required=True)
    folder = Parameter("folder", required=True)

    @step
    def start(self):
        self.parts = [1, 2]
        self.next(self.work, foreach="parts")

    @step
    def work(self):
        self.square = self.input ** 2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.squares = [i.square for i in inputs]
        self.next(self.end)

    @step
    def end(self):
        import pandas as pd

        self.said = [self.rate, self.n, self.careful, self.name_, self.grid, self.maybe, self.text]
        self.words = [p.read_text() for p in Path(self.folder).glob("*")]
        self.model = {"model.onnx": b"graph", "more/signature.json": b"{}"}
        self.table = pd.DataFrame({"x": [1.5, 2.5]})
        self.blob = b"\\x00\\x01"
        self.file = Path(__file__)
        self.page = "<h1>it ended</h1>"
        self.accuracy = self.table["x"].mean() / 4
        self.loss = double(1)
        self.curve = {"first": 0.5, "last": 0.25}


if __name__ == "__main__":
    EverythingFlow()
"""
PIPELINE = """
from pathlib import Path
from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Metrics, Model
from tidegate.contrib.metaflow import flow_component

everything = flow_component(
    Path(__file__).with_name("flow.py"),
    artifacts={
        "said": Artifact, "model": Model, "table": Dataset, "blob": Artifact, "file": Artifact, "page": HTML,
        "curve": Metrics, "squares": list, "accuracy": float, "words": Artifact,
    },
    metrics=["accuracy", "loss"],
    parameters={"folder": Dataset},
)


Outputs = NamedTuple("Outputs", [("squares", list), ("accuracy", float)])


@dsl.pipeline(name="everything")
def pipeline(rate: float = 0.25) -> Outputs:
    text = dsl.importer(artifact_uri=str(Path(__file__).with_name("hello.txt")), artifact_class=dsl.Dataset)
    done = everything(
        learning_rate=rate, n=3, careful=False, who="-me {{x}} 'é", grid={"b": {}}, text=text.output,
        folder=dsl.importer(artifact_uri=str(Path(__file__).with_name("words")), artifact_class=dsl.Dataset).output,
    )
    return Outputs(done.outputs["squares"], done.outputs["accuracy"])
"""
HELD = """
import os
import time
from metaflow import FlowSpec, Parameter, step


class HeldFlow(FlowSpec):
    log = Parameter("log", required=True)
    marker = Parameter("marker", required=True)
    n = Parameter("n", default=2)

    @step
    def start(self):
        self.note("start")
        self.twice = 2 * self.n
        self.next(self.end)

    @step
    def end(self):
        self.note("end")
        while self.marker.endswith(".hold") and not os.path.exists(self.marker):
            time.sleep(0.02)
        if self.marker.endswith(".die"):
            os.kill(os.getpid(), 9)
        if not os.path.exists(self.marker):
            raise ValueError("no marker yet")
        self.total = self.twice + 1

    def note(self, what):
        with open(self.log, "a") as out:
            out.write(what + " ")


if __name__ == "__main__":
    HeldFlow()
"""
HELD_PIPELINE = """
from pathlib import Path
from kfp import dsl
from tidegate.contrib.metaflow import flow_component

held = flow_component(Path(__file__).with_name("flow.py"), artifacts={"total": int})


@dsl.pipeline(name="held")
def pipeline(log: str, marker: str, n: int = 2) -> int:
    return held(log=log, marker=marker, n=n).set_retry(RETRIES).outputs["total"]
"""

KEYED = """
from metaflow import FlowSpec, Parameter, step

from helper import double


class KeyedFlow(FlowSpec):
    n = Parameter("n", default=1)

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        self.loss = double(self.n)


if __name__ == "__main__":
    KeyedFlow()
"""
KEYED_PIPELINE = """
from pathlib import Path
from kfp import dsl
from tidegate.contrib.metaflow import flow_component

keyed = flow_component(Path(__file__).with_name("flow.py"), metrics=["loss"])


@dsl.pipeline(name="keyed")
def pipeline(n: int = 1):
    keyed(n=n)
"""


class Work:
    """A project with a flow and its pipeline."""

    def __init__(self, root: Path, flow: str, pipeline: str) -> None:
        self.root, self.file, self.flow = root, root / "pipeline.py", root / "flow.py"
        self.beside = root / "beside"  # a file whose name the flow says would be the flow's
        self.beside.mkdir()
        self.log, self.marker = self.beside / "log", self.beside / "marker"
        (root / "pyproject.toml").touch()
        self.flow.write_text(flow)
        self.file.write_text(pipeline)
        self.store = LocalStore(root / ".tidegate")

    def run(self, parameters: dict[str, Any] | None = None, **options: Any) -> tidegate.Run:
        for name in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(self.root))]:
            del sys.modules[name]
        sys.path[:] = [p for p in sys.path if "pytest-" not in p]
        return tidegate.run(str(self.file), parameters or {}, Options(mirror=False, **options))

    def given(self, **more: Any) -> dict[str, Any]:
        return {"log": str(self.log), "marker": str(self.marker), **more}

    def noted(self) -> list[str]:
        return self.log.read_text().split()

    def record(self, run: tidegate.Run, step: str) -> StepRecord:
        return next(r for r in Runs(self.store).steps(run.id) if r.path == step)

    def cached(self, run: tidegate.Run) -> bool:
        return next(s.cached for s in run.outcome.steps if "flow" in s.step)

    def step_log(self, run_id: str) -> str:
        command = [sys.executable, "-m", "tidegate", "runs", "logs", run_id]
        return subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def everything(tmp_path: Path) -> Work:
    work = Work(tmp_path, EVERYTHING, PIPELINE)
    (tmp_path / "helper.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "hello.txt").write_text("hello")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "one").write_text("word")
    return work


@pytest.fixture
def keyed(tmp_path: Path) -> Work:
    work = Work(tmp_path, KEYED, KEYED_PIPELINE)
    (tmp_path / "helper.py").write_text("def double(x):\n    return 2 * x\n")
    return work


@pytest.fixture
def held(tmp_path: Path) -> Work:
    return Work(tmp_path, HELD, HELD_PIPELINE.replace("RETRIES", "0"))


def test_each_kind_of_parameter_arrives_and_each_kind_of_artifact_comes_out_with_its_lineage(everything: Work) -> None:
    run = everything.run()
    assert run.state == "SUCCEEDED", run.outcome.error
    assert run.outputs == {"squares": [1, 4], "accuracy": 0.5}
    made = everything.record(run, "everything-flow").outputs["artifacts"]
    files = {n: Path(a[0]["uri"]) for n, a in made.items() if a[0]["uri"]}
    assert json.loads(files["said"].read_text()) == [0.25, 3, False, "-me {{x}} 'é", {"b": {}}, None, "hello"]
    assert json.loads(files["words"].read_text()) == ["word"]
    model = files["model"].read_text()
    assert "model.onnx" in model
    assert "more/signature.json" in model
    assert "part-0.parquet" in files["table"].read_text()
    assert files["blob"].read_bytes() == b"\x00\x01"
    assert files["file"].read_text() == EVERYTHING
    assert files["page"].read_text() == "<h1>it ended</h1>"
    metadata = {n: a[0]["metadata"] for n, a in made.items()}
    assert (metadata["metrics"]["accuracy"], metadata["metrics"]["loss"]) == (0.5, 2)
    assert (metadata["curve"]["first"], metadata["curve"]["last"]) == (0.5, 0.25)
    for said in metadata.values():
        assert said["metaflow_run"].startswith("EverythingFlow/")
        assert said["source"] == f"metaflow:{said['metaflow_run']}"
        assert said["flow"] == "flow.py:EverythingFlow"
        assert f"metaflow_version:{said['metaflow_version']}" in said["metaflow_tags"]


def test_in_the_pods_of_argo_a_flow_gives_what_it_gives_here(
    everything: Work, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = everything.run(cache=False)
    with Simulation(tmp_path_factory.mktemp("cluster")).on():
        monkeypatch.setenv("TIDEGATE_PROJECT", str(everything.root))  # as images of ours say it
        there = everything.run(cache=False)
    assert there.outputs == here.outputs
    first, second = (everything.record(r, "everything-flow").outputs["artifacts"] for r in (here, there))
    assert {n: a[0]["digest"] for n, a in second.items()} == {n: a[0]["digest"] for n, a in first.items()}
    assert second["metrics"][0]["metadata"]["loss"] == 2


def test_the_key_is_made_of_the_flow_what_it_imports_and_its_parameters(keyed: Work) -> None:
    assert not keyed.cached(keyed.run())
    (keyed.root / "unrelated.py").write_text("x = 1\n")
    keyed.file.write_text(KEYED_PIPELINE + "\n# the pipeline is not the flow\n")
    assert keyed.cached(keyed.run())
    assert not keyed.cached(keyed.run({"n": 2}))
    (keyed.root / "helper.py").write_text("def double(x):\n    return 4 * x\n")
    assert not keyed.cached(keyed.run()), "what stands beside the flow is the flow's"
    keyed.flow.write_text(KEYED + "\n# another flow\n")
    changed = keyed.run()
    assert not keyed.cached(changed)
    assert keyed.record(changed, "keyed-flow").outputs["artifacts"]["metrics"][0]["metadata"]["loss"] == 4


def test_a_flow_of_metaflows_own_tutorial_is_a_component_as_it_is(tmp_path: Path) -> None:
    import importlib.util

    spec = importlib.util.find_spec("metaflow")
    assert spec
    assert spec.origin
    shutil.copytree(Path(spec.origin).parent / "tutorials" / "01-playlist", tmp_path / "01-playlist")
    pipeline = HELD_PIPELINE[: HELD_PIPELINE.index("held =")] + (
        'made = flow_component(Path(__file__).parent / "01-playlist/playlist.py", artifacts={"playlist": list})\n'
        '@dsl.pipeline(name="films")\ndef pipeline(genre: str) -> list:\n'
        '    return made(genre=genre, recommendations=2).outputs["playlist"]\n'
    )
    run = Work(tmp_path, "", pipeline).run({"genre": "Drama"})
    assert run.state == "SUCCEEDED", run.outcome.error
    with (tmp_path / "01-playlist" / "movies.csv").open(newline="") as rows:
        dramas = [row["movie_title"] for row in csv.DictReader(rows) if "drama" in row["genres"].lower()]
    assert sorted(run.outputs["Output"]) == sorted(dramas)


def test_a_task_that_raised_is_told_with_the_users_frames_and_nothing_of_ours_or_metaflows(held: Work) -> None:
    run = held.run(held.given())
    assert run.state == "FAILED"
    error = run.outcome.error
    assert error
    assert (error["code"], error["message"]) == ("flow-failed", "ValueError: no marker yet")
    assert "step end of the flow HeldFlow, task HeldFlow/" in error["allowed"]
    [frame] = error["frames"]
    assert (frame["file"], frame["function"], frame["code"]) == (
        str(held.flow),
        "end",
        'raise ValueError("no marker yet")',
    )


def test_a_task_that_was_killed_is_told_with_the_end_of_the_log(held: Work) -> None:
    held.marker = held.beside / "it.die"
    error = held.run(held.given()).outcome.error
    assert error
    assert error["code"] == "flow-failed"
    assert "HeldFlow failed in step end" in error["message"]
    assert any("Step failure" in line for line in error["tail"])


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        ("self.next(self.end)", "self.next(self.nowhere)", "flow-refused", "unknown step, nowhere"),
        ("import os", "import os, not_there", "flow-refused", "No module named 'not_there'"),
        ("self.total = self.twice + 1", "pass", "flow-artifact", "has no artifact 'total'"),
        ("self.total = self.twice + 1", "self.total = 'five'", "flow-artifact", "'total' is a str"),
    ],
)
def test_what_metaflow_or_the_component_refuses_is_said(
    held: Work, old: str, new: str, code: str, message: str
) -> None:
    held.flow.write_text(HELD.replace(old, new))
    held.marker.touch()
    error = held.run(held.given()).outcome.error
    assert error
    assert error["code"] == code
    assert message in error["message"]


def test_a_retry_repeats_no_finished_task(held: Work) -> None:
    held.file.write_text(HELD_PIPELINE.replace("RETRIES", "1"))
    held.flow.write_text(HELD.replace('raise ValueError("no', 'open(self.marker, "w"); raise ValueError("no'))
    run = held.run(held.given())
    assert (run.state, run.outputs) == ("SUCCEEDED", {"Output": 5})
    assert held.noted() == ["start", "end", "end"]
    assert held.record(run, "held-flow").attempts == 2


def test_a_resumed_run_repeats_no_finished_task(held: Work) -> None:
    failed = held.run(held.given())
    assert held.noted() == ["start", "end"]
    held.marker.touch()
    again = held.run(resume=failed.id)
    assert (again.state, again.outputs) == ("SUCCEEDED", {"Output": 5})
    assert held.noted() == ["start", "end", "end"]
    assert "resumes run" in held.step_log(failed.id)


def test_a_resumed_flow_finds_its_artifacts_where_they_were(held: Work) -> None:
    held.flow.write_text(
        HELD.replace(
            'n = Parameter("n", default=2)', 'n = Parameter("n", default=2)\n    rows = Parameter("rows")'
        ).replace("self.total = self.twice + 1", "self.total = int(open(self.rows).read())")
    )
    (held.root / "rows.txt").write_text("77")
    held.file.write_text(
        HELD_PIPELINE.replace("RETRIES", "0")
        .replace('{"total": int})', '{"total": int}, parameters={"rows": dsl.Dataset})')
        .replace("n=n)", "n=n, rows=rows.output)")
        .replace(
            "    return",
            '    rows = dsl.importer(artifact_uri="file:rows.txt", artifact_class=dsl.Dataset)\n    return',
        )
    )
    failed = held.run(held.given())
    assert failed.outcome.error
    assert failed.outcome.error["message"] == "ValueError: no marker yet"
    held.marker.touch()
    again = held.run(resume=failed.id)
    assert (again.state, again.outputs) == ("SUCCEEDED", {"Output": 77})
    assert held.noted() == ["start", "end", "end"]


def test_a_killed_run_goes_on_where_the_flow_was(held: Work) -> None:
    held.marker = held.beside / "it.hold"
    words = [w for n, v in held.given().items() for w in ("-p", f"{n}={v}")]
    command = [sys.executable, "-m", "tidegate", "run", "pipeline.py", "--no-mirror", *words]
    process = subprocess.Popen(command, cwd=held.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not held.log.exists() or "end" not in held.noted():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    held.marker.touch()
    again = held.run(resume=Runs(held.store).last())
    assert (again.state, again.outputs) == ("SUCCEEDED", {"Output": 5})
    assert held.noted().count("start") == 1


class Pod:
    """The step of a flow as a pod starts it: a process with nothing but its executor input and its environment."""

    def __init__(self, work: Work, state: Path) -> None:
        self.work, self.state = work, state

    def run(self, n: int = 2, **env: str) -> tuple[int, str]:
        folder = self.work.root / "step"
        shutil.rmtree(folder, ignore_errors=True)
        output = {
            "outputFile": str(folder / "out.json"),
            "parameters": {"total": {"outputFile": str(folder / "total")}},
        }
        said = {"inputs": {"parameterValues": self.work.given(n=n)}, "outputs": output}
        parameters = [{"name": p, "type": t} for p, t in (("log", "str"), ("marker", "str"), ("n", "int"))]
        ours = {
            "TIDEGATE_LOADER": "tidegate.contrib.metaflow.step",
            "TIDEGATE_METAFLOW": json.dumps({"parameters": parameters, "artifacts": {"total": "int"}, "metrics": []}),
            "TIDEGATE_RUN_ID": "run-1",
            "TIDEGATE_STEP": "held-flow",
            "XDG_STATE_HOME": str(self.state),
        }
        command = [sys.executable, "-m", "tidegate.author.step", "--executor_input", json.dumps(said)]
        done = subprocess.run(
            [*command, "--function_to_execute", "flow.py:HeldFlow"],
            cwd=self.work.root, env={**os.environ, **ours, **env}, capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


def test_only_the_same_step_with_the_same_inputs_is_gone_on_with_and_only_where_its_disk_is(
    held: Work, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here, elsewhere = Pod(held, held.root / "state"), Pod(held, tmp_path_factory.mktemp("another disk"))
    assert here.run()[0] == 1
    held.marker.touch()
    assert "resumes run" not in here.run(n=3)[1], "another input"
    assert "resumes run" not in here.run(TIDEGATE_RUN_ID="run-2")[1], "another run"
    code, log = elsewhere.run()
    assert (code, "resumes run" in log) == (0, False), "a pod on another machine begins again"
    code, log = here.run()
    assert (code, "resumes run" in log) == (0, True)
    code, log = here.run()
    assert (code, "run to its end by Metaflow" in log) == (0, True), "what was lost after the end is taken out again"
    assert json.loads((held.root / "step/out.json").read_text())["parameterValues"] == {"total": 5}


def test_where_no_state_can_be_kept_the_flow_runs_all_the_same(held: Work) -> None:
    held.marker.touch()
    (held.root / "file").touch()
    code, log = Pod(held, held.root / "file" / "no-folder").run()
    assert (code, "tidegate-metaflow-" in log) == (0, True)


def test_metaflows_own_settings_say_where_runs_are_kept(held: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFLOW_DATASTORE_SYSROOT_LOCAL", str(held.root / "kept"))
    held.marker.touch()
    run = held.run(held.given())
    assert run.state == "SUCCEEDED"
    assert list((held.root / "kept/.metaflow/HeldFlow").glob("[0-9]*"))


@pytest.mark.long
def test_a_flow_whose_artifacts_are_in_a_bucket_is_gone_on_with(held: Work) -> None:
    import boto3

    with moto(free_port()) as endpoint:
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        client = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test")
        client.create_bucket(Bucket="flows")
        env = keys | {
            "METAFLOW_DEFAULT_DATASTORE": "s3",
            "METAFLOW_DATASTORE_SYSROOT_S3": "s3://flows/at",
            "METAFLOW_S3_ENDPOINT_URL": endpoint,
        }
        pod = Pod(held, held.root / "state")
        assert pod.run(**env)[0] == 1
        held.marker.touch()
        code, log = pod.run(**env)
    assert (code, "resumes run" in log) == (0, True)
    assert json.loads((held.root / "step/out.json").read_text())["parameterValues"] == {"total": 5}
    assert not list((held.root / "state").rglob("data")), "artifacts are in the bucket"


def test_without_metaflow_a_pipeline_compiles_and_its_step_says_what_to_install(
    held: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidegate.contrib.metaflow.client import connect

    code = (
        "import sys; sys.modules['metaflow'] = None\n"
        "from tidegate.cli import main\nsys.argv[1:] = ['compile', 'pipeline.py', '--to', 'ir']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=held.root, capture_output=True, text=True)
    assert "HeldFlow" in done.stdout, done.stderr
    monkeypatch.setitem(sys.modules, "metaflow", None)
    with pytest.raises(tidegate.TidegateError) as missing:
        connect(held.root)
    assert (missing.value.code, missing.value.hint) == ("metaflow-missing", "pip install 'tidegate[metaflow]'")


def test_tidegate_itself_never_imports_metaflow() -> None:
    code = (
        "import sys\nfrom tidegate.cli import main\nsys.argv[1:] = ['--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not [m for m in sys.modules if 'metaflow' in m]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_value_too_long_for_a_command_line_and_a_folder_for_a_file_are_refused(tmp_path: Path) -> None:
    from tidegate.contrib.metaflow.flow import Parameter
    from tidegate.contrib.metaflow.run import words

    assert words(Parameter("a-b", "dict"), {"x": [1, None]}) == ['--a-b={"x": [1, null]}']
    assert words(Parameter("a", "float"), None) == []
    with pytest.raises(StepFailed, match="has 140004 bytes"):
        words(Parameter("a", "str"), "x" * 140_000)
    with pytest.raises(StepFailed, match="is no file"):
        words(Parameter("a", "file"), str(tmp_path))
