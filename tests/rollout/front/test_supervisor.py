"""The supervisor with a real HAProxy and real servers: what dies, comes and goes, and what clients see of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.rollout.front import client
from tests.rollout.front.conftest import quiet_port
from tests.rollout.front.supervise import backend
from tests.servers import wait_until
from tidegate.errors import Conflict, Damaged, ServerError
from tidegate.rollout.front import supervisor as module
from tidegate.rollout.front.configuration import Settings
from tidegate.rollout.front.fleet import Fleet, Running, Wanted, read_fleet, read_running, write_fleet
from tidegate.rollout.front.haproxy import HaproxyRouter
from tidegate.rollout.front.kinds import HAPROXY, KINDS
from tidegate.rollout.front.process import Began, Process, is_alive, last_error, reap, tell
from tidegate.rollout.front.proxy import start_proxy
from tidegate.rollout.front.status import status
from tidegate.rollout.front.supervisor import Supervisor, one_supervisor
from tidegate.rollout.router import CANARY, STABLE, WHOLE

ONE, TWO = "fraud:1", "fraud:2"


@dataclass
class House:
    """A front's folder, and supervisors that run in this process, turn by turn."""

    folder: Path
    port: int = field(default_factory=quiet_port)
    said: list[str] = field(default_factory=list)
    late: float = 0.0
    supervisor: Supervisor | None = None

    def new(self) -> Supervisor:
        settings = Settings(self.folder, self.port, timeout_ms=10_000)
        self.supervisor = Supervisor(settings, backend, self.said.append, lambda: time.monotonic() + self.late)
        self.supervisor.adopt()
        return self.supervisor

    def want(self, generation: int = 1, **arms: tuple[str, int]) -> None:
        wanted = {arm: Wanted(reference, f"sha256:{reference}", workers) for arm, (reference, workers) in arms.items()}
        write_fleet(self.folder, Fleet(wanted, generation))

    def until(self, condition: Callable[[Running], bool]) -> Running:
        """Let the supervisor work until what it writes is so."""
        assert self.supervisor
        end = time.monotonic() + 30
        while True:
            self.supervisor.turn()
            if condition(running := read_running(self.folder)):
                return running
            assert time.monotonic() < end, (running, self.said)
            time.sleep(0.02)

    def ask(self, count: int, **how: object) -> client.Answers:
        return client.ask(self.port, count, **how)

    @property
    def router(self) -> HaproxyRouter:
        return HaproxyRouter(self.folder)


def serving(arm: str, reference: str, count: int = 1) -> Callable[[Running], bool]:
    return lambda running: [s.wanted.reference for s in running.ready(arm)] == [reference] * count


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(module, "DRAIN_SECONDS", 3.0)
    house = House(Path(tempfile.mkdtemp(prefix="tidegate-front-")))
    yield house
    running = read_running(house.folder)
    for process in [running.proxy, *[s.process for s in [*running.servers, *running.leaving]]]:
        if process:
            tell(process, signal.SIGKILL)
    reap()
    shutil.rmtree(house.folder)


def test_a_server_that_died_is_said_with_its_error_and_the_whole_path_of_its_log(house: House) -> None:
    house.want(stable=(ONE, 1))
    supervisor = house.new()
    says = "import sys; sys.exit('error[not-found]: no such version\\n  Models in /s: none.\\n  → tidegate model ls')"
    supervisor.command = lambda *_: [sys.executable, "-S", "-E", "-c", says]
    house.until(lambda _: any(" died" in line for line in house.said))
    said = next(line for line in house.said if " died" in line)
    assert said.endswith(f"died: error[not-found]: no such version; see {house.folder / 'stable.log'}")


