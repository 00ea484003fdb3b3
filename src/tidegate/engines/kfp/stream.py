"""The log of a step while it runs, put into the store now and then: KFP gives nobody a pod's log from outside."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tidegate.engines.kfp.site import Site
from tidegate.engines.redact import redact_file
from tidegate.errors import Trouble

EVERY_SECONDS = 3.0
LARGEST = 1 << 20  # a log beyond that is put away at the end only


@contextmanager
def streamed(site: Site, secrets: tuple[str, ...], every: float = EVERY_SECONDS) -> Iterator[None]:
    """Put the log of this step into the store while the block runs; its end writes the whole."""
    ended = threading.Event()
    streaming = threading.Thread(target=_stream, args=(site, secrets, ended, every), daemon=True)
    streaming.start()
    try:
        yield
    finally:
        ended.set()
        streaming.join()
        log = site.folder / "log"
        if log.exists() and log.stat().st_size:  # a look that was late may have put a part over the whole
            redact_file(log, secrets)
            site.runs.write_log(site.run_id, site.step, log)


def _stream(site: Site, secrets: tuple[str, ...], ended: threading.Event, every: float) -> None:
    log, size = site.folder / "log", 0
    while not ended.wait(every):
        with suppress(OSError, Trouble):  # what is missed now is there at the end
            if log.exists() and size < (size := log.stat().st_size) <= LARGEST:
                _put(site, log, secrets)


def _put(site: Site, log: Path, secrets: tuple[str, ...]) -> None:
    copy = log.with_name("log.now")
    text = log.read_bytes()
    copy.write_bytes(text[: text.rfind(b"\n") + 1])
    redact_file(copy, secrets)
    site.runs.write_log(site.run_id, site.step, copy)
