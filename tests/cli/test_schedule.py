"""``tidegate schedule`` as a user meets it, on a cluster in memory: what is said, what is refused before anything is sent."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tidegate import cli
from tidegate.engines.argo.cluster import CRON_WORKFLOW, WORKFLOW, WORKFLOW_TEMPLATE
from tidegate.engines.argo.memory import MemoryCluster
from tidegate.engines.argo.packed import unpack
from tidegate.engines.argo.workflow import PLAN_ANNOTATION
from tidegate.engines.kfp.memory import MemoryBackend
from tidegate.errors import ClusterError
from tidegate.store.memory import MemoryStore
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "0" * 64
PIPELINE = """
from kfp import dsl

@dsl.container_component
def work(n: int):
    return dsl.ContainerSpec(image="registry.example/work@%s", command=["work"], args=[n])

@dsl.pipeline(name="tidal")
def tidal(n: int, text: str = "", flag: bool = False):
    work(n=n)
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Place:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.cluster, self.store, self._capsys = MemoryCluster(), MemoryStore("team"), capsys
        self.backend = MemoryBackend()

    def __call__(self, *args: str) -> Said:
        return self.main("schedule", *args)

    def main(self, *args: str) -> Said:
        code = cli._main([*args])
        out, err = self._capsys.readouterr()
        return Said(code, out, err)

    def apply(self, *args: str, cron: str = "0 3 * * *") -> Said:
        return self("apply", "pipeline.py", "--cron", cron, *args)

    @property
    def sent(self) -> list[str]:
        kinds = (CRON_WORKFLOW, WORKFLOW_TEMPLATE, WORKFLOW)
        return [o["metadata"]["name"] for kind in kinds for o in self.cluster.list(kind)]


@pytest.fixture
def tidegate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    place = Place(capsys)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "pipeline.py").write_text(PIPELINE % DIGEST)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_STORE", "s3://team/models")
    monkeypatch.setenv("TIDEGATE_ARGO_IMAGE", f"registry.example/tidegate@{DIGEST}")
    monkeypatch.setattr("tidegate.engines.argo.kube.open_cluster", lambda context="": place.cluster)
    monkeypatch.setattr("tidegate.engines.kfp.client.open_backend", lambda settings: place.backend)
    for module in ("tidegate.schedules", "tidegate.cli.schedule"):
        monkeypatch.setattr(f"{module}.open_store", lambda uri=None: place.store)
    return place


