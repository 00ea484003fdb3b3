"""Step processes: each in its own session and process group.

The scheduler itself is never forked. The fork server (``forkserver``) is started by exec; it holds kfp's executor and
those third-party modules of an allow-list that steps need, and forks a child per step. A step whose code imports
anything else becomes a fresh interpreter in its child. What a step leaves
behind in its process group is killed when it ends; what left the group (a daemon) when the run ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tidegate.errors import Trouble

# Modules that are safe to import before forking: they start no thread until they are used.
FORK_SAFE = frozenset(
    {"numpy", "scipy", "pandas", "sklearn", "joblib", "threadpoolctl", "skops", "onnx", "skl2onnx", "onnxruntime"}
    | {"polars", "pandera", "pyarrow", "yaml", "kfp", "typing_extensions", "requests", "packaging", "google"}
)
GRACE = 2.0


@dataclass(frozen=True)
class Job:
    """One step process.

    Attributes:
        folder: where it starts.
        env: its whole environment.
        log: the file that takes what it writes.
        threads: how many threads numerical libraries may use.
        args: arguments for ``tidegate.author.step``, which runs in a fork of the fork server or a fresh interpreter.
        imports: third-party modules that step imports.
        program: a whole command to run instead.
        mounts: (folder, where the step sees it, read-only), on Linux.
        cores: how many cores it may use, 0 for all.
        cleanup: a command to run after it was killed.
    """

    folder: Path
    env: Mapping[str, str]
    log: Path
    threads: int
    args: Sequence[str] = ()
    imports: frozenset[str] = frozenset()
    program: Sequence[str] = ()
    mounts: Sequence[tuple[str, str, bool]] = ()
    cores: float = 0.0
    cleanup: Sequence[str] = ()


class Process(Protocol):
    """A running step."""

    pid: int

    def wait(self, timeout: float) -> int | None:
        """Return the exit code (negative: the signal that killed it), or None when ``timeout`` seconds passed."""

    def kill(self) -> None:
        """Ask the step's process group to end, then end it."""


class Launcher:
    """Starts step processes through a fork server, which is itself started when the first step needs it."""

    def __init__(self) -> None:
        self._server: ForkServer | None = None
        self._lock = threading.Lock()

    def start(self, job: Job) -> Process:
        """Start one step."""
        with self._lock:
            if self._server is None or not self._server.alive:
                self._server = ForkServer()
            server = self._server
        return server.start(job)

    def close(self) -> None:
        """End the fork server and every process it still has."""
        if self._server:
            self._server.close()


class ForkServer:
    """The client's side of ``forkserver``: sends jobs, hears of their ends."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        env = {**os.environ, "_KFP_RUNTIME": "true", "POLARS_ALLOW_FORKING_THREAD": "1", "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "tidegate.engines.local.forkserver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=env,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._socket = ours
        self._lock = threading.Lock()
        self._steps: dict[int, _Forked] = {}
        self._next = 0
        self._reader = threading.Thread(target=self._read, name="tidegate-forkserver", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether the server can take jobs."""
        return self._reader.is_alive()

    def start(self, job: Job) -> Process:
        """Have one step forked."""
        with self._lock:
            self._next += 1
            step = self._steps[self._next] = _Forked(job.cleanup)
            message = {
                "id": self._next,
                "args": list(job.args),
                "folder": str(job.folder),
                "env": dict(job.env),
                "log": str(job.log),
                "imports": sorted(job.imports),
                "fresh": not job.imports <= FORK_SAFE,
                "threads": job.threads,
                "program": list(job.program),
                "mounts": list(job.mounts),
                "cores": job.cores,
            }
            try:
                self._socket.sendall(json.dumps(message).encode() + b"\n")
            except OSError as e:
                raise Trouble(f"the process that starts steps is gone: {e}", code="forkserver-gone") from e
        return step

    def _read(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                said = json.loads(line)
                step = self._steps[said["id"]]
                if "pid" in said:
                    step.pid = said["pid"]
                else:
                    step.end(said["exit"])
                    del self._steps[said["id"]]
        for step in list(self._steps.values()):
            step.end(-signal.SIGKILL)

    def close(self) -> None:
        """Hang up: the server kills whatever still runs below it, and ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        try:
            self._popen.wait(GRACE * 2)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._reader.join(GRACE)
        self._socket.close()


class _Forked:
    """A step that the fork server started."""

    def __init__(self, cleanup: Sequence[str]) -> None:
        self.pid, self._cleanup = 0, cleanup
        self._code: int | None = None
        self._ended = threading.Event()

    def end(self, code: int) -> None:
        self._code = code
        self._ended.set()

    def wait(self, timeout: float) -> int | None:
        """See ``Process``."""
        return self._code if self._ended.wait(timeout) else None

    def kill(self) -> None:
        """See ``Process``."""
        if self.pid:
            end_group(self.pid, signal.SIGTERM)
        if self.wait(GRACE) is None and self.pid:
            end_group(self.pid, signal.SIGKILL)
            self.wait(GRACE)
        if self._cleanup:
            subprocess.run(self._cleanup, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30, check=False)


def end_group(pid: int, how: signal.Signals) -> None:
    """Send a signal to a step's process group; a group that is gone is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, how)
