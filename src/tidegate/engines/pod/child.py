"""The process of a step in an image of ours: its output goes to the pod's log and to a file, signals go to its group."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

GRACE_SECONDS = 20.0
DRAIN_SECONDS = 2.0


class Child:
    """A command in a session of its own.

    Args:
        command: its words.
        env: its whole environment.
        log: what it writes is appended here.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.terminated = False
        self._log = log
        self._killer: threading.Timer | None = None
        for kind in (signal.SIGTERM, signal.SIGINT):
            signal.signal(kind, self._terminate)
        self._process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )

    def wait(self) -> int:
        """Wait for the end of the process and of what it writes; return its exit code, -N for signal N."""
        copying = threading.Thread(target=self._copy, daemon=True)
        copying.start()
        code = self._process.wait()
        copying.join(DRAIN_SECONDS)  # somebody it left behind may hold its output open
        self._kill()
        if self._killer:
            self._killer.cancel()
        return code

    def _copy(self) -> None:
        assert self._process.stdout
        with self._process.stdout, self._log.open("ab") as log:
            while chunk := os.read(self._process.stdout.fileno(), 1 << 16):
                with contextlib.suppress(OSError):  # a full disk must not end the step
                    log.write(chunk)
                    log.flush()
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()

    def _terminate(self, kind: int, _: FrameType | None) -> None:
        if not self.terminated:
            self.terminated = True
            self._signal(kind)
            self._killer = threading.Timer(GRACE_SECONDS, self._kill)
            self._killer.daemon = True
            self._killer.start()

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, kind: int) -> None:
        with contextlib.suppress(ProcessLookupError, AttributeError):
            os.killpg(self._process.pid, kind)
