"""``tidegate watch`` as a user meets it: real runs on this machine, started by data."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.registry.made import candidate
from tests.servers import data_bucket, free_port, minio, moto, wait_until
from tidegate import cli
from tidegate.registry.register import register
from tidegate.store.local import LocalStore

PIPELINE = """
from kfp import dsl
import tidegate
from steps.work import count

@dsl.pipeline(name="Tidal counts")
def tidal(data: str, factor: int = 1, fail: bool = False, wait: str = "") -> int:
    return count(pin=data, factor=factor, fail=fail, wait=wait).output
"""
STEPS = """
import tidegate

@tidegate.component
def count(pin: str, factor: int, fail: bool, wait: str) -> int:
    import os, pathlib, tempfile, time
    from tidegate.data import ref

    while wait and not os.path.exists(wait):
        time.sleep(0.02)
    if fail and not pathlib.Path(os.environ["TIDEGATE_PROJECT"], "mended").exists():
        raise RuntimeError("it cannot be")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "data")
        ref.fetch(pin, path)
        return factor * len(path.read_text().split())
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").write_text("[tool.tidegate]\nmlflow = false\n")
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "__init__.py").touch()
    (tmp_path / "steps" / "work.py").write_text(STEPS)
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "rows").write_text("a b c")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*args: str, quiet: str = "0") -> list[str]:
    return ["watch", "pipeline.py", "--data", "data=file:rows", "--poll", "0.1", "--quiet", quiet, *args]


@pytest.fixture
def tidegate(project: Path) -> Callable[..., Said]:
    def call(*args: str) -> Said:
        words = [sys.executable, "-m", "tidegate", *args]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr.replace("| Traceback", ""), done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    return call


def states(project: Path) -> list[str]:
    return sorted(json.loads(p.read_text())["state"] for p in project.glob(".tidegate/runs/*/outcome.json"))


def test_new_data_has_one_run_and_the_history_says_why(project: Path, tidegate: Callable[..., Said]) -> None:
    first = tidegate(*command("--once", "-p", "factor=2"))
    assert first.code == 0, first.err
    assert "✓ count" in first.out
    assert "ran: run tidal-counts-" in first.out
    assert "  Output = 6\n" in first.out
    [again] = tidegate(*command("--once", "-p", "factor=2", "--json")).json
    assert (again["reason"], again["state"], len(states(project))) == ("not-new", "SUCCEEDED", 1)
    assert again["data"]["data"].startswith("file:/")
    (project / "rows").write_text("a b c d")
    second = tidegate(*command("--once", "-p", "factor=2"))
    assert second.out.count("ran: run") == 1
    shown = tidegate("runs", "show", again["run_id"])
    assert '"factor": 2' in shown.out
    history = tidegate("schedule", "history", "tidal-counts").out.splitlines()
    assert [line.split()[1] for line in history] == ["ended", "started", "waiting", "ended", "started"]
    assert "new data: file:/" in history[1]
    assert "after 1 look  " in history[2]
    body = tidegate("schedule", "history", "tidal-counts", "--json", "-n", "1").json
    assert body[0]["reason"] == "SUCCEEDED"


def test_a_failed_run_ends_with_1_and_is_not_repeated(project: Path, tidegate: Callable[..., Said]) -> None:
    said = tidegate(*command("--once", "-p", "fail=true"))
    assert (said.code, "FAILED" in said.out) == (1, True)
    assert tidegate(*command("--once", "-p", "fail=true")).out.startswith("not-new: ")
    assert states(project) == ["FAILED"]


def test_ctrl_c_ends_with_130_and_the_next_watcher_goes_on_with_the_run(
    project: Path, tidegate: Callable[..., Said]
) -> None:
    words = command("-p", f"wait={project}/go")
    process = subprocess.Popen([sys.executable, "-m", "tidegate", *words], start_new_session=True)
    try:
        wait_until(lambda: any(project.glob(".tidegate/runs/*/run.json")))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    (project / "go").touch()
    said = tidegate(*words, "--once")
    assert said.code == 0, said.err
    assert states(project) == ["SUCCEEDED"]


def test_a_failed_run_goes_on_by_what_the_watcher_says_to_type(project: Path, tidegate: Callable[..., Said]) -> None:
    store = str(project / "elsewhere")
    words = command("--once", "-p", "fail=true", "--store", store)
    [hint] = [line for line in tidegate(*words).out.splitlines() if "when it is mended" in line]
    assert hint in tidegate(*words).out, "and again, as long as nobody did"
    (project / "mended").touch()
    said = tidegate(*shlex.split(hint.partition(": tidegate ")[2]))
    assert (said.code, "Output = 3" in said.out) == (0, True), said.err
    assert "when it is mended" not in tidegate(*words).out


