"""``tidegate front``: a real model behind it, from the first request to the last."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.rollout.front import client
from tests.rollout.front.tiny import registered
from tests.servers import wait_until
from tidegate.cli import front as module
from tidegate.cli.front import command
from tidegate.errors import NotFound, ServerError, UsageError
from tidegate.registry.model import Registry
from tidegate.rollout.front.fleet import Fleet, Wanted, new_front_folder, read_fleet, read_running, write_fleet
from tidegate.rollout.front.process import is_alive, tell
from tidegate.rollout.router import CANARY, STABLE, WHOLE
from tidegate.store.local import LocalStore


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tidegate-state-"))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    yield folder
    running = read_running(new_front_folder("m"))
    for process in [running.proxy, *[s.process for s in [*running.servers, *running.leaving]]]:
        if process:
            tell(process, signal.SIGKILL)
    shutil.rmtree(folder)


@pytest.fixture
def started(state: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    processes = []

    def run(*words: str) -> subprocess.Popen[bytes]:
        with (state / "out").open("ab") as out:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tidegate", "front", *words], stdout=out, stderr=out, cwd=tmp_path
                )
            )
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()


def shown() -> dict[str, Any]:
    result = CliRunner().invoke(command, ["status", "m", "--json"], standalone_mode=False)
    found: dict[str, Any] = json.loads(result.output)
    return found


def test_the_champion_answers_through_the_front_until_sigterm(
    started: Callable[..., subprocess.Popen[bytes]], state: Path, tmp_path: Path
) -> None:
    registered(LocalStore(tmp_path / "s"), tmp_path)
    front = started("m", "--port", "0", "--store", str(tmp_path / "s"))
    wait_until(lambda: front.poll() is not None or read_running(new_front_folder("m")).ready(STABLE) != [])
    running = read_running(new_front_folder("m"))
    assert read_fleet(new_front_folder("m")).arms[STABLE].reference == "m:1"
    url = f"http://127.0.0.1:{running.port}"
    with urllib.request.urlopen(f"{url}/predict", json.dumps([{"x": 1.0}]).encode(), timeout=20) as response:
        assert json.load(response)
    answers = client.ask(running.port, 40, body=json.dumps([{"x": 1.0}]).encode())
    assert answers.failed == 0, answers.seen
    with urllib.request.urlopen(f"http://127.0.0.1:{running.servers[0].admin_port}/v1/scores", timeout=20) as response:
        assert json.load(response)["version"] == 1
    found = shown()
    assert found["supervisor"] == front.pid
    assert found["arms"][STABLE] == {**found["arms"][STABLE], "share": WHOLE, "ready": 1, "requests": 41, "errors": 0}
    text = CliRunner().invoke(command, ["status", "m"], standalone_mode=False).output
    assert "100 %" in text
    assert "m:1" in text
    second = started("m", "--port", "0", "--store", str(tmp_path / "s"))
    assert second.wait(60) == 3
    assert "error[front-running]" in (state / "out").read_text()
    front.send_signal(signal.SIGTERM)
    assert front.wait(60) == 0
    assert not any(is_alive(s.process) for s in running.servers)
    assert shown()["observed"] is False


def test_a_front_that_other_machines_reach_needs_a_token(state: Path) -> None:
    result = CliRunner().invoke(command, ["m", "--host", "0.0.0.0"], standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    assert result.exception.code == "front-open"
    assert os.environ.get("TIDEGATE_SERVE_TOKEN") is None


def test_an_open_front_asks_no_client_for_the_token_that_its_admin_ports_have(
    started: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_SERVE_TOKEN", "a-token-of-this-test")
    registered(LocalStore(tmp_path / "s"), tmp_path)
    front = started("m", "--port", "0", "--open", "--store", str(tmp_path / "s"))
    wait_until(lambda: front.poll() is not None or read_running(new_front_folder("m")).ready(STABLE) != [])
    running = read_running(new_front_folder("m"))
    url = f"http://127.0.0.1:{running.port}/predict"
    with urllib.request.urlopen(url, json.dumps([{"x": 1.0}]).encode(), timeout=20) as response:
        assert response.status == 200
    with pytest.raises(urllib.error.HTTPError, match="401") as e:
        urllib.request.urlopen(f"http://127.0.0.1:{running.servers[0].admin_port}/v1/scores", timeout=20)
    e.value.close()


def test_a_model_that_is_not_registered_is_said_before_anything_starts(state: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["m", "--store", str(tmp_path / "s")], standalone_mode=False)
    assert isinstance(result.exception, NotFound)
    assert read_running(new_front_folder("m")).proxy is None


def test_the_status_of_a_front_that_does_not_run_says_what_to_type(state: Path) -> None:
    write_fleet(new_front_folder("m"), Fleet({STABLE: Wanted("m:1", "sha256:1")}))
    result = CliRunner().invoke(command, ["status", "m"], standalone_mode=False)
    assert "tidegate front m" in result.output
    assert CANARY not in result.output
    assert result.return_value == 3


def test_a_front_that_was_never_started_is_said_with_those_that_were_and_nothing_is_made(state: Path) -> None:
    write_fleet(new_front_folder("fraud"), Fleet({STABLE: Wanted("fraud:1", "sha256:1")}))
    result = CliRunner().invoke(command, ["status", "frud"], standalone_mode=False)
    assert isinstance(result.exception, ServerError)
    assert (result.exception.found, result.exception.allowed) == (
        "no front of frud was ever started here",
        "There are: fraud.",
    )
    assert [f.name for f in (state / "tidegate" / "front").iterdir()] == ["fraud"]


@pytest.mark.parametrize("words", [["m:2"], ["m@champion"], ["status", "m:2"]])
def test_a_front_is_of_a_name_alone(state: Path, words: list[str]) -> None:
    result = CliRunner().invoke(command, words, standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    assert "A NAME alone" in result.exception.allowed


def test_a_port_in_use_is_said_before_anything_starts_and_nothing_is_left_behind(state: Path, tmp_path: Path) -> None:
    registered(LocalStore(tmp_path / "s"), tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = CliRunner().invoke(
            command, ["m", "--port", str(port), "--store", str(tmp_path / "s")], standalone_mode=False
        )
    assert isinstance(result.exception, ServerError)
    assert result.exception.code == "port-in-use"
    assert result.exception.found == f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert not (new_front_folder("m") / "fleet.json").exists()


def test_a_front_that_could_not_be_started_was_never_told_what_to_serve(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ServerError("no proxy")

    registered(LocalStore(tmp_path / "s"), tmp_path)
    monkeypatch.setattr(module.Supervisor, "run", fails)
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    words = ["m", "--port", "0", "--store", str(tmp_path / "s")]
    assert isinstance(CliRunner().invoke(command, words, standalone_mode=False).exception, ServerError)
    assert not (new_front_folder("m") / "fleet.json").exists()
    _, version = Registry(LocalStore(tmp_path / "s")).version("m", 1)
    write_fleet(new_front_folder("m"), told := Fleet({STABLE: Wanted("m:1", version.digest)}))
    assert isinstance(CliRunner().invoke(command, words, standalone_mode=False).exception, ServerError)
    assert read_fleet(new_front_folder("m")) == told


def test_a_front_goes_on_with_what_it_was_told_and_says_when_the_champion_is_another(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "s")
    registered(LocalStore(store), tmp_path)
    module._write_first_fleet(new_front_folder("m"), "m", store, 2)
    assert read_fleet(new_front_folder("m")).arms[STABLE].workers == 2
    registered(LocalStore(store), tmp_path, scale=2.0)
    Registry(LocalStore(store)).promote("m", 2, "champion", actor="test")
    module._write_first_fleet(new_front_folder("m"), "m", store, None)
    assert read_fleet(new_front_folder("m")).arms[STABLE].reference == "m:1"
    assert "the champion is m:2" in capsys.readouterr().out
    (tmp_path / "file").touch()  # a store that cannot be opened
    module._write_first_fleet(new_front_folder("m"), "m", str(tmp_path / "file"), 3)
    assert read_fleet(new_front_folder("m")).arms[STABLE].workers == 3


def test_a_store_without_the_model_is_another_one_although_the_front_ran_before(state: Path, tmp_path: Path) -> None:
    write_fleet(new_front_folder("m"), Fleet({STABLE: Wanted("m:1", "sha256:1")}))
    result = CliRunner().invoke(
        command, ["m", "--port", "0", "--store", str(tmp_path / "stroe")], standalone_mode=False
    )
    assert isinstance(result.exception, NotFound)
    assert result.exception.allowed == f"Models in {tmp_path / 'stroe'}: none."
    assert "--store" in result.exception.hint
    registered(LocalStore(tmp_path / "other"), tmp_path)
    write_fleet(new_front_folder("m"), Fleet({STABLE: Wanted("m:2", "sha256:2")}))
    with pytest.raises(NotFound, match="m has no version 2"):
        module._write_first_fleet(new_front_folder("m"), "m", str(tmp_path / "other"), None)
    assert read_running(new_front_folder("m")).proxy is None


def test_a_store_with_other_bytes_under_the_same_number_is_another_one(state: Path, tmp_path: Path) -> None:
    registered(LocalStore(tmp_path / "s"), tmp_path)
    registered(LocalStore(tmp_path / "other"), tmp_path, scale=2.0)
    folder = new_front_folder("m")
    module._write_first_fleet(folder, "m", str(tmp_path / "s"), None)
    told = read_fleet(folder)
    words = ["m", "--port", "0", "--store", str(tmp_path / "other")]
    result = CliRunner().invoke(command, words, standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    assert result.exception.code == "front-other-store"
    assert told.arms[STABLE].digest in result.exception.found
    assert f"rm {folder / 'fleet.json'}" in result.exception.hint
    assert (read_fleet(folder), read_running(folder).proxy) == (told, None)
    server = module._server(str(tmp_path / "other"), "127.0.0.1", open_=False)(told.arms[STABLE], 1, 2)
    assert server[server.index("--digest") + 1] == told.arms[STABLE].digest, "also one that starts later"
