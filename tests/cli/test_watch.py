"""``tidegate watch`` as a user meets it: real runs on this machine, started by data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.servers import wait_until
from tidegate import cli

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
    if fail:
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
        (["--data", "data=file:none"], 2, "not-found"),
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