@pytest.mark.long
def test_a_killed_watchers_run_is_taken_over_after_the_lease(project: Path, tidegate: Callable[..., Said]) -> None:
    words = command("-p", f"wait={project}/go", "--lease", "2")
    process = subprocess.Popen([sys.executable, "-m", "tidegate", *words], start_new_session=True)
    wait_until(lambda: any(project.glob(".tidegate/runs/*/run.json")))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (project / "go").touch()
    other = subprocess.Popen([sys.executable, "-m", "tidegate", *words], start_new_session=True)
    try:
        wait_until(lambda: any(project.glob(".tidegate/claims/*/done")))
    finally:
        other.send_signal(signal.SIGINT)
        assert other.wait(60) == 130
    assert states(project) == ["SUCCEEDED"]
    assert len([*project.glob(".tidegate/claims/*/00000[0-9]")]) == 2


@pytest.mark.long
def test_a_holder_stopped_past_its_lease_and_continued_leaves_one_outcome(project: Path) -> None:
    words = [sys.executable, "-m", "tidegate", *command("-p", f"wait={project}/go", "--lease", "2")]
    holder = subprocess.Popen(words, start_new_session=True)
    wait_until(lambda: any(project.glob(".tidegate/runs/*/run.json")))
    other = subprocess.Popen(words, start_new_session=True)
    try:
        holder.send_signal(signal.SIGSTOP)
        wait_until(lambda: any(project.glob(".tidegate/claims/*/000002")))
        holder.send_signal(signal.SIGCONT)
        (project / "go").touch()
        wait_until(lambda: any(project.glob(".tidegate/claims/*/done")))
    finally:
        for process in (holder, other):
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
    [done] = project.glob(".tidegate/claims/*/done")
    assert json.loads(done.read_text())["epoch"] == 2
    assert states(project) == ["SUCCEEDED"]


