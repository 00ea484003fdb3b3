"""``tidegate watch`` without a FILE: schedules.toml by the clock, as real processes."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.servers import wait_until
from tidegate.store.local import LocalStore
from tidegate.store.runs import Runs
from tidegate.trigger.history import History

PIPELINE = """
from kfp import dsl

@dsl.component(install_kfp_package=False)
def say(text: str) -> str:
    import pathlib, time
    while text and not pathlib.Path(text).exists():
        time.sleep(0.02)
    return text

@dsl.pipeline(name="said")
def said(text: str = "") -> str:
    return say(text=text).output
"""
FILE = '[nightly]\npipeline = "p.py"\ncron = "* * * * *"\nparameters = { text = "" }\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[tool.tidegate]\nmlflow = false\n")
    (tmp_path / "p.py").write_text(PIPELINE)
    (tmp_path / "schedules.toml").write_text(FILE)
    return tmp_path


def begun(project: Path, *words: str) -> "subprocess.Popen[str]":
    env = {**os.environ, "XDG_CACHE_HOME": str(project / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tidegate", "watch", *words]
    return subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def late(project: Path, seconds: float) -> LocalStore:
    """A store in which the schedule was last looked at some time ago: its moment has come already."""
    store = LocalStore(project / ".tidegate")
    over = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    store.put("triggers/nightly/clock", json.dumps({"over": over, "open": ""}).encode())
    return store


def ended(store: LocalStore) -> list[str]:
    return [h.reason for h in History(store, "nightly").newest() if h.kind == "ended"]


def test_a_schedule_runs_by_the_clock_until_it_is_told_to_end(project: Path) -> None:
    store = late(project, 90)
    process = begun(project)
    try:
        wait_until(lambda: "SUCCEEDED" in ended(store))
    finally:
        process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "nightly  * * * * * (UTC)" in err
    assert "Traceback" not in err + out
    record = next(iter(Runs(store).list(5)))
    assert record.parameters == {"text": ""}
    assert Runs(store).outcome(record.id)


def test_a_run_that_is_interrupted_is_gone_on_with_under_its_id(project: Path) -> None:
    store = late(project, 90)
    (project / "schedules.toml").write_text(FILE.replace('text = ""', f'text = "{project / "go"}"'))
    process = begun(project)
    wait_until(lambda: bool([*Runs(store).list(5)]))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    process.communicate()
    assert not ended(store)
    (project / "go").touch()
    again = begun(project)
    wait_until(lambda: "SUCCEEDED" in ended(store), 180)  # at the latest when the lease of the first is over
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=60)
    (first, *_) = reversed([h.run_id for h in History(store, "nightly").newest() if h.kind == "started"])
    assert first in [h.run_id for h in History(store, "nightly").newest() if h.kind == "ended"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (FILE.replace("* * * * *", "61 * * * *"), "cron-invalid"),
        (FILE.replace("p.py", "gone.py"), "not-found"),
        (FILE + 'timezone = "Mars"\n', "timezone-unknown"),
        (FILE.replace("{ text", "{ tekst"), "parameter-unknown"),
        (FILE + 'concurrency = "replace"\n', "schedule-concurrency"),
    ],
)
def test_a_file_that_cannot_run_is_refused_before_anything_runs(project: Path, text: str, code: str) -> None:
    (project / "schedules.toml").write_text(text)
    process = begun(project)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 2, err
    assert f"error[{code}]" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["p.py"], "nothing says what to watch"),
        (["--once"], "--once is of watching data"),
        (["--data", "text=file:p.py"], "--data is of watching data"),
        (["-p", "text=1"], "--param is of watching data"),
        (["p.py", "--data", "text=file:p.py", "--file", "schedules.toml"], "--file is of schedules.toml"),
    ],
)
def test_data_and_the_clock_are_kept_apart(project: Path, words: list[str], says: str) -> None:
    process = begun(project, *words)
    err = process.communicate(timeout=60)[1]
    assert (process.returncode, f"error[watch-what]: {says}" in err) == (2, True), err