def test_apply_says_what_it_made_when_it_runs_next_and_what_becomes_of_overlap_and_missed_runs(tidegate: Place) -> None:
    said = tidegate.apply("-p", "n=3", "--timezone", "Asia/Kolkata")
    assert said.code == 0, said.err
    assert said.out.startswith("created tidal in pipelines\n  tidal at 0 3 * * * (Asia/Kolkata)\n  n = 3\n")
    assert said.out.count("next: ") == said.out.count(" 03:00 IST, here ") == 3
    assert "overlap: a run whose time comes while another goes on waits" in said.out
    assert (
        "missed: of what Argo's controller could not start in time, the latest starts if it is at most 600 s late"
        in said.out
    )
    again = tidegate.apply("-p", "n=4", "--concurrency", "allow", "--catch-up", "0", "--json").json
    assert again[0]["action"] == "updated"
    assert again[0]["changes"] == ["when it runs", "overlap", "catch-up", "parameter n"]
    assert len(again[0]["next"]) == 3
    assert tidegate.sent == ["tidal", "tidal"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--cron", "* * * * * *", "-p", "n=1"], "cron-invalid", "has 6 fields"),
        (["--cron", "* * * *", "-p", "n=1"], "cron-invalid", "has 4 fields"),
        (["--cron", "0 0 30 2 *", "-p", "n=1"], "cron-invalid", "never comes"),
        (["--cron", "0 0 * * 7", "-p", "n=1"], "cron-invalid", "Sunday is 0"),
        (["--cron", "@every 5m", "-p", "n=1"], "cron-invalid", "whenever the controller started"),
        (["--cron", "@daily", "--timezone", "Europe/Berlim", "-p", "n=1"], "timezone-unknown", "Europe/Berlin"),
        (["--cron", "@daily", "-p", "n=one"], "parameter-type", "an integer"),
        (["--cron", "@daily", "-p", "n=1", "-p", "flag=perhaps"], "parameter-type", "true or false"),
        (["--cron", "@daily", "-p", "n=1", "-p", "m=1"], "parameter-unknown", "flag, n, text"),
        (["--cron", "@daily"], "parameter-missing", "-p n="),
        (["--cron", "@daily", "-p", "n=1", "--name", "My Job"], "schedule-name", "a-z, 0-9"),
        (["--cron", "@daily", "-p", "n=1", "--store", "here"], "store-not-shared", "s3://"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_before_anything_is_sent(
    tidegate: Place, args: list[str], code: str, says: str
) -> None:
    said = tidegate("apply", "pipeline.py", *args)
    assert said.code == 2
    assert f"error[{code}]" in said.err
    assert says in said.err
    assert tidegate.sent == [*tidegate.store.list("")] == []


def test_images_by_tag_are_refused_before_anything_is_sent(tidegate: Place) -> None:
    Path("pipeline.py").write_text(PIPELINE.replace("@%s", ":latest"))
    assert "error[image-mutable]" in tidegate.apply("-p", "n=1").err
    assert tidegate.sent == []
    assert tidegate.apply("-p", "n=1", "--allow-tags").code == 0


def test_a_gate_may_only_be_tightened_by_a_schedule(tidegate: Place) -> None:
    said = tidegate("apply", str(ROOT / "pipelines/iris/pipeline.py"), "--cron", "@daily", "-p", "min_accuracy=0.5")
    assert said.code == 2
    assert "min_accuracy" in said.err
    assert tidegate.sent == []


def test_a_dry_run_says_the_same_and_sends_nothing(tidegate: Place) -> None:
    said = tidegate.apply("-p", "n=3", "-p", f"text={'x' * 9000}", "--dry-run")
    assert said.code == 0
    assert "checked tidal in pipelines; nothing was sent" in said.out
    assert "text = sha256:" in said.out
    assert tidegate.sent == [*tidegate.store.list("")] == []


def test_suspension_survives_an_apply_unless_said_otherwise(tidegate: Place) -> None:
    tidegate.apply("-p", "n=3")
    assert tidegate("suspend", "tidal").out == "tidal is suspended\n"
    assert tidegate("suspend", "tidal").out == "tidal was suspended already\n"
    assert "suspended  → tidegate schedule resume tidal" in tidegate.apply("-p", "n=4").out
    assert tidegate("ls", "--json").json[0]["next"] is None
    assert "suspended" not in tidegate.apply("-p", "n=4", "--no-suspended").out
    assert "suspended  →" in tidegate.apply("-p", "n=4", "--suspended").out
    assert tidegate("resume", "tidal").out == "tidal runs at 0 3 * * * (UTC)\n"


def test_a_run_right_now_takes_typed_parameters_and_refuses_wrong_ones(tidegate: Place) -> None:
    tidegate.apply("-p", "n=3", "-p", "text=kept")
    refused = tidegate("run", "tidal", "-p", "n=soon")
    assert (refused.code, [*tidegate.cluster.list(WORKFLOW)]) == (2, [])
    (said,) = tidegate("run", "tidal", "-p", "n=7", "--json").json
    (run,) = tidegate.cluster.list(WORKFLOW)
    assert run["metadata"]["name"] == said["run_id"]
    assert {p["name"]: p["value"] for p in run["spec"]["arguments"]["parameters"]} == {"n": "7", "text": '"kept"'}
    assert said["run_id"] in tidegate("history", "tidal").out
    assert f"last {said['run_id']} PENDING" in tidegate("ls").out


def test_a_run_right_now_is_whose_who_typed_it_and_one_by_the_clock_whose_who_made_the_schedule(
    tidegate: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_USER", "maker")
    tidegate.apply("-p", "n=3", "-p", f"text={'x' * 9000}")
    monkeypatch.setenv("TIDEGATE_USER", "typist")
    (said,) = tidegate("run", "tidal", "-p", "n=7", "--json").json
    record = Runs(tidegate.store).read(said["run_id"])
    assert (record.user, record.engine) == ("typist", "argo")
    assert record.parameters == {"n": 7, "text": "x" * 9000, "flag": False}
    template = tidegate.cluster.find(WORKFLOW_TEMPLATE, "tidal", "pipelines")
    assert unpack(template["spec"]["podMetadata"]["annotations"][PLAN_ANNOTATION]).origin["user"] == "maker"  # type: ignore[index]


def test_a_run_is_stopped_from_elsewhere_once(tidegate: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.cli.runs.open_store", lambda uri=None: tidegate.store)
    tidegate.apply("-p", "n=3")
    (said,) = tidegate("run", "tidal", "--json").json
    assert tidegate.main("runs", "stop", said["run_id"]).out == f"run {said['run_id']} was told to end\n"
    (run,) = tidegate.cluster.list(WORKFLOW)
    assert run["spec"]["shutdown"] == "Terminate"
    Runs(tidegate.store).finish(said["run_id"], OutcomeRecord("CANCELED"))
    assert "error[run-ended]" in tidegate.main("runs", "stop", said["run_id"]).err
    Runs(tidegate.store).create(RunRecord("here", "p", "sha256:0"))
    assert "error[run-here]" in tidegate.main("runs", "stop", "here").err


def test_nothing_there_is_said(tidegate: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.cli.runs.open_store", lambda uri=None: tidegate.store)
    assert tidegate("ls") == (0, "", "no schedules in the namespace pipelines\n")
    assert tidegate.main("runs", "ls") == (0, "", "no runs in memory:team\n")


def test_rm_names_the_runs_that_go_on(tidegate: Place) -> None:
    tidegate.apply("-p", "n=3")
    (said,) = tidegate("run", "tidal", "--json").json
    tidegate.cluster.patch(WORKFLOW, said["run_id"], "pipelines", {"status": {"phase": "Running"}})
    assert tidegate("rm", "tidal").out == f"removed tidal\n  {said['run_id']} goes on\n"
    assert tidegate.sent == [said["run_id"]]
    gone = tidegate("rm", "tidal")
    assert (gone.code, "error[schedule-not-found]" in gone.err) == (2, True)


def test_a_history_outlives_its_schedule_and_what_never_was_is_said(tidegate: Place) -> None:
    tidegate.apply("-p", "n=3")
    assert (tidegate("history", "tidal").code, tidegate("history", "tidal").out) == (0, "")
    (said,) = tidegate("run", "tidal", "--json").json
    tidegate.cluster.patch(WORKFLOW, said["run_id"], "pipelines", {"status": {"phase": "Running"}})
    tidegate("rm", "tidal")
    assert said["run_id"] in tidegate("history", "tidal").out
    assert "error[schedule-not-found]" in tidegate("history", "never").err


def test_compile_refuses_what_apply_refuses(tidegate: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in (
        (["--cron", "0 0 * * 7"], "cron-invalid"),
        (["--cron", "@daily", "--timezone", "X"], "timezone-unknown"),
        (["--cron", "@daily"], "parameter-missing"),
    ):
        assert cli._main(["compile", "pipeline.py", "--to", "argo-cron", *words]) == 2
        assert f"error[{code}]" in capsys.readouterr().err


def test_a_name_taken_by_something_else_is_refused(tidegate: Place) -> None:
    tidegate.cluster.create(
        {
            "apiVersion": CRON_WORKFLOW.api,
            "kind": "CronWorkflow",
            "metadata": {"name": "tidal", "namespace": "pipelines"},
        }
    )
    assert "error[schedule-foreign]" in tidegate.apply("-p", "n=3").err
    assert tidegate("rm", "tidal").code == 2
    assert tidegate.apply("-p", "n=3", "--name", "ours").code == 0


def test_ls_with_a_file_says_that_a_schedule_runs_another_definition(tidegate: Place) -> None:
    tidegate.apply("-p", "n=3")
    assert tidegate("ls", "pipeline.py", "--json").json[0]["drift"] is False
    Path("changed.py").write_text(PIPELINE.replace('["work"]', '["another"]') % DIGEST)
    assert tidegate("ls", "changed.py", "--json").json[0]["drift"] is True
    assert "differs from this working tree" in tidegate("ls", "changed.py").out
    assert tidegate("ls", "--json").json[0]["drift"] is None


def test_the_commands_on_the_page_work_one_after_another(tidegate: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.engines.argo.schedule.SETTLE_TRIES", 1)  # no controller looks at the run
    page = (
        (ROOT / "docs" / "argo.md")
        .read_text()
        .partition("## Schedule")[2]
        .partition("```console")[2]
        .partition("```")[0]
    )
    Path("iris.py").write_text(
        PIPELINE.replace('"tidal"', '"iris"').replace("tidal(n: int", "tidal(seed: int").replace("n=n", "n=seed")
        % DIGEST
    )
    shown = [shlex.split(line, comments=True)[3:] for line in page.splitlines() if line.startswith("$ ")]
    assert [words[0] for words in shown] == ["apply", "ls", "run", "history", "suspend", "resume", "rm"]
    for words in shown:
        said = tidegate(*("iris.py" if w == "pipelines/iris/pipeline.py" else w for w in words))
        assert said.code == 0, said.err
        if words[0] == "apply":
            assert [*map(_without_moments, said.out.splitlines())] == [*map(_without_moments, page.splitlines()[2:10])]


def _without_moments(line: str) -> str:
    return line.partition("next: ")[0]


def test_help_imports_nothing_of_kubernetes() -> None:
    code = (
        "import sys; from tidegate import cli; cli._main(['schedule', 'apply', '--help']); cli._main(['--help']); "
        "print([m for m in sys.modules if m.split('.')[0] in ('kubernetes', 'hera')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# schedules.toml

FILE = """
[nightly]
pipeline = "pipeline.py"
cron = "0 3 * * *"
parameters = { n = 1 }

[hourly]
pipeline = "pipeline.py:tidal"
cron = "0 * * * *"
timezone = "Europe/Berlin"
concurrency = "replace"
catch-up = 60
suspended = true
parameters = { n = 2, text = "x" }
"""


def test_a_file_is_brought_to_the_cluster_and_the_second_time_changes_nothing(tidegate: Place) -> None:
    Path("schedules.toml").write_text(FILE)
    said = tidegate("apply")
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        f"+ {'nightly':<24}  0 3 * * * (UTC)",
        f"+ {'hourly':<24}  0 * * * * (Europe/Berlin)",
        "created nightly",
        "created hourly",
    ]
    assert tidegate.sent == ["hourly", "nightly"] * 2
    spec = tidegate.cluster.find(CRON_WORKFLOW, "hourly", "pipelines")["spec"]  # type: ignore[index]
    assert (spec["concurrencyPolicy"], spec["startingDeadlineSeconds"], spec["suspend"]) == ("Replace", 60, True)
    before = [tidegate.cluster.find(CRON_WORKFLOW, n, "pipelines") for n in ("nightly", "hourly")]
    assert tidegate("apply").out.count("= ") == 2
    assert [r["action"] for r in tidegate("apply", "--json").json] == ["unchanged"] * 2
    assert before == [tidegate.cluster.find(CRON_WORKFLOW, n, "pipelines") for n in ("nightly", "hourly")]


def test_what_changed_is_shown_before_and_a_dry_run_sends_nothing(tidegate: Place) -> None:
    Path("schedules.toml").write_text(FILE)
    tidegate("apply")
    Path("schedules.toml").write_text(FILE.replace("n = 1", "n = 9").replace("0 * * * *", "30 * * * *"))
    rehearsed = tidegate("apply", "--dry-run")
    assert "~ nightly" in rehearsed.out
    assert "parameter n" in rehearsed.out
    assert rehearsed.out == tidegate("apply", "--dry-run").out
    assert [r["changes"] for r in tidegate("apply", "--json").json] == [["parameter n"], ["when it runs"]]


def test_only_what_came_from_the_file_is_pruned_and_only_when_asked(tidegate: Place) -> None:
    Path("schedules.toml").write_text(FILE)
    tidegate("apply")
    tidegate.apply("-p", "n=3", "--name", "by-hand")
    tidegate.apply("-p", "n=3", "--name", "nightly")
    Path("schedules.toml").write_text(FILE[FILE.index("[hourly]") :])
    assert "nightly" in tidegate("apply").out
    assert "by-hand" not in tidegate("apply").out
    assert "nightly" in tidegate.sent
    assert "removed nightly" in tidegate("apply", "--prune", "--yes").out
    assert sorted(set(tidegate.sent)) == ["by-hand", "hourly"]


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("[a]\ncron = '@daily'", "schedules-invalid", "no pipeline"),
        ("[a]\npipeline = 'pipeline.py'", "schedules-invalid", "no cron"),
        ("[a]\npipeline = 'pipeline.py'\ncron = 3", "schedules-invalid", "five fields"),
        ("[a]\npipeline = 'pipeline.py'\ncrom = '@daily'", "schedules-invalid", "cron = …"),
        ("[a]\npipeline = 'pipeline.py'\ncron = '@daily'\ncatch-up = -1", "schedules-invalid", "0 or more"),
        ("[a]\npipeline = 'pipeline.py'\ncron = '@daily'\ncatch-up = true", "schedules-invalid", "number of seconds"),
        ("[a]\npipeline = 'pipeline.py'\ncron = '@daily'\nconcurrency = 'Forbid'", "schedules-invalid", "forbid, allow"),
        ("[a]\npipeline = 'pipeline.py'\ncron = '@daily'\nparameters = { n = 2026-01-01 }", "schedules-invalid", "quotes"),
        ("a = 1", "schedules-invalid", "no table"),
        ("[a", "schedules-invalid", "cannot be read"),
        (f"{FILE}[z]\npipeline = 'pipeline.py'\ncron = '61 * * * *'\nparameters = {{ n = 1 }}", "cron-invalid", "[z]: "),
        (f"{FILE}[z]\npipeline = 'pipeline.py'\ncron = '@daily'", "parameter-missing", "[z]: "),
        (f"{FILE}[Z]\npipeline = 'pipeline.py'\ncron = '@daily'\nparameters = {{ n = 1 }}", "schedule-name", "[Z]: "),
        (f"{FILE}[z]\npipeline = 'gone.py'\ncron = '@daily'", "not-found", "gone.py"),
    ],
)  # fmt: skip
def test_one_wrong_schedule_of_a_file_keeps_all_from_being_sent(
    tidegate: Place, text: str, code: str, says: str
) -> None:
    Path("schedules.toml").write_text(text)
    said = tidegate("apply")
    assert said.code == 2
    assert f"error[{code}]" in said.err
    assert says in said.err
    assert tidegate.sent == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["pipeline.py"], "nothing says when it runs"),
        (["pipeline.py", "--cron", "@daily", "--prune"], "--prune is of a file of schedules"),
        (["--cron", "@daily"], "--cron is of one schedule"),
        (["-p", "n=1"], "--param is of one schedule"),
    ],
)
def test_options_of_one_schedule_and_of_a_file_are_kept_apart(tidegate: Place, args: list[str], says: str) -> None:
    said = tidegate("apply", *args)
    assert said.code == 2
    assert says in said.err
    assert tidegate("apply").err.startswith("error[schedules-missing]")


# ── Kubeflow Pipelines ───────────────────────────────────────────────────────────────────────────────────────────────

KFP = ("--engine", "kfp")


def test_the_same_commands_keep_a_schedule_on_kubeflow_pipelines(tidegate: Place) -> None:
    made = tidegate.apply("-p", "n=3", *KFP, cron="0 3 * * 1-5")
    assert made.code == 0
    assert made.out.startswith("created tidal in the experiment ")
    assert "however late it is: KFP knows no limit" in made.out
    assert tidegate.apply("-p", "n=3", *KFP, cron="0 3 * * 1-5").out.startswith("unchanged tidal")
    assert tidegate.apply("-p", "n=4", *KFP, cron="0 3 * * 1-5").out.startswith("updated tidal in the experiment ")
    assert "next " in tidegate("ls", *KFP).out
    assert tidegate("suspend", "tidal", *KFP).out == "tidal is suspended\n"
    assert "tidal runs at 0 3 * * 1-5 (UTC)" in tidegate("resume", "tidal", *KFP).out
    [started] = tidegate("run", "tidal", "-p", "n=5", "--json", *KFP).json
    assert tidegate.backend.run(started["run_id"]).parameters == {"n": 5}
    assert tidegate("rm", "tidal", *KFP).out == "removed tidal\n"
    assert "no schedules in the experiment" in tidegate("ls", *KFP).err


def test_a_recurring_run_may_count_seconds_and_a_cron_workflow_may_not(tidegate: Place) -> None:
    every = tidegate("apply", "pipeline.py", "-p", "n=3", "--interval", "3600", *KFP)
    assert "tidal every 3600 s" in every.out
    assert "every 3600 s" in tidegate("ls", *KFP).out
    refused = tidegate("apply", "pipeline.py", "-p", "n=3", "--interval", "3600")
    assert (refused.code, "schedule-interval" in refused.err) == (2, True)
    both = tidegate("apply", "pipeline.py", "-p", "n=3", "--interval", "3600", "--cron", "@daily", *KFP)
    assert (both.code, "One of them" in both.err) == (2, True)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--timezone", "Europe/Berlin"], "kfp-timezone"),
        (["--concurrency", "replace"], "kfp-concurrency"),
        (["-p", "text=" + "x" * 200_000], "kfp-too-large"),
        (["--store", "here"], "store-not-shared"),
    ],
)
def test_what_kubeflow_pipelines_cannot_do_is_refused_before_anything_is_sent(
    tidegate: Place, args: list[str], code: str
) -> None:
    refused = tidegate.apply("-p", "n=3", *args, *KFP)
    assert (refused.code, f"error[{code}]" in refused.err) == (2, True)
    assert not tidegate.backend.packages