def test_a_server_that_lives_long_does_not_fill_the_disk_with_its_log(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.rollout.front.process.MOST_LOG", 1000)
    house.want(stable=(ONE, 1))
    supervisor = house.new()
    talks = "import time\nwhile True:\n    print('x' * 99, flush=True)\n    time.sleep(0.001)"
    supervisor.command = lambda *_: [sys.executable, "-S", "-E", "-c", talks]
    log, before = house.folder / "stable.log", house.folder / "stable.log.1"
    house.until(lambda _: before.exists() and log.stat().st_size > 0)
    first = before.read_text()
    house.until(lambda _: before.read_text() != first)
    assert len([line for line in house.said if " starts " in line]) == 1, "all of it by one process"


def test_an_error_of_a_process_before_is_not_said_again(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("error[a]: b\n  c\n  d\nserving fraud version 1\n")
    assert last_error(tmp_path / "log") == last_error(tmp_path / "none") == ""


def test_the_fleet_runs_and_each_arm_serves_its_version(house: House) -> None:
    house.want(stable=(ONE, 2), canary=(TWO, 1))
    house.new()
    running = house.until(lambda r: serving(STABLE, ONE, 2)(r) and serving(CANARY, TWO)(r))
    house.router.set_weights({STABLE: 5000, CANARY: 5000}, 1)
    answers = house.ask(200)
    assert set(answers.seen) == {(200, ONE), (200, TWO)}
    content = json.loads((house.folder / "running.json").read_text())
    assert content["port"] == house.port
    assert [(s["version"], s["digest"], s["ready"]) for s in content["arms"]["canary"]] == [(2, "sha256:fraud:2", True)]
    assert content["arms"]["canary"][0]["pid"] == running.ready(CANARY)[0].process.pid
    assert len({s.admin_port for s in running.servers}) == 3
    shown = status(house.folder)
    assert shown["arms"][CANARY]["share"] == 5000
    assert shown["arms"][CANARY]["requests"] == answers.by(TWO)
    assert shown["observed"] is True


def test_a_server_that_is_killed_is_taken_out_and_started_again(house: House) -> None:
    house.want(stable=(ONE, 2))
    house.new()
    first = house.until(serving(STABLE, ONE, 2))
    victim = first.servers[0].process
    tell(victim, signal.SIGKILL)
    house.until(serving(STABLE, ONE, 1))
    assert house.ask(50).seen == {(200, ONE): 50}
    second = house.until(serving(STABLE, ONE, 2))
    assert victim not in [s.process for s in second.servers]


def test_a_proxy_that_is_killed_answers_again_on_its_port_with_its_weights(house: House) -> None:
    house.want(stable=(ONE, 1), canary=(TWO, 1))
    house.new()
    first = house.until(lambda r: serving(STABLE, ONE)(r) and serving(CANARY, TWO)(r))
    house.router.set_weights({STABLE: 7500, CANARY: 2500}, 4)
    assert first.proxy
    tell(first.proxy, signal.SIGKILL)
    second = house.until(lambda r: r.proxy not in (None, first.proxy) and serving(STABLE, ONE)(r))
    seen = house.router.observe()
    assert (seen.weights, seen.generation) == ({STABLE: 7500, CANARY: 2500}, 4)
    assert second.servers == first.servers
    assert house.ask(50).failed == 0


def test_a_share_waits_for_its_arm_after_everything_was_killed(house: House) -> None:
    house.want(stable=(ONE, 1), canary=(TWO, 1))
    house.new()
    first = house.until(lambda r: serving(STABLE, ONE)(r) and serving(CANARY, TWO)(r))
    house.router.set_weights({STABLE: 7500, CANARY: 2500}, 4)
    for process in [first.proxy, *[s.process for s in first.servers]]:
        assert process
        tell(process, signal.SIGKILL)
    house.until(lambda r: r.proxy not in (None, first.proxy))
    assert house.router.weights().shares in ({STABLE: WHOLE}, {STABLE: 7500, CANARY: 2500})
    house.until(lambda r: serving(STABLE, ONE)(r) and serving(CANARY, TWO)(r))
    assert house.router.weights().shares == {STABLE: 7500, CANARY: 2500}


def test_another_version_replaces_stable_under_load_and_no_request_is_dropped(house: House) -> None:
    house.want(stable=(ONE, 2))
    house.new()
    first = house.until(serving(STABLE, ONE, 2))
    over = threading.Event()
    seen: list[client.Answers] = []
    asking = threading.Thread(target=lambda: seen.append(house.ask(1_000_000, until=over.is_set)))
    asking.start()
    try:
        house.want(2, stable=(TWO, 2))
        house.until(lambda r: serving(STABLE, TWO, 2)(r) and not r.leaving)
    finally:
        over.set()
        asking.join()
    assert seen[0].failed == 0, seen[0].seen
    assert seen[0].by(ONE) > 0
    wait_until(lambda: reap() or not any(is_alive(s.process) for s in first.servers))
    assert house.ask(20).seen == {(200, TWO): 20}


def test_an_arm_that_is_not_wanted_any_more_ends_after_its_requests(house: House) -> None:
    house.want(stable=(ONE, 1), canary=(TWO, 1))
    house.new()
    running = house.until(lambda r: serving(STABLE, ONE)(r) and serving(CANARY, TWO)(r))
    canary = running.ready(CANARY)[0]
    client.ask(canary.port, 1, path="/mode/slow-400", connections=1)
    house.router.set_weights({CANARY: WHOLE}, 1)
    seen: list[client.Answers] = []
    asking = threading.Thread(target=lambda: seen.append(house.ask(4, connections=4)))
    asking.start()
    wait_until(lambda: house.router.busy(CANARY).get(canary.port) == 4)
    house.want(2, stable=(ONE, 1))
    house.until(lambda r: not r.ready(CANARY) and not r.leaving)
    asking.join()
    assert seen[0].seen == {(200, TWO): 4}
    wait_until(lambda: reap() or not is_alive(canary.process))
    assert house.ask(20).seen == {(200, ONE): 20}


def test_what_dies_young_is_started_again_later_and_later(house: House) -> None:
    house.want(stable=(ONE, 1), canary=("broken:1", 1))
    good = backend
    supervisor = house.new()
    supervisor.command = lambda w, p, q: ["/bin/false"] if w.reference == "broken:1" else good(w, p, q)
    waits = []
    for _ in range(7):
        house.until(lambda r: not r.ready(CANARY) and not [s for s in supervisor.servers if s.arm == CANARY])
        deaths, until = supervisor._waits[CANARY]
        waits.append(until - supervisor.clock())
        assert deaths == len(waits)
        house.late += until - supervisor.clock() + 0.001
        supervisor.turn()
    assert waits == sorted(waits)
    assert 5 < waits[-1] <= module.LONGEST_WAIT
    house.until(serving(STABLE, ONE))


def test_a_server_that_hangs_for_long_is_killed_and_started_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HUNG_SECONDS", 1.0)
    house.want(stable=(ONE, 1))
    house.new()
    first = house.until(serving(STABLE, ONE)).servers[0].process
    tell(first, signal.SIGSTOP)
    second = house.until(lambda r: serving(STABLE, ONE)(r) and r.servers[0].process != first)
    assert not is_alive(first)
    assert second.servers[0].process != first


def test_a_damaged_fleet_or_an_older_controller_changes_nothing(house: House) -> None:
    house.want(3, stable=(ONE, 1))
    house.new()
    before = house.until(serving(STABLE, ONE))
    with pytest.raises(Conflict):
        house.want(2, stable=(TWO, 1))
    (house.folder / "fleet.json").write_text('{"arms": 5')
    for _ in range(3):
        house.supervisor.turn()  # type: ignore[union-attr]
    assert read_running(house.folder).servers == before.servers
    assert sum("fleet" in line for line in house.said) == 1
    with pytest.raises(Damaged):
        read_fleet(house.folder)


def test_a_full_disk_ends_nothing_and_what_died_is_started_when_there_is_room(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    house.want(stable=(ONE, 2))
    supervisor = house.new()
    first = house.until(serving(STABLE, ONE, 2))
    with monkeypatch.context() as full:
        for name in ("start", "write_running", "free_ports"):
            full.setattr(module, name, fails)
        for process in (first.proxy, first.servers[0].process):
            assert process
            tell(process, signal.SIGKILL)
        wait_until(lambda: reap() or not is_alive(first.servers[0].process))
        for _ in range(3):
            supervisor.turn()
        supervisor.end()
    assert [line for line in house.said if "No space left" in line]
    assert not is_alive(first.servers[1].process), "it ends in good order, too"
    house.late += module.LONGEST_WAIT
    house.until(serving(STABLE, ONE, 2))
    assert house.ask(20).failed == 0


def test_a_port_in_use_is_said_at_once_and_nothing_is_left_running(house: House) -> None:
    house.want(stable=(ONE, 1))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", house.port))
        sock.listen()
        with pytest.raises(ServerError) as caught:
            house.new().run(lambda: False)
    assert caught.value.code == "front-start"
    running = read_running(house.folder)
    assert running.servers == ()
    assert not running.proxy or not is_alive(running.proxy)


def test_a_supervisor_killed_while_the_proxy_starts_leaves_it_to_the_next_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(settings: Settings, arms: object, *, began: Began) -> Process:
        def tell_and_die(process: Process) -> None:
            began(process)
            raise KeyboardInterrupt

        return start_proxy(settings, [], began=tell_and_die)

    house.want(stable=(ONE, 1))
    haproxy = KINDS[HAPROXY]
    monkeypatch.setitem(KINDS, HAPROXY, replace(haproxy, start=killed))
    with pytest.raises(KeyboardInterrupt):
        house.new().turn()
    begun = read_running(house.folder).proxy
    assert begun
    monkeypatch.setitem(KINDS, HAPROXY, haproxy)
    house.new()
    assert house.until(serving(STABLE, ONE)).proxy == begun
    assert house.ask(20).failed == 0


@pytest.fixture
def alone(house: House) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a supervisor as a process."""
    started: list[subprocess.Popen[bytes]] = []

    def run() -> subprocess.Popen[bytes]:
        script = str(Path(__file__).with_name("supervise.py"))
        with (house.folder / "out").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, script, str(house.folder), str(house.port)], stdout=out, stderr=out
            )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_servers_and_proxy_outlive_a_killed_supervisor_and_the_next_one_adopts_them(
    house: House, alone: Callable[[], subprocess.Popen[bytes]]
) -> None:
    house.want(stable=(ONE, 1))
    first = alone()
    wait_until(lambda: serving(STABLE, ONE)(read_running(house.folder)))
    before = read_running(house.folder)
    first.kill()
    first.wait()
    assert house.ask(50).seen == {(200, ONE): 50}
    second = alone()
    wait_until(lambda: read_running(house.folder).supervisor not in (None, before.supervisor))
    after = read_running(house.folder)
    assert (after.proxy, [s.process for s in after.servers]) == (before.proxy, [s.process for s in before.servers])
    tell(after.servers[0].process, signal.SIGKILL)
    wait_until(lambda: serving(STABLE, ONE)(r := read_running(house.folder)) and r.servers != after.servers)
    assert house.ask(20).failed == 0
    second.terminate()
    assert second.wait(30) == 0


def test_the_end_lets_requests_under_way_finish_and_leaves_nothing_behind(
    house: House, alone: Callable[[], subprocess.Popen[bytes]]
) -> None:
    house.want(stable=(ONE, 1))
    process = alone()
    wait_until(lambda: serving(STABLE, ONE)(read_running(house.folder)))
    running = read_running(house.folder)
    client.ask(running.servers[0].port, 1, path="/mode/slow-600", connections=1)
    seen: list[client.Answers] = []
    asking = threading.Thread(target=lambda: seen.append(house.ask(4, connections=4)))
    asking.start()
    wait_until(lambda: house.router.busy(STABLE).get(running.servers[0].port) == 4)
    process.terminate()
    asking.join()
    assert process.wait(30) == 0
    assert seen[0].seen == {(200, ONE): 4}
    assert running.proxy
    assert not any(is_alive(p) for p in [running.proxy, running.servers[0].process])
    assert status(house.folder)["observed"] is False


def test_a_front_has_one_supervisor(house: House) -> None:
    with one_supervisor(house.folder):
        with pytest.raises(ServerError) as caught, one_supervisor(house.folder):
            pass
        assert caught.value.code == "front-running"
    with one_supervisor(house.folder):
        assert os.path.exists(house.folder / "supervisor.lock")
