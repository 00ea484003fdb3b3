"""Kept definitions: used while everything they were made from is unchanged, and never after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate import prepared
from tidegate.ir.kept import Kept, watching
from tidegate.ir.load import Definition, load
from tidegate.prepared import prepare
from tidegate.project import cache_folder

PIPELINE = """
import os
from pathlib import Path
from kfp import dsl
from pkg.names import NAME

with open("/dev/stderr", "w") as err:
    err.write("TRACED ")

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def say(text: str) -> str:
    return text

DEFAULT = Path(__file__).with_name("default.txt").read_text() + os.environ.get("WHO", "nobody")

@dsl.pipeline(name=NAME)
def first(text: str = DEFAULT) -> str:
    return say(text=text).output

@dsl.pipeline(name="second")
def second() -> str:
    return say(text="two").output
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/names.py").write_text("NAME = 'one'\n")
    (tmp_path / "default.txt").write_text("hello ")
    (tmp_path / "p.py").write_text(PIPELINE)
    for file in tmp_path.rglob("*"):
        os.utime(file, (1e9, 1e9))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def dry_run(project: Path, target: str = "p.py:first", *words: str, **variables: str) -> tuple[bool, dict[str, object]]:
    """Return whether the pipeline was traced, and what was found."""
    command = [sys.executable, "-m", "tidegate", "run", target, "--dry-run", "--json", *words]
    done = subprocess.run(
        command, cwd=project, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return "TRACED" in done.stderr, json.loads(done.stdout)


def old(file: Path, text: str) -> None:
    file.write_text(text)
    os.utime(file, (1e9, 1e9))  # what changes while it is read is not kept


def test_an_unchanged_pipeline_is_not_traced_again(project: Path) -> None:
    traced, first = dry_run(project)
    assert traced
    assert dry_run(project) == (False, first)
    assert dry_run(project, "p.py:second")[1]["pipeline"] == "second", "another pipeline of the file is another entry"
    assert dry_run(project, "p.py:first", "--no-cache")[0]


CHANGES: dict[str, Callable[[Path], None]] = {
    "its own file": lambda p: old(p / "p.py", PIPELINE.replace("second", "third")),
    "a module it imports": lambda p: old(p / "pkg/names.py", "NAME = 'other'\n"),
    "a file it opens": lambda p: old(p / "default.txt", "moin "),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_it_was_made_from_changed_so_it_is_traced_again(project: Path, what: str) -> None:
    dry_run(project)
    CHANGES[what](project)
    assert dry_run(project)[0]
    assert not dry_run(project)[0]


def test_a_variable_that_it_reads_changed_so_it_is_traced_again(project: Path) -> None:
    dry_run(project, UNRELATED="1")
    assert dry_run(project, UNRELATED="2") == (
        False,
        {"pipeline": "one", "parameters": {"text": "hello nobody"}, "steps": ["say"]},
    )
    traced, body = dry_run(project, WHO="somebody")
    assert traced
    assert body["parameters"] == {"text": "hello somebody"}


def test_compiled_ir_is_known_by_its_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project / "p.yaml"
    command = [sys.executable, "-m", "tidegate", "compile", "p.py:first", "-o", "p.yaml"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    os.utime(file, (1e9, 1e9))
    monkeypatch.chdir(project)
    first = prepare("p.yaml")
    monkeypatch.setattr(prepared, "load", lambda _: pytest.fail("it was read again"))
    assert prepare("p.yaml") == first
    monkeypatch.setattr(prepared, "load", load)
    old(file, file.read_text().replace("name: one", "name: uno"))
    assert prepare("p.yaml").plan.name == "uno"


@pytest.mark.parametrize("at", [0, 40, -40])
def test_a_damaged_entry_is_not_believed(project: Path, at: int) -> None:
    dry_run(project)
    [entry] = (cache_folder() / "definitions").glob("*.json")
    data = bytearray(entry.read_bytes())
    data[at] ^= 16  # of a path makes no other test's path
    entry.write_bytes(data)
    assert dry_run(project)[0]


def test_a_folder_that_cannot_be_written_costs_only_time(project: Path) -> None:
    (project / "cache").write_text("in the way")
    assert dry_run(project)[0]
    assert dry_run(project)[0]


def test_what_changed_while_it_was_read_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    old(file, "{}")
    kept = Kept(tmp_path / "kept", "")
    with watching(str(file)) as sources:
        definition = Definition({"pipelineInfo": {"name": "x"}})
    kept.keep(str(file), definition, sources)
    assert kept.find(str(file)) == definition
    with watching(str(file)) as sources:
        os.utime(file)
    kept.keep(str(file), Definition({"new": 1}), sources)
    assert kept.find(str(file)) == definition


def test_a_lock_that_was_not_there_before_counts(project: Path) -> None:
    old(
        project / "pkg/work.py",
        "import tidegate\n\n@tidegate.component(image='train')\ndef work() -> int:\n    return 1\n",
    )
    text = "import sys\nfrom kfp import dsl\nfrom pkg.work import work\nprint('TRACED', file=sys.stderr)\n"
    old(project / "q.py", f"{text}\n@dsl.pipeline(name='q')\ndef q():\n    work()\n")
    assert dry_run(project, "q.py")[0]
    assert not dry_run(project, "q.py")[0]
    old(project / "images.lock", f"version = 1\n[family.train]\nimage = 'registry.example/train@sha256:{'0' * 64}'\n")
    assert dry_run(project, "q.py")[0]
