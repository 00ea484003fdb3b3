"""What a step runs is the source as it is, not as it was compiled a moment ago."""

import importlib.util
import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.author.bytecode import forget
from tidegate.author.closure import closure
from tidegate.author.step import check_code

SECOND = 1_700_000_000


def saved_twice(source: Path) -> None:
    """A source that was compiled and, within the same second, saved again with another value and the same size."""
    source.write_text("VALUE = 1\n")
    os.utime(source, ns=(0, SECOND * 10**9 + 100))
    compiled = Path(py_compile.compile(str(source), doraise=True))
    os.utime(compiled, ns=(0, SECOND * 10**9 + 200))
    source.write_text("VALUE = 2\n")
    os.utime(source, ns=(0, SECOND * 10**9 + 300))


def value(root: Path) -> str:
    command = [sys.executable, "-c", "import job; print(job.VALUE)"]
    env = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=True).stdout.strip()


def test_a_file_saved_twice_within_a_second_is_run_as_it_is_now(tmp_path: Path) -> None:
    saved_twice(tmp_path / "job.py")
    assert value(tmp_path) == "1", "Python no longer takes the old one: there is nothing to mend"
    check_code("job:f", closure("job", tmp_path).digest, tmp_path)
    assert value(tmp_path) == "2"


def test_compiled_files_that_are_no_doubt_newer_stay(tmp_path: Path) -> None:
    source = tmp_path / "job.py"
    source.write_text("VALUE = 1\n")
    os.utime(source, (SECOND, SECOND))
    compiled = Path(py_compile.compile(str(source), doraise=True))
    forget([source])
    assert compiled.exists()


@pytest.mark.parametrize("name", ["job.py", "notes.txt", "absent.py"])
def test_what_was_never_compiled_is_no_trouble(tmp_path: Path, name: str) -> None:
    if name != "absent.py":
        (tmp_path / name).write_text("")
    forget([tmp_path / name])
    assert not Path(importlib.util.cache_from_source(str(tmp_path / "job.py"))).exists()
