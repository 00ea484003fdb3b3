"""A run of five steps, killed or failed at every call that changes a file: it can go on, to the same digests."""

import errno
import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl

from conftest import LONG
from tests.servers import wait_until

SAMPLE = 8


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def step(x: int, data: dsl.Output[dsl.Dataset], before: dsl.Input[dsl.Dataset] = None) -> int:
    with open(data.path, "w") as f:
        f.write((open(before.path).read() if before else "") + f"{x} ")
    return x + 1


@dsl.pipeline(name="five")
def five(x: int = 1) -> dsl.Dataset:
    one = step(x=x)
    two = step(x=one.outputs["Output"], before=one.outputs["data"])
    three = step(x=two.outputs["Output"], before=two.outputs["data"])
    four = step(x=three.outputs["Output"], before=three.outputs["data"])
    return step(x=four.outputs["Output"], before=four.outputs["data"]).outputs["data"]


@dataclass
class Faults:
    """A folder with the pipeline, and the library that makes calls fail."""

    root: Path
    library: Path
    expected: str = ""
    calls: int = 0

    def run(self, store: Path, *words: str, at: int = 0, code: int = 0) -> subprocess.CompletedProcess[str]:
        counter = self.root / "counter"
        counter.write_bytes(bytes(8))
        fault = {
            "LD_PRELOAD": str(self.library),
            "FAULT_COUNTER": str(counter),
            "FAULT_AT": str(at),
            "FAULT_ERRNO": str(code),
        }
        command = [
            sys.executable,
            "-m",
            "tidegate",
            "run",
            "five.yaml",
            "--no-mirror",
            "--json",
            "--store",
            str(store),
            *words,
        ]
        return subprocess.run(
            command,
            cwd=self.root,
            env={**os.environ, **(fault if at >= 0 else {})},
            capture_output=True,
            text=True,
            check=False,
        )

    def counted(self) -> int:
        return int.from_bytes((self.root / "counter").read_bytes()[:4], sys.byteorder)

    def goes_on(self, store: Path) -> None:
        """Resume the run that was disturbed, or start it where it never began; the end is that of an undisturbed one."""
        begun = (store / "runs" / "last").exists()
        done = self.run(store, *(["--resume", "last"] if begun else []), at=-1)
        assert done.returncode == 0, done.stderr
        assert digest(done) == self.expected
        doctor = [sys.executable, "-m", "tidegate", "doctor", "--store", str(store)]
        healthy = subprocess.run(doctor, cwd=self.root, capture_output=True, text=True, check=False)
        assert healthy.returncode == 0, healthy.stdout + healthy.stderr


def digest(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)["outputs"]["Output"]["digest"]


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    root = tmp_path_factory.mktemp("faults")
    (root / "pyproject.toml").touch()
    compiler.Compiler().compile(five, str(root / "five.yaml"))
    library = root / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    made = Faults(root, library)
    undisturbed = made.run(root / "undisturbed")
    made.expected, made.calls = digest(undisturbed), made.counted()
    return made


def chosen(faults: Faults, seed: int) -> list[int]:
    every = list(range(1, faults.calls + 1))
    return every if LONG else sorted(random.Random(seed).sample(every, SAMPLE))


def test_the_calls_of_an_undisturbed_run_are_seen(faults: Faults) -> None:
    assert faults.calls > 100


@pytest.mark.timeout(3600)
def test_a_run_killed_at_any_call_goes_on_to_the_same_digests(faults: Faults, tmp_path: Path) -> None:
    for at in chosen(faults, 1):
        store = tmp_path / f"kill-{at}"
        faults.run(store, at=at)
        faults.goes_on(store)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_run_whose_disk_fails_at_any_call_says_so_and_goes_on(faults: Faults, tmp_path: Path, code: int) -> None:
    for at in chosen(faults, code):
        store = tmp_path / f"fail-{at}"
        done = faults.run(store, at=at, code=code)
        assert not re.search(r"^Traceback", done.stderr, re.MULTILINE), done.stderr
        if done.returncode == 0:
            assert digest(done) == faults.expected
        else:
            assert json.loads(done.stdout)["error"]["code"], done.stderr
        faults.goes_on(store)


@pytest.mark.timeout(3600)
def test_a_run_killed_at_any_moment_leaves_no_process_and_goes_on(faults: Faults, tmp_path: Path) -> None:
    chance = random.Random(7)
    for i in range(60 if LONG else 4):
        store = tmp_path / f"moment-{i}"
        command = [sys.executable, "-m", "tidegate", "run", "five.yaml", "--no-mirror", "--store", str(store)]
        process = subprocess.Popen(command, cwd=faults.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.05, 0.5))
        process.kill()
        process.wait()
        wait_until(
            lambda here=str(store): not [p for p in Path("/proc").glob("[0-9]*/environ") if here.encode() in environ(p)]
        )
        faults.goes_on(store)


def environ(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""