@contextmanager
def watching(*args: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A watcher that looks by itself once an hour."""
    words = [sys.executable, "-m", "tidegate", "watch", "pipeline.py", "--poll", "3600", "--quiet", "0", *args]
    process = subprocess.Popen(
        words, start_new_session=True, env={**os.environ, **(env or {})}, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 130, said


def test_a_webhook_wakes_the_watcher_long_before_its_next_look_and_its_secret_is_not_seen_by_steps(
    project: Path,
) -> None:
    secret = "s" * 32
    (project / "steps" / "work.py").write_text(STEPS.replace("    if fail:", LOOK_AROUND + "    if fail:"))
    with watching(
        "--data", "data=file:rows", "--listen", "127.0.0.1:0", env={"TIDEGATE_WEBHOOK_SECRET": secret}
    ) as process:
        assert process.stderr
        address = process.stderr.readline().split()[-1]
        wait_until(lambda: states(project) == ["SUCCEEDED"])
        (project / "rows").write_text("a b c d")
        body = b'{"ref": "refs/heads/main"}'
        signed = f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"
        call = urllib.request.Request(address, body, {"X-Hub-Signature-256": signed})
        with urllib.request.urlopen(call, timeout=60) as answer:
            assert answer.status == 202
        wait_until(lambda: states(project) == ["SUCCEEDED"] * 2)
    assert not (project / "seen").exists()


LOOK_AROUND = """
    here = pathlib.Path(pin.removeprefix("file:").partition("#")[0]).parent
    if any("s" * 32 in value for value in os.environ.values()):
        (here / "seen").touch()
"""


def test_a_queue_wakes_the_watcher_of_a_bucket_long_before_its_next_look(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    with moto(free_port()) as endpoint:
        bucket = data_bucket(endpoint, monkeypatch.setenv)
        queues = boto3.Session("k", "s", region_name="us-east-1").client("sqs", endpoint_url=endpoint)
        url = queues.create_queue(QueueName="hints")["QueueUrl"]
        arn = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        told = [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]
        bucket.client.put_bucket_notification_configuration(
            Bucket=bucket.name, NotificationConfiguration={"QueueConfigurations": told}
        )
        bucket.put("data", "a b c")
        with watching("--data", f"data={bucket.uri()}", "--notify", f"sqs:{url}"):
            wait_until(lambda: states(project) == ["SUCCEEDED"])
            bucket.put("data", "a b c d")
            wait_until(lambda: states(project) == ["SUCCEEDED"] * 2)


def test_a_minio_server_that_is_listened_to_wakes_the_watcher_or_the_watcher_says_that_it_does_not(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with minio(tmp_path_factory.mktemp("minio"), monkeypatch.setenv) as bucket:
        bucket.put("data", "a b c")
        with watching("--data", f"data={bucket.uri()}", "--notify", "minio") as process:
            wait_until(lambda: states(project) == ["SUCCEEDED"])
            assert process.stderr
            if (said := process.stderr.readline()).startswith("note:"):
                assert "the server says nothing for 5 s" in said
                return
            bucket.put("data", "a b c d")
            wait_until(lambda: states(project) == ["SUCCEEDED"] * 2)


def test_a_promoted_model_starts_the_pipeline_that_comes_after_it(
    project: Path, tidegate: Callable[..., Said], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = LocalStore(project / ".tidegate")
    for number in (1, 2):
        register(candidate(tmp_path_factory.mktemp("candidate"), number, alias="challenger"), store)
    (project / "steps" / "work.py").write_text(STEPS.replace("path.read_text()", "(path / 'weights').read_text()"))
    words = ["watch", "pipeline.py", "--data", "data=model:m@champion", "--once", "--json"]
    nothing = tidegate(*words)
    assert (nothing.code, nothing.json[0]["reason"]) == (2, "not-found")
    assert tidegate("model", "promote", "m:1").code == 0
    assert [tidegate(*words).json[-1]["reason"] for _ in range(2)] == ["ran", "not-new"]
    assert tidegate("model", "promote", "m:2").code == 0
    [second] = tidegate(*words).json
    assert (second["reason"], second["state"]) == ("ran", "SUCCEEDED")
    assert second["data"]["data"].startswith("model:m:2#digest=sha256:")
    assert tidegate("model", "promote", "m:1").code == 0
    assert tidegate(*words).json[0]["reason"] == "not-new", "it had its run"
    assert tidegate("data", "pin", "model:m@champion").out.startswith("model:m:1#digest=")


def test_the_commands_on_the_page_work_one_after_another(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "new-data.md").read_text()
    (project / "rows.csv").write_text("a b")
    (project / "pipeline.py").write_text(PIPELINE.replace("Tidal counts", "count"))
    binaries = tmp_path_factory.mktemp("bin")
    (binaries / "tidegate").write_text(f'#!/bin/sh\nexec {sys.executable} -m tidegate "$@"\n')
    (binaries / "tidegate").chmod(0o755)
    lines = [line[2:] for line in page.splitlines() if line.startswith("$ ")]
    env = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}
    said = [subprocess.check_output(["sh", "-c", line], text=True, env=env) for line in lines]
    assert len(said) == 5
    assert "ran: run count-" in said[3]
    assert "new data: file:/" in said[4]


@pytest.mark.parametrize(
    ("args", "exit_code", "code"),
    [
        (["--data", "rows=file:rows"], 2, "parameter-unknown"),
        (["--data", "factor=file:rows", "-p", "data=x"], 2, "parameter-type"),
        (["--data", "data=rows"], 2, "reference-invalid"),
        (["--data", "data"], 2, "parameter-syntax"),
        (["--data", "data=file:rows", "-p", "data=x"], 2, "parameter-twice"),
        (["--data", "data=file:rows", "-p", "factor=x"], 2, "parameter-type"),
        (["--data", "data=file:rows", "--name", "My Job"], 2, "trigger-name"),
        (["--data", "data=file:rows", "--quiet-hours", "9-17"], 2, "hours-invalid"),
        (["--data", "data=file:rows", "--timezone", "Europe/Berlim"], 2, "timezone-unknown"),
        (["--data", "data=file:rows", "--engine", "argo"], 2, "store-not-shared"),
        (["--data", "data=file:rows", "--listen", "127.0.0.1:0"], 2, "watch-once"),
        (["--data", "data=file:rows", "--secret-file", "x"], 2, "watch-what"),
        (["--data", "data=file:none"], 2, "not-found"),
        (["--data", "data=model:none@champion"], 2, "not-found"),
        (["--data", "data=model:No Name"], 2, "reference-invalid"),
        (["--data", "data=http://127.0.0.1:9/x"], 3, "data-unreachable"),
    ],
)  # fmt: skip
def test_a_mistake_gets_its_exit_code_before_anything_runs(
    project: Path, capsys: pytest.CaptureFixture[str], args: list[str], exit_code: int, code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("tidegate.cli.watch.listen_for_the_end", lambda: None)
    assert cli._main(["watch", "pipeline.py", "--once", *args]) == exit_code
    assert f"error[{code}]" in capsys.readouterr().err
    assert states(project) == []


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--listen", "8090"], "listen-invalid"),
        (["--listen", "127.0.0.1:0"], "webhook-secret"),
        (["--listen", "127.0.0.1:0", "--secret-file", "nowhere"], "webhook-secret"),
        (["--listen", "127.0.0.1:0", "--secret-file", "rows"], "webhook-secret"),
        (["--notify", "sqs"], "notify-invalid"),
        (["--notify", "kafka:x"], "notify-invalid"),
        (["--notify", "minio"], "notify-what"),
    ],
)
def test_a_mistake_about_what_wakes_the_watcher_is_said_before_anything_runs(
    project: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.cli.watch.listen_for_the_end", lambda: None)
    assert cli._main(["watch", "pipeline.py", "--data", "data=file:rows", *args]) == 2
    assert f"error[{code}]" in capsys.readouterr().err
    assert states(project) == []


def test_a_queue_that_is_not_there_is_said_before_anything_runs(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.cli.watch.listen_for_the_end", lambda: None)
    with moto(free_port()) as endpoint:
        data_bucket(endpoint, monkeypatch.setenv)
        words = ["watch", "pipeline.py", "--data", "data=file:rows", "--notify", f"sqs:{endpoint}/1/none"]
        assert cli._main(words) == 2
    assert "error[notify-refused]" in capsys.readouterr().err
    assert states(project) == []
