"""What ends a command that runs for long: Ctrl-C, and what CI jobs, pods and terminals send instead."""

from __future__ import annotations

import atexit
import signal
import time

END_SECONDS = 5.0  # more than killed steps take to end


def listen_for_the_end() -> None:
    """Let what ends CI jobs, pods and terminals end steps as Ctrl-C does, and be heard once until they have ended."""
    heard = [-2 * END_SECONDS]

    def interrupt(*_: object) -> None:
        if time.monotonic() - heard[0] > END_SECONDS:
            heard[0] = time.monotonic()
            raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        kind = getattr(signal, name, None)
        if kind and signal.getsignal(kind) is not signal.SIG_IGN:  # nohup, and shells for what runs in the background
            signal.signal(kind, interrupt)
            # an interpreter that ends gives signals their defaults back: a late one would change the exit code
            atexit.register(signal.signal, kind, signal.SIG_IGN)
