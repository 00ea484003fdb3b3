"""The front at 10,000 requests a second: h2load and wrk ask, HAProxy itself answers as the servers of each arm."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rollout.front.conftest import Front, fronted, quiet_port
from tests.servers import listening, wait_until
from tidegate.rollout.front.proxy import haproxy_binary, start_proxy
from tidegate.rollout.router import ARMS, BASELINE, CANARY, STABLE

pytestmark = pytest.mark.long


class Fast:
    """A server that costs next to nothing."""

    def __init__(self, folder: Path, name: str) -> None:
        self.port, self.file = quiet_port(), folder / f"{name}.cfg"
        answer = f'http-request return status 200 content-type text/plain string "{name}"'
        limits = "mode http\n timeout client 60s\n timeout http-keep-alive 60s"
        self.file.write_text(
            f"global\n nbthread 1\ndefaults\n {limits}\nfrontend f\n bind 127.0.0.1:{self.port}\n {answer}\n"
        )
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([haproxy_binary(), "-db", "-f", str(self.file)], stderr=subprocess.DEVNULL)
        wait_until(lambda: listening(self.port))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[tuple[Front, dict[str, Fast]]]:
    if not shutil.which("h2load") or not shutil.which("wrk"):
        pytest.skip("needs h2load and wrk")
    servers = {arm: Fast(tmp_path, arm) for arm in ARMS}
    with fronted(timeout_ms=500) as front:
        front.process = start_proxy(front.settings, ARMS)
        for arm in ARMS:
            front.router.serve(arm, [servers[arm].port])
        try:
            yield front, servers
        finally:
            for server in servers.values():
                server.stop()


def paced(front: Front, count: int, rate: int, folder: Path) -> str:
    (folder / "body").write_bytes(b"x" * 300)
    url = f"http://127.0.0.1:{front.settings.port}/predict"
    command = ["h2load", "--h1", "-n", str(count), "-c", "32", "--rps", str(rate / 32), "-d", str(folder / "body"), url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def closed(front: Front, seconds: int, folder: Path) -> str:
    script = folder / "post.lua"
    script.write_text('wrk.method = "POST"\nwrk.body = string.rep("x", 300)\n')
    url = f"http://127.0.0.1:{front.settings.port}/predict"
    command = ["wrk", "-t1", "-c32", f"-d{seconds}", "--latency", "-s", str(script), url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_of_100_000_paced_requests_five_percent_go_to_the_canary_and_none_fails(quick, tmp_path: Path) -> None:
    front, _ = quick
    front.weights(500, 500)
    text = paced(front, 100_000, 10_000, tmp_path)
    print(text)
    assert "100000 succeeded, 0 failed, 0 errored" in text
    arms = front.observe().arms
    assert sum(t.requests for t in arms.values()) == 100_000
    assert sum(t.errors for t in arms.values()) == 0
    for arm in (CANARY, BASELINE):
        # 5.0 ± 0.3 %: the standard deviation is 0.07 %
        assert abs(arms[arm].requests / 100_000 - 0.05) < 0.003


def test_twenty_changes_at_full_load_cost_no_request(quick, tmp_path: Path) -> None:
    front, _ = quick
    over = threading.Event()

    def change() -> None:
        for n in range(20):
            front.weights((500, 5000, 0, 10_000, 2500)[n % 5])
            over.wait(0.2)

    thread = threading.Thread(target=change)
    thread.start()
    text = closed(front, 5, tmp_path)
    thread.join()
    print(text)
    assert "Non-2xx" not in text
    assert "Socket errors" not in text
    assert all(front.observe().arms[arm].requests > 0 for arm in (STABLE, CANARY))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_canary_that_dies_or_hangs_at_full_load_costs_no_request(quick, number: int, tmp_path: Path) -> None:
    front, servers = quick
    front.weights(500, 500)
    timer = threading.Timer(1.0, servers[CANARY].process.send_signal, [number])
    timer.start()
    text = closed(front, 4, tmp_path)
    timer.join()
    print(text)
    assert "Non-2xx" not in text
    assert "Socket errors" not in text
    arms = front.observe().arms
    assert arms[CANARY].errors > 0
    assert arms[STABLE].errors == arms[BASELINE].errors == 0
    assert re.search(r"requests in", text)