def test_a_file_of_schedules_is_brought_to_kubeflow_pipelines_and_the_second_time_changes_nothing(
    tidegate: Place,
) -> None:
    Path("schedules.toml").write_text(FILE)
    refused = tidegate("apply", "--yes", *KFP)
    assert (refused.code, "[hourly]: KFP cannot end a run" in refused.err, tidegate.backend.packages) == (2, True, {})
    fits = FILE.replace("replace", "allow").replace("Europe/Berlin", "UTC")
    Path("schedules.toml").write_text(fits)
    assert tidegate("apply", "--yes", *KFP).out.count("created ") == 2
    assert [line[0] for line in tidegate("apply", "--yes", *KFP).out.splitlines()] == ["=", "="]
    Path("schedules.toml").write_text(fits[fits.index("[hourly]") :])
    assert "removed nightly" in tidegate("apply", "--yes", "--prune", *KFP).out


def test_a_run_of_kubeflow_pipelines_is_stopped_from_elsewhere_and_its_end_is_written_by_whoever_looks(
    tidegate: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.cli.runs.open_store", lambda uri=None: tidegate.store)
    tidegate.apply("-p", "n=3", *KFP)
    [started] = tidegate("run", "tidal", "--json", *KFP).json
    assert "RUNNING" in tidegate.main("runs", "show", started["run_id"]).out
    assert "was told to end" in tidegate.main("runs", "stop", started["run_id"]).out
    assert "FAILED" in tidegate.main("runs", "show", started["run_id"]).out
    assert tidegate.main("runs", "stop", started["run_id"]).code == 3


def test_a_dry_run_lists_what_is_changed_for_kubeflow_pipelines(tidegate: Place) -> None:
    said = tidegate.main("run", "pipeline.py", "-p", "n=3", "--dry-run", *KFP)
    assert said.out.splitlines() == [
        "tidal: 1 steps, nothing was run",
        "  work",
        "changed for Kubeflow Pipelines:",
        "  nothing",
    ]


def test_doctor_says_which_backend_there_is_and_what_it_cannot_see(
    tidegate: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.cli.doctor.open_store", lambda uri=None: tidegate.store)
    said = tidegate.main("doctor", *KFP)
    assert said.code == 0
    assert "ok  Kubeflow Pipelines 2.14.3 at memory:kfp" in said.out
    assert "?   the Secrets tidegate-store and tidegate-store-registrar" in said.out
    assert tidegate.main("doctor", "--store", "here", *KFP).code == 3


def test_doctor_makes_nothing_and_says_what_is_not_there_yet(tidegate: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.cli.doctor.open_store", lambda uri=None: tidegate.store)
    said = tidegate.main("doctor", *KFP)
    assert "not there yet: the first run makes it" in said.out
    assert tidegate.backend.find_experiment(Path.cwd().name) is None


def test_a_time_zone_that_there_is_not_is_said_where_it_is_read_with_the_one_that_was_meant(
    tidegate: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("schedules.toml").write_text(FILE.replace("Europe/Berlin", "Europe/Berlim"))
    for args in (["schedule", "apply"], ["watch"]):
        said = tidegate.main(*args)
        assert (said.code, said.err.splitlines()[0]) == (
            2,
            f"error[timezone-unknown]: [hourly] in {Path.cwd() / 'schedules.toml'}: there is no time zone 'Europe/Berlim'",
        )
        assert '→ timezone = "Europe/Berlin"' in said.err
    assert "BAD schedules.toml: [hourly]" in tidegate.main("doctor", *KFP).out
    monkeypatch.setenv("TIDEGATE_KFP_TIMEZONE", "Asia/Kolkatta")
    said = tidegate("ls", *KFP)
    assert (said.code, "error[timezone-unknown]: the setting timezone" in said.err) == (2, True)
    assert 'timezone = "Asia/Kolkata"' in said.err
    doctor = tidegate.main("doctor", *KFP)
    assert (doctor.code, "BAD the setting timezone" in doctor.out) == (3, True)


@pytest.mark.parametrize(
    ("args", "code", "next_"),
    [
        (["run", "-p", "n=1", "-p", "x=NaN", "--dry-run", *KFP], "kfp-number", "Declare the parameter as str"),
        (["schedule", "apply", "-p", "n=1", "--cron", "0 * * * * *"], "cron-invalid", "Without seconds: '* * * * *'"),
        (["schedule", "apply", "-p", "n=1", "--cron", "61 * * * *"], "cron-invalid", "'0 3 * * 1-5' is"),
        (["schedule", "apply", "-p", "n=1", "--cron", "@dayly"], "cron-invalid", "@daily"),
        (["schedule", "apply", "-p", "n=1", "--cron", "@daily", "--name", "My Job"], "schedule-name", "--name my-job"),
        (
            ["schedule", "apply", "-p", "n=1", "--cron", "@daily", "--concurrency", "replace", *KFP],
            "kfp-concurrency",
            "--concurrency forbid",
        ),
    ],
)
def test_what_is_refused_says_what_to_type_instead(tidegate: Place, args: list[str], code: str, next_: str) -> None:
    Path("pipeline.py").write_text((PIPELINE % DIGEST).replace("flag: bool = False", "x: float = 0.5"))
    verb = args.index("-p")
    said = tidegate.main(*args[:verb], "pipeline.py", *args[verb:])
    assert (said.code, f"error[{code}]" in said.err) == (2, True)
    assert f"→ {next_}" in said.err


@pytest.mark.parametrize("engine", [(), KFP])
def test_a_schedule_that_is_not_there_is_answered_with_those_that_are_or_how_one_is_made(
    tidegate: Place, engine: tuple[str, ...]
) -> None:
    assert "→ tidegate schedule apply FILE --cron EXPR" in tidegate("suspend", "nightly", *engine).err
    tidegate.apply("-p", "n=1", *engine)
    said = tidegate("suspend", "nightly", *engine).err
    assert "One of: tidal." in said
    assert "→ tidegate schedule ls" in said


def test_an_address_without_its_scheme_is_answered_with_one_that_has_it(
    tidegate: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_KFP_HOST", "127.0.0.1:8888")
    assert '→ host = "http://127.0.0.1:8888"' in tidegate("ls", *KFP).err


def test_a_run_of_a_kfp_that_is_away_is_shown_as_the_store_knows_it_with_what_to_do(
    tidegate: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.cli.runs.open_store", lambda uri=None: tidegate.store)
    tidegate.apply("-p", "n=3", *KFP)
    [started] = tidegate("run", "tidal", "--json", *KFP).json

    def away(settings: object) -> MemoryBackend:
        raise ClusterError("Kubeflow Pipelines at x cannot be reached", hint="port-forward", code="kfp-unreachable")

    monkeypatch.setattr("tidegate.engines.kfp.client.open_backend", away)
    shown = tidegate.main("runs", "show", started["run_id"])
    assert (shown.code, "RUNNING" in shown.out) == (0, True)
    assert "what the store knows" in shown.err
    assert "→ port-forward" in shown.err
    doctor = tidegate.main("doctor", *KFP)
    assert (doctor.code, "BAD Kubeflow Pipelines at x cannot be reached  → port-forward" in doctor.out) == (3, True)


def test_a_run_that_kfp_named_is_shown_by_the_name_that_a_watcher_says(
    tidegate: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.cli.runs.open_store", lambda uri=None: tidegate.store)
    tidegate.apply("-p", "n=3", *KFP)
    [started] = tidegate("run", "tidal", "--json", *KFP).json
    Runs(tidegate.store).name("tidal-0123456789abcdef", started["run_id"])
    assert f"run {started['run_id']}" in tidegate.main("runs", "show", "tidal-0123456789abcdef").out
    assert "told to end" in tidegate.main("runs", "stop", "tidal-0123456789abcdef").out
    assert [r["run_id"] for r in tidegate.main("runs", "ls", "--json").json] == [started["run_id"]]


def test_a_recurring_run_that_watches_starts_what_is_new_and_stops_where_nothing_is(
    tidegate: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tidegate.api", "tidegate.cli.watch", "tidegate.cli.runs"):
        monkeypatch.setattr(f"{module}.open_store", lambda uri=None: tidegate.store)
    backend = tidegate.backend
    Path("recurring.py").write_text((ROOT / "manifests/watch/recurring.py").read_text())
    made = tidegate("apply", "recurring.py", "--cron", "*/5 * * * *", "-p", "data=text=file:rows.csv", *KFP)
    assert made.code == 0, made.err
    [(version, package)] = backend.packages.items()
    spec, platforms = yaml.safe_load_all(package)
    assert spec["root"]["dag"]["tasks"]["look"]["cachingOptions"] == {}, "a second look is no repetition of the first"
    assert "tidegate-store-submit" in str(platforms)
    [recurring] = backend.recurring(backend.experiment(Path.cwd().name))
    command = spec["deploymentSpec"]["executors"]["exec-look"]["container"]["command"]
    data = {"{{$.inputs.parameters['data']}}": recurring.parameters["data"], "/watch/pipeline.yaml": "pipeline.py"}
    words = [data.get(word, word) for word in command[1:]]
    Path("pipeline.py").write_text((PIPELINE % DIGEST).replace("n: int, text", "n: int = 1, text"))
    real = backend.run
    monkeypatch.setattr(backend, "run", lambda run_id: replace(real(run_id), state="SUCCEEDED"))

    def look() -> Said:
        assert backend.fire(recurring.id).parameters == {"data": "text=file:rows.csv"}
        return tidegate.main(*words, "--quiet", "0")

    def started() -> list[str]:
        return [s.name for s in backend.starts.values() if s.version.id != version]

    assert (look().code, started()) == (2, []), "there is no data yet"
    Path("rows.csv").write_text("1,2")
    said = look()
    assert (said.code, len(started())) == (0, 1), said.err
    assert started()[0] in said.out
    assert "pipeline tidal" in tidegate.main("runs", "show", started()[0]).out
    assert ("not-new" in look().out, len(started())) == (True, 1)
    Path("rows.csv").write_text("1,3")
    assert (look().code, len(started())) == (0, 2)
