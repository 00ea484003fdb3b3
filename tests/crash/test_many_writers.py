"""Many processes on one store, some killed at any moment: nothing acknowledged is lost, and nobody waits for the dead."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from conftest import LONG
from tests.crash import writer
from tests.crash.simulated_disk import SimulatedDisk
from tidegate.store.blobs import Blobs
from tidegate.store.cache import Cache, Hit
from tidegate.store.local import LocalStore
from tidegate.store.runs import Runs

ITERATIONS, WRITERS, KILLED = (50 if LONG else 5), 8, 3


@dataclass
class Process:
    """A writer and what it said."""

    name: str
    popen: subprocess.Popen[str]
    said: list[list[str]] = field(default_factory=list)

    def listen(self, lines: int = sys.maxsize) -> None:
        """Take down so many lines, or all to the end; half a line, of one that was killed, is nothing said."""
        assert self.popen.stdout
        for _ in range(lines):
            if not (line := self.popen.stdout.readline()).endswith("\n"):
                return
            self.said.append(json.loads(line))


def start(store: Path, number: int) -> Process:
    name = f"w{number}"
    command = [sys.executable, writer.__file__, str(store), name, str(ITERATIONS)]
    return Process(name, subprocess.Popen(command, stdout=subprocess.PIPE, text=True))


def end(process: Process, killed: bool) -> None:
    process.listen()
    assert process.popen.stdout
    process.popen.stdout.close()
    # on a busy machine one may have come to its end before it was killed
    ended = process.popen.wait()
    assert ended == 0 and process.said[-1] == ["done", process.name] if ended != -9 else killed


def test_of_many_writers_some_killed_nothing_acknowledged_is_lost_and_nobody_waits_for_the_dead(tmp_path: Path) -> None:
    processes = [start(tmp_path / "s", n) for n in range(WRITERS)]
    for process in processes[:KILLED]:
        process.listen(random.randrange(1, 5 * ITERATIONS - 5))
        process.popen.kill()
    for process in processes:
        end(process, killed=process in processes[:KILLED])
    assert all(p.said[-1] == ["done", p.name] for p in processes[KILLED:])
    assert_kept(LocalStore(tmp_path / "s"), [tuple(said) for p in processes for said in p.said])
    end(late := start(tmp_path / "s", WRITERS), killed=False)
    assert late.said[-1] == ["done", late.name], "a new writer goes on where others were killed"


def assert_kept(store: LocalStore, said: list[tuple[str, ...]]) -> None:
    for what, value in set(said):
        assert kept(store, what, value), f"{what} {value} was acknowledged and is not there"
    for entry in store.list("blobs"):
        Blobs(store).check("sha256:" + "".join(entry.key.split("/")[2:]))
    assert not list(store.list("damaged"))


def kept(store: LocalStore, what: str, value: str) -> object:
    runs = Runs(store)
    if what == "won":
        key, _, winner = value.partition("=")
        return store.get(key).decode() == winner
    if what == "blob":
        return Blobs(store).read_bytes(value)
    if what == "cached":
        return isinstance(Cache(store).lookup(value, Blobs(store)), Hit)
    if what == "run":
        return runs.read(value).id == value
    if what == "step":
        return [s.path for s in runs.steps(value)] == ["train"]
    return what == "done" or runs.outcome(value)


def test_a_key_that_is_taken_away_while_it_is_looked_at_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    for create in (lambda s: s.put_new("k/k", b"x"), lambda s: s.put_file_new("k/k", tmp_path / "f")):
        other = LocalStore(tmp_path / "s")
        other.put("k/k", b"other")
        disk = SimulatedDisk(tmp_path)
        store = LocalStore(tmp_path / "s", disk)
        disk.before = lambda call, disk=disk, other=other: (
            other.delete("k/k") if call == "fsync_folder" and not disk.ops else None
        )
        assert create(store)
        assert other.get("k/k") == b"x"
