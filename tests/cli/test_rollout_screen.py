"""A rollout on a terminal: it fits, says what to type, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.terminal import Terminal
from tidegate.cli.rollout import _screen
from tidegate.cli.rollout_screen import Screen
from tidegate.cli.rollout_text import fitted, lines
from tidegate.registry.gate import CANNOT_TELL, FAIL, PASS, Finding
from tidegate.rollout import session
from tidegate.rollout import state as machine
from tidegate.rollout import trial as trials
from tidegate.rollout.front.fleet import Fleet, Wanted, new_front_folder, write_fleet
from tidegate.rollout.journal import Lock
from tidegate.rollout.router import STABLE
from tidegate.rollout.session import Place
from tidegate.rollout.state import Plan, State, Target

STATE = machine.begin(Plan("fraud-v2-abc", "fraud", Target(2, "sha256:b"), Target(1, "sha256:a")), "c", 3)
WORDS = "the canary's error rate is 0.000% of 37, the control's 0.000% of 817 (tolerance 25%): e-value 1"


def seen(passing: int = 4, failing: int = 1, unknown: int = 2, notes: int = 0) -> dict[str, Any]:
    outcomes = [PASS] * passing + [CANNOT_TELL] * unknown + [FAIL] * failing
    found = [Finding(o, f"{i}: {WORDS}").as_json() for i, o in enumerate(outcomes)]
    weights = {"stable": 90.0, "baseline": 5.0, "canary": 5.0}
    trouble = [f"the ledger: number {i} does not answer" for i in range(notes)]
    view = session.view(STATE, trials.begin(None), None, ())
    return {**view, "weights": weights, "findings": found, "verdict": "continue", "trouble": trouble, "step": 1}


@given(
    st.integers(30, 200), st.integers(3, 60), st.integers(0, 8), st.integers(0, 3), st.integers(0, 3), st.integers(0, 9)
)
def test_a_rollout_fits_every_terminal_and_its_last_line_says_what_to_type(
    width: int, height: int, passing: int, failing: int, unknown: int, notes: int
) -> None:
    shown = fitted(seen(passing, failing, unknown, notes), width, height)
    assert len(shown) <= height
    assert max(map(len, shown)) <= width
    assert "→ tidegate rollback"[: width - 4] in " ".join(shown[-4:]).replace("…", "")
    assert shown[0].startswith("fraud-v2-abc"[:width])


def test_what_passes_is_left_out_before_what_does_not() -> None:
    shown = fitted(seen(), 80, 13)
    assert [line[:5] for line in shown if line[2] in "✓?✗"] == ["  ? 4", "  ? 5", "  ✗ 6"]
    assert "  … 4 more: tidegate rollout status fraud" in shown
    assert fitted(seen(), 200, 60) == lines(seen()), "where there is room nothing is changed"


def test_a_rollout_that_prepares_stands_before_its_first_step() -> None:
    view = session.view(STATE, trials.begin(None), None, ())
    assert lines(view)[1].startswith("preparing, before the first step, ")


@pytest.fixture
def tty() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal of 40 columns and 10 rows: our end, and the program's."""
    ours, theirs = pty.openpty()
    resize(theirs, 40, 10)
    yield ours, theirs
    for fd in (ours, theirs):
        with suppress(OSError):
            os.close(fd)


def resize(fd: int, width: int, height: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def read_all(fd: int) -> str:
    """What is written until the program's end is closed."""
    said = b""
    with suppress(OSError):  # EIO
        while more := os.read(fd, 65536):
            said += more
    return said.decode()


@pytest.mark.parametrize("notes", [0, 9])
def test_a_screen_leaves_nothing_behind_however_small(
    tty: tuple[int, int], monkeypatch: pytest.MonkeyPatch, notes: int
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")  # rich asks the streams of the process, which are none of ours here
    monkeypatch.setenv("LINES", "10")
    ours, theirs = tty
    with os.fdopen(theirs, "w") as stream:
        screen = Screen(stream)
        for _ in range(3):
            screen.show(seen(notes=notes))
        screen.stop()
    terminal = Terminal(40, 10)
    said = read_all(ours)
    assert "rollback fraud" in said
    terminal.feed(said)
    assert (terminal.shown, terminal.is_cursor_hidden) == ([], False)


def test_what_cannot_go_back_to_a_line_is_no_screen(tty: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    with os.fdopen(tty[1], "w") as stream:
        monkeypatch.setenv("TERM", "dumb")
        assert _screen(stream) is None
    with open(os.devnull, "w") as stream:
        monkeypatch.setenv("TERM", "xterm")
        assert _screen(stream) is None


@pytest.fixture
def steered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A rollout that somebody is in charge of: we."""
    home = Path(tempfile.mkdtemp(prefix="tg-"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    place = Place("fraud")
    write_fleet(new_front_folder("fraud"), Fleet({STABLE: Wanted("fraud:1", "sha256:a")}))
    state: State = STATE
    place.journal.save(state, trials.begin(None))
    lock = Lock(place.folder)
    assert lock.take()
    yield home
    lock.release()


def test_ctrl_c_leaves_the_last_look_and_the_cursor(tty: tuple[int, int], steered: Path) -> None:
    ours, theirs = tty
    env = {**os.environ, "TERM": "xterm-256color", "XDG_STATE_HOME": str(steered)}
    env = {k: v for k, v in env.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    command = [sys.executable, "-m", "tidegate", "rollout", "watch", "fraud"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    said = b""
    while said.count("→".encode()) < 2:  # two looks
        said += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    text = said.decode() + read_all(ours)
    assert process.wait(30) == 130
    terminal = Terminal(40, 10)
    terminal.feed(text)
    assert terminal.is_cursor_hidden is False
    assert [row for row in terminal.shown if "fraud-v2-abc" in row] == ["fraud-v2-abc: version 2 against 1"], "once"
    assert "".join(terminal.shown).endswith("gives all traffic to version 1 at once")
    assert "Traceback" not in text
