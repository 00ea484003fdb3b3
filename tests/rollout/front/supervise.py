"""A supervisor as a process of its own, to be killed: ``supervise.py FOLDER PORT``; its servers are ``backend.py``."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from tidegate.rollout.front.configuration import Settings
from tidegate.rollout.front.fleet import Wanted
from tidegate.rollout.front.supervisor import Supervisor, one_supervisor


def backend(wanted: Wanted, port: int, _: int) -> list[str]:
    return [sys.executable, "-S", "-E", str(Path(__file__).with_name("backend.py")), str(port), wanted.reference]


def main(folder: Path, port: int) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with one_supervisor(folder):
        Supervisor(Settings(folder, port, timeout_ms=150), backend).run(ended.is_set)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
