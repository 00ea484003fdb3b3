"""Run contenders in turn, A B C A B C …, and keep what each run took."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LONGEST = 300.0


@dataclass(frozen=True)
class Contender:
    """An engine and how it does one workload.

    Attributes:
        name: the row's name.
        how: what its steps run in.
        command: the command line of the nth repetition.
        folder: where it stands.
        expect: what its output must contain, by repetition.
        before: untimed work before each repetition.
        first: the warm-up command, where it is another one.
        trouble: why it cannot take part.
    """

    name: str
    how: str
    command: Callable[[int], list[str]]
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    expect: Callable[[int], tuple[str, ...]] = lambda _: ()
    before: Callable[[int], object] = lambda _: None
    first: Callable[[int], list[str]] | None = None
    trouble: str = ""


@dataclass(frozen=True)
class Sample:
    """One run: wall-clock and CPU seconds, of the process and all below it."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Row:
    """A contender's samples, or what went wrong."""

    contender: Contender
    samples: Sequence[Sample] = ()
    trouble: str = ""

    @property
    def median(self) -> float:
        return statistics.median(s.wall for s in self.samples)

    @property
    def cpu(self) -> float:
        return statistics.median(s.cpu for s in self.samples)

    @property
    def spread(self) -> str:
        return f"{min(s.wall for s in self.samples):.2f}–{max(s.wall for s in self.samples):.2f}"


def race(contenders: Sequence[Contender], n: int) -> list[Row]:
    """Warm every contender up, then run all of them n times, in turn; one that fails is out, and says why."""
    found: dict[str, list[Sample]] = {c.name: [] for c in contenders if not c.trouble}
    trouble = {c.name: c.trouble for c in contenders}
    for repetition in range(-1, n):
        for c in contenders:
            if trouble[c.name]:
                continue
            try:
                sample = once(c, repetition)
            except (OSError, subprocess.SubprocessError, AssertionError) as e:
                trouble[c.name] = str(e)[:300]
            else:
                found[c.name] += [sample] if repetition >= 0 else []
    return [Row(c, () if trouble[c.name] else found[c.name], trouble[c.name]) for c in contenders]


def once(c: Contender, repetition: int) -> Sample:
    """One run, the first (``repetition`` -1) as a warm-up.

    Raises:
        AssertionError: it failed, or its output is not the expected one.
    """
    c.before(repetition)
    command = c.first(repetition) if c.first and repetition < 0 else c.command(repetition)
    cpu, start = _cpu_of_children(), time.perf_counter()
    done = subprocess.run(
        command, cwd=c.folder, env=environ(c.env), capture_output=True, text=True, timeout=LONGEST, check=False
    )
    sample = Sample(time.perf_counter() - start, _cpu_of_children() - cpu)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"exit code {done.returncode}: {' '.join(said.split())[-250:]}"
    missing = [e for e in c.expect(repetition) if e not in said]
    assert not missing, f"no {missing[0]!r} in {said[-200:]!r}"
    return sample


def environ(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of everything measured: bytecode is written and used, as by an installed wheel."""
    refused = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONUNBUFFERED")
    kept = {k: v for k, v in os.environ.items() if k not in refused and not k.startswith("TIDEGATE_")}
    return {**kept, **more}


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
